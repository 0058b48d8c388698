// runtime/cli/io/output_file.cpp: finds out where an output goes, and writes it there
#include "cli/io/output_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/file.hpp"
#include "base/whole_file.hpp"

namespace attnrt::cli {
namespace {

using core::fail;
using core::Result;

// Returns the absolute path of the file that a path means once links are followed. Fails if it is,
// or leads to, something other than a regular file: a device, a pipe, a directory. The file itself
// need not exist.
Result<std::filesystem::path> find_target(const std::string& path) {
  if (path.empty()) return fail(ATTNRT_INVALID_ARGUMENT, "the name of the output file is empty");
  std::error_code error;
  std::filesystem::path target = std::filesystem::absolute(path, error);
  if (error)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: the working directory cannot be found: {}", path,
                error.message());
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(target, error))) {
    target = std::filesystem::canonical(target, error);
    if (error)
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: is a link to a file that does not exist", path);
  }
  const auto status = std::filesystem::status(target, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is {}, expected the name of a file", path,
                std::filesystem::is_directory(status) ? "a directory" : "not a regular file");
  if (!target.has_filename())
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: names a directory, expected a file", path);
  return target;
}

// Returns the directory of a path as the user wrote it, for messages.
std::string directory_text(const std::string& path) {
  const std::string directory = std::filesystem::path(path).parent_path().string();
  return directory.empty() ? "." : directory;
}

}  // namespace

Result<OutputPath> resolve_output(const std::string& option, const std::string& path,
                                  const std::vector<InputFile>& inputs) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());
  OutputPath output{path, target->string(), target->parent_path().string()};
  std::error_code error;
  if (!std::filesystem::is_directory(output.directory, error))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: there is no directory {}", path,
                directory_text(path));
  if (access(output.directory.c_str(), W_OK | X_OK) != 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot write to the directory {}: {}", path,
                directory_text(path), std::strerror(errno));
  for (const InputFile& input : inputs) {
    // A file that does not exist is not replaced.
    if (!input.path || !std::filesystem::equivalent(*input.path, output.path, error)) continue;
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{} {} is the file of {}{}, which it would replace; give another name", option,
                path, input.name, input.name == "--input" ? " " + *input.path : "");
  }
  return output;
}

Result<void> write_file(const OutputPath& output, const std::vector<std::string_view>& pieces) {
  const core::Descriptor directory = core::open_directory(output.directory);
  Result<void> written;
  if (directory.number() < 0) {
    written = core::system_error("cannot be written");
  } else {
    const std::string name = std::filesystem::path(output.path).filename();
    written = core::write_whole(directory, name, pieces, 0666);
  }
  if (!written) return fail(ATTNRT_INTERNAL, "{}: {}", output.given, written.error().message);
  return {};
}

}  // namespace attnrt::cli
