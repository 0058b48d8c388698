// runtime/src/base/text.cpp: splits and joins lists of words
#include "base/text.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

namespace attnrt::core {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    std::string_view part = text.substr(0, text.find(separator));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
  }
  return parts;
}

std::string cut(const char* text, size_t most) {
  if (text == nullptr) return {};
  std::string copy(text, strnlen(text, most));
  if (copy.size() < most) return copy;
  const auto begins_character = [](char byte) { return (byte & 0xC0) != 0x80; };
  size_t start = copy.size();
  while (start > 0 && !begins_character(copy[start - 1])) --start;
  if (start == 0) return copy;
  const auto lead = static_cast<unsigned char>(copy[start - 1]);
  const size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (start - 1 + bytes > copy.size()) copy.resize(start - 1);
  return copy;
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

}  // namespace attnrt::core
