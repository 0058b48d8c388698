// runtime/cli/io/output_file.cpp: bytes into a file that is there whole or not at all
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

std::string system_error() { return std::strerror(errno); }

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = write(file, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

// The file that path means once links are followed, and its folder; devices, pipes and folders are no outputs.
struct Target {
  std::string path, folder;
};

Result<Target> find_target(const std::string& path) {
  if (path.empty()) return fail(ATTNRT_INVALID_ARGUMENT, "the name of the output is empty");
  std::error_code error;
  std::filesystem::path target(path);
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(target, error))) {
    target = std::filesystem::canonical(target, error);
    if (error) return fail(ATTNRT_INVALID_ARGUMENT, "{}: the link leads nowhere", path);
  }
  const auto status = std::filesystem::status(target, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is {}, expected the name of a file", path,
                std::filesystem::is_directory(status) ? "a directory" : "not a regular file");
  if (!target.has_filename())
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: names a directory, expected a file", path);
  std::string folder = target.parent_path().string();
  return Target{target.string(), folder.empty() ? "." : folder};
}

// A file without a final name; gone unless it is renamed.
struct Temporary {
  std::string path;
  Descriptor file;
  bool renamed = false;
  ~Temporary() {
    if (file.number() >= 0 && !renamed) unlink(path.c_str());
  }
};

}  // namespace

Result<void> check_output(const std::string& path) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());
  std::error_code error;
  if (!std::filesystem::is_directory(target->folder, error))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: there is no directory {}", path, target->folder);
  if (access(target->folder.c_str(), W_OK | X_OK) != 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: nothing can be written in the directory {}: {}", path,
                target->folder, system_error());
  return {};
}

Result<void> write_file(const std::string& path, const std::vector<std::string_view>& pieces) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());

  Temporary temporary;
  for (int attempt = 0; attempt < 100 && temporary.file.number() < 0; ++attempt) {
    temporary.path = fmt::format("{}/.attnrt-{}-{}", target->folder, getpid(), attempt);
    temporary.file =
        Descriptor(::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (temporary.file.number() < 0 && errno != EEXIST) break;
  }
  const int file = temporary.file.number();
  bool written = file >= 0;
  for (const std::string_view piece : pieces) written = written && write_all(file, piece);
  if (!written || fsync(file) != 0 || rename(temporary.path.c_str(), target->path.c_str()) != 0)
    return fail(ATTNRT_INTERNAL, "{}: cannot be written: {}", path, system_error());
  temporary.renamed = true;

  // The new name itself; file systems that cannot do this have nothing better to offer.
  const Descriptor folder(::open(target->folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number() >= 0) (void)fsync(folder.number());
  return {};
}

}  // namespace attnrt::cli
