// runtime/cli/io/output_file.cpp: writes a file under a temporary name and then renames it
//
// The temporary name of NAME is .NAME.attnrt-PID. Its writer holds a lock on the file, which ends
// with the process however it ends. So a file of such a name that nobody has locked was left by a
// process that was killed, and the next writer removes it.
#include "cli/io/output_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

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

constexpr std::string_view kMark = ".attnrt-";  // between a file's name and the process's number
// Bytes of a file's name that its temporary name keeps: with what is added, names stay below the
// 255 bytes that file systems allow.
constexpr size_t kKeptName = 200;

// Whether a name is one that temporary_name returns for some file.
bool is_temporary(std::string_view name) {
  const size_t mark = name.rfind(kMark);
  if (!name.starts_with('.') || mark == std::string_view::npos || mark == 0) return false;
  const std::string_view number = name.substr(mark + kMark.size());
  return !number.empty() && number.find_first_not_of("0123456789-") == std::string_view::npos;
}

std::string temporary_name(const OutputPath& output, int attempt) {
  const std::string name = std::filesystem::path(output.path).filename().string();
  const std::string again = attempt == 0 ? "" : fmt::format("-{}", attempt);
  return fmt::format("{}/.{}{}{}{}", output.directory, name.substr(0, kKeptName), kMark, getpid(),
                     again);
}

bool same_file(int file, const std::string& path) {
  struct stat opened {
  }, named{};
  return fstat(file, &opened) == 0 && lstat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino && S_ISREG(named.st_mode);
}

bool lock(int file) { return flock(file, LOCK_EX | LOCK_NB) == 0; }

// Removes temporary files whose writer has died. What cannot be removed stays: it is only litter.
void remove_left_over(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(opendir(directory.c_str()), closedir);
  while (const dirent* entry = stream != nullptr ? readdir(stream.get()) : nullptr) {
    if (!is_temporary(entry->d_name)) continue;
    const std::string path = directory + "/" + entry->d_name;
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.number() < 0 || !lock(file.number()) || !same_file(file.number(), path)) continue;
    unlink(path.c_str());
  }
}

// The file under its temporary name. The destructor deletes it unless it was renamed.
struct TemporaryFile {
  std::string path;
  Descriptor file;
  bool renamed = false;
  ~TemporaryFile() {
    if (file.number() >= 0 && !renamed) unlink(path.c_str());
  }

  // Makes the file. If another process takes it for left over before it is locked, or if the name
  // is taken, another name is tried. RETURNS false, with the reason in errno, if it cannot be made.
  bool make(const OutputPath& output) {
    for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
      path = temporary_name(output, attempt);
      file = Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
      if (file.number() < 0 && errno != EEXIST) return false;
      if (file.number() < 0) continue;
      // A file system without locks gives none to those who would remove the file, either.
      (void)lock(file.number());
      if (same_file(file.number(), path)) return true;
      file = Descriptor();
    }
    errno = EEXIST;
    return false;
  }
};

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
  remove_left_over(output.directory);
  TemporaryFile temporary;
  bool written = temporary.make(output);
  const int file = temporary.file.number();
  for (const std::string_view piece : pieces) written = written && write_all(file, piece);
  if (!written || fsync(file) != 0 || rename(temporary.path.c_str(), output.path.c_str()) != 0)
    return fail(ATTNRT_INTERNAL, "{}: cannot be written: {}", output.given, std::strerror(errno));
  temporary.renamed = true;

  // Makes the new name durable, too. Some file systems cannot do this, which is no error.
  const Descriptor directory(::open(output.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.number() >= 0) (void)fsync(directory.number());
  return {};
}

}  // namespace attnrt::cli
