// runtime/cli/io/output_file.cpp: writes a file under a temporary name and then renames it
#include "cli/io/output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/file.hpp"

namespace attnrt::cli {
namespace {

using core::Descriptor;
using core::fail;
using core::Result;

// Names to try for the temporary file. Another one is needed only if a file of an earlier process
// with the same process number was left over.
constexpr int kMaxAttempts = 100;
constexpr size_t kMaxWrite = size_t{1} << 30;  // bytes; Linux writes less than 2 GiB in one call

// Writes all bytes. RETURNS false, with the reason in errno, if they could not be written.
bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// The file that a path means once links are followed, and the directory of that file.
struct Target {
  std::string path, directory;
};

// Fails if the path is, or leads to, something other than a regular file: a device, a pipe, a
// directory. The file itself need not exist.
Result<Target> find_target(const std::string& path) {
  if (path.empty()) return fail(ATTNRT_INVALID_ARGUMENT, "the name of the output file is empty");
  std::error_code error;
  std::filesystem::path target(path);
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
  std::string directory = target.parent_path().string();
  return Target{target.string(), directory.empty() ? "." : directory};
}

// The file under its temporary name. The destructor deletes it unless it was renamed.
struct TemporaryFile {
  std::string path;
  Descriptor file;
  bool renamed = false;
  ~TemporaryFile() {
    if (file.number() >= 0 && !renamed) unlink(path.c_str());
  }
};

}  // namespace

Result<void> check_output(const std::string& path) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());
  std::error_code error;
  if (!std::filesystem::is_directory(target->directory, error))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: there is no directory {}", path, target->directory);
  if (access(target->directory.c_str(), W_OK | X_OK) != 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot write to the directory {}: {}", path,
                target->directory, std::strerror(errno));
  return {};
}

Result<void> write_file(const std::string& path, const std::vector<std::string_view>& pieces) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());

  TemporaryFile temporary;
  for (int attempt = 0; attempt < kMaxAttempts && temporary.file.number() < 0; ++attempt) {
    temporary.path = fmt::format("{}/.attnrt-{}-{}", target->directory, getpid(), attempt);
    temporary.file =
        Descriptor(::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (temporary.file.number() < 0 && errno != EEXIST) break;
  }
  const int file = temporary.file.number();
  bool written = file >= 0;
  for (const std::string_view piece : pieces) written = written && write_all(file, piece);
  if (!written || fsync(file) != 0 || rename(temporary.path.c_str(), target->path.c_str()) != 0)
    return fail(ATTNRT_INTERNAL, "{}: cannot be written: {}", path, std::strerror(errno));
  temporary.renamed = true;

  // Makes the new name durable, too. Some file systems cannot do this, which is no error.
  const Descriptor directory(::open(target->directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.number() >= 0) (void)fsync(directory.number());
  return {};
}

}  // namespace attnrt::cli
