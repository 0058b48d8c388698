// runtime/src/base/text.hpp: splits and joins lists of words
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attnrt::core {

// Returns the parts of a list such as "a:b:c", without the spaces around them. Leaves out empty
// ones.
std::vector<std::string> split(std::string_view text, char separator);

// Copies at most `most` bytes of a text that ends with NUL; a UTF-8 character is not cut in two.
// NULL gives "". Reads no byte behind the ones that it copies.
std::string cut(const char* text, size_t most);

// Returns the parts in one line, with the separator between them.
std::string joined(const std::vector<std::string>& parts, std::string_view separator = "; ");

}  // namespace attnrt::core
