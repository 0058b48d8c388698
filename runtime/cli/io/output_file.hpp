// runtime/cli/io/output_file.hpp: bytes into a file that is there whole or not at all
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::cli {

// Whether write_file could write there, as far as can be known without writing: asked before work is done.
core::Result<void> check_output(const std::string& path);

// Writes beside path, then renames: path is the whole file or what it was before. A link is followed.
core::Result<void> write_file(const std::string& path, const std::vector<std::string_view>& pieces);

}  // namespace attnrt::cli
