// runtime/src/base/result.cpp: names of statuses, and text that is safe in a message
#include "base/result.hpp"

#include <algorithm>
#include <new>

namespace attnrt::core {

attnrt_status fill_error(attnrt_error* error, const Error& found) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  // A message may quote any text of a manifest.
  if (std::any_of(found.message.begin(), found.message.end(), is_control)) {
    try {
      return attnrt_fail(error, found.code, "%s", one_line(found.message).c_str());
    } catch (const std::bad_alloc&) {
      return attnrt_fail(error, found.code, "an error whose text needs memory that is not there");
    }
  }
  return attnrt_fail(error, found.code, "%s", found.message.c_str());
}

const char* status_name(attnrt_status status) {
  switch (status) {
    case ATTNRT_OK: return "ok";
    case ATTNRT_UNSUPPORTED: return "unsupported";
    case ATTNRT_OUT_OF_MEMORY: return "out of memory";
    case ATTNRT_INVALID_ARGUMENT: return "invalid argument";
    case ATTNRT_INTERNAL: return "internal error";
    case ATTNRT_DEVICE_LOST: return "device lost";
    case ATTNRT_NOT_FOUND: return "not found";
    default: return "unknown status";
  }
}

std::string one_line(std::string_view text) {
  std::string line;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '\n') {
      line += "\\n";
    } else if (letter == '\t') {
      line += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += letter;
    }
  }
  return line;
}

std::string shown(std::string_view text) {
  constexpr size_t limit = 60;
  if (text.empty()) return "\"\"";
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool starts_character = (byte & 0xC0U) != 0x80U;  // never cut inside a UTF-8 character
    if (i >= limit && starts_character) return result + "...";
    if (byte == '\n') {
      result += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace attnrt::core
