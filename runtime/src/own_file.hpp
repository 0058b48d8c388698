// runtime/src/own_file.hpp: the file that this code was loaded from: libattnrt.so, or a program
#pragma once

#include <string>

namespace attnrt::core {

// Returns the path of the file that holds this code, with all links resolved; "" if nothing
// trustworthy tells it. It may have been exchanged since it was loaded. The command and the tests
// have the library's code linked in, so for them it is the program.
std::string own_file();

}  // namespace attnrt::core
