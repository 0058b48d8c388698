// runtime/cli/io/output_file.hpp: writes a file so that it is there as a whole or not at all
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::cli {

// Says whether write_file could write to this path, as far as can be known without writing. Call it
// before the work whose result is to be written.
core::Result<void> check_output(const std::string& path);

// Writes the pieces, one after another, to a new file in the same directory, then renames that file
// to `path`. Until the renaming, and if anything fails, `path` is what it was before. If `path` is
// a link, the file that it leads to is replaced.
core::Result<void> write_file(const std::string& path, const std::vector<std::string_view>& pieces);

}  // namespace attnrt::cli
