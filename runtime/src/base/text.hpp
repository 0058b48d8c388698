// runtime/src/base/text.hpp: splits and joins lists of words
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attnrt::core {

// Returns the parts of a list such as "a:b:c", without the spaces around them. Leaves out empty
// ones.
std::vector<std::string> split(std::string_view text, char separator);

// Returns the parts in one line, with the separator between them.
std::string joined(const std::vector<std::string>& parts, std::string_view separator = "; ");

}  // namespace attnrt::core
