// runtime/src/base/bytes.hpp: amounts of memory as text, "256 MiB"
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace attnrt::core {

// Reads a decimal number of bytes, or a number, one space and KiB, MiB, GiB or TiB. nullopt for
// everything else, and for what does not fit into int64_t.
std::optional<int64_t> parse_bytes(std::string_view text);

// Returns the shortest text that parse_bytes reads as this number: "256 MiB", "1000". REQUIRES:
// bytes >= 0.
std::string bytes_text(int64_t bytes);

}  // namespace attnrt::core
