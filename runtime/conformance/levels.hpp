// runtime/conformance/levels.hpp: which rules a plugin must keep to be admitted
#pragma once

#include <optional>
#include <string_view>

#include "conformance/check_rules.hpp"

namespace attnrt::conformance {

// Returns what a probe of this level checks: "loads" (the library loads and opens, tells its
// devices, and leaves the process as it was) or "conforms" (every rule, on few random cases).
// nullopt: there is no such level. seed: of the random cases.
std::optional<Settings> settings_of_level(std::string_view level, uint64_t seed);

}  // namespace attnrt::conformance
