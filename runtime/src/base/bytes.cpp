// runtime/src/base/bytes.cpp: amounts of memory as text, "256 MiB"
#include "base/bytes.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace attnrt::core {
namespace {

constexpr std::array<std::string_view, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};

}  // namespace

std::optional<int64_t> parse_bytes(std::string_view text) {
  const std::string_view digits = text.substr(0, text.find(' '));
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos ||
      (digits.size() > 1 && digits[0] == '0'))
    return std::nullopt;
  int64_t bytes = 0;
  if (std::from_chars(digits.data(), digits.data() + digits.size(), bytes).ec != std::errc())
    return std::nullopt;
  if (digits.size() == text.size()) return bytes;
  const std::string_view unit = text.substr(digits.size() + 1);
  for (const std::string_view known : kUnits) {
    if (__builtin_mul_overflow(bytes, int64_t{1024}, &bytes)) return std::nullopt;
    if (known == unit) return bytes;
  }
  return std::nullopt;
}

std::string bytes_text(int64_t bytes) {
  std::string_view unit;
  for (const std::string_view larger : kUnits) {
    if (bytes == 0 || bytes % 1024 != 0) break;
    bytes /= 1024;
    unit = larger;
  }
  return unit.empty() ? std::to_string(bytes) : fmt::format("{} {}", bytes, unit);
}

}  // namespace attnrt::core
