// runtime/src/base/result.hpp: a value, or an error with a status and one line of text
#pragma once

#include <attnrt/plugin.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace attnrt::core {

struct Error {
  attnrt_status code = ATTNRT_INTERNAL;
  std::string message;  // where, what was found, what was expected, what to do
};

using Errors = std::vector<Error>;  // each found independently of the others

template <class T>
using Result = tl::expected<T, Error>;

template <class... Arguments>
tl::unexpected<Error> fail(attnrt_status code, fmt::format_string<Arguments...> format,
                           Arguments&&... arguments) {
  return tl::unexpected<Error>({code, fmt::format(format, std::forward<Arguments>(arguments)...)});
}

// Fills a caller's error, if there is one, with one line, and returns the code.
attnrt_status fill_error(attnrt_error* error, const Error& found);

// Returns "ok", "unsupported", "out of memory", "invalid argument", "internal error", "device lost"
// or "not found".
const char* status_name(attnrt_status status);

// Prepares foreign text for a one-line message: escapes unprintable bytes, cuts it after about 60
// bytes, and shows an empty text as "".
std::string shown(std::string_view text);

// Makes text one line that is safe to print: control characters and line ends become \n, \t or
// \xNN.
std::string one_line(std::string_view text);

}  // namespace attnrt::core
