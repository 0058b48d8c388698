// runtime/cli/io/output_file.hpp: finds out where an output goes, and writes it there
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::cli {

// Where a file is to be written. The path is absolute, so that it stays the same file if the
// process, or a plugin in it, changes its working directory.
struct OutputPath {
  std::string given;      // as the user wrote it, for messages
  std::string path;       // where links lead to
  std::string directory;  // of path
};

// A file that an output must not replace.
struct InputFile {
  std::string name;                 // what the user knows it by: --input, ATTNRT_POLICY
  std::optional<std::string> path;  // absent: there is no such file
};

// Finds out where an output will be written, and whether it can be, as far as can be known without
// writing. `option`: its name, for messages. Call it before any work and before a plugin is loaded.
// Errors: INVALID_ARGUMENT, if the directory does not exist or cannot be written to, if the path is
// something other than a file, or if it is one of the inputs.
core::Result<OutputPath> resolve_output(const std::string& option, const std::string& path,
                                        const std::vector<InputFile>& inputs);

// Writes the pieces, one after another, as base/whole_file.hpp does. If the path is a link, the
// file that it leads to is replaced.
core::Result<void> write_file(const OutputPath& output,
                              const std::vector<std::string_view>& pieces);

}  // namespace attnrt::cli
