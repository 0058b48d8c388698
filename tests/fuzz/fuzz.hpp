// tests/fuzz/fuzz.hpp: what every fuzz target needs: a check that ends the process
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::fuzz {

// Ends the process if a property does not hold, so that the fuzzer keeps the input.
inline void require(bool holds, std::string_view property) {
  if (holds) return;
  fmt::print(stderr, "fuzz: does not hold: {}\n", property);
  std::abort();
}

// Whether a message is one line that is safe to print. Bytes from 0x80 on may be UTF-8.
inline bool is_one_line(std::string_view message) {
  return !message.empty() && std::all_of(message.begin(), message.end(), [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return byte >= 0x20 && byte != 0x7F;
  });
}

inline void require_one_line(std::string_view message) {
  require(is_one_line(message), fmt::format("an error is one printable line: {}", message));
}

// Requires "FILE:LINE:COLUMN: TEXT" with a line of the text, or "FILE: TEXT" about the whole text.
inline void require_place(std::string_view message, std::string_view file, std::string_view text) {
  require_one_line(message);
  const auto holds = [&](bool is) {
    require(is, fmt::format("an error begins with a place in the text: {}", message));
  };
  holds(message.starts_with(file));
  message.remove_prefix(file.size());
  if (message.starts_with(": ")) return;
  int64_t numbers[2] = {0, 0};
  for (int64_t& number : numbers) {
    holds(message.starts_with(':'));
    message.remove_prefix(1);
    const auto [end, error] =
        std::from_chars(message.data(), message.data() + message.size(), number);
    holds(error == std::errc());
    message.remove_prefix(static_cast<size_t>(end - message.data()));
  }
  holds(message.starts_with(": "));
  // yaml-cpp takes \r alone for the end of a line, too.
  const auto is_end = [](char letter) { return letter == '\n' || letter == '\r'; };
  const auto lines = std::count_if(text.begin(), text.end(), is_end) + 1;
  holds(numbers[0] >= 1 && numbers[0] <= lines + 1 && numbers[1] >= 1 &&
        numbers[1] <= static_cast<int64_t>(text.size()) + 2);
}

}  // namespace attnrt::fuzz
