// runtime/src/base/whole_file.cpp: writes a file so that it is there as a whole or not at all
#include "base/whole_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace attnrt::core {
namespace {

// Names to try for the temporary file. Another one is needed if this process writes the same file
// twice at once, or if one of an earlier process with the same number was left over.
constexpr int kMaxAttempts = 100;

constexpr std::string_view kMark = ".attnrt-";  // between a file's name and the process's number
// Bytes of a file's name that its temporary name keeps: with what is added, names stay below the
// 255 bytes that file systems allow.
constexpr size_t kKeptName = 200;

std::string temporary_name(const std::string& name, int attempt) {
  const std::string again = attempt == 0 ? "" : fmt::format("-{}", attempt);
  return fmt::format(".{}{}{}{}", name.substr(0, kKeptName), kMark, getpid(), again);
}

// Whether a name is one that temporary_name returns for some file.
bool is_temporary(std::string_view name) {
  const size_t mark = name.rfind(kMark);
  if (!name.starts_with('.') || mark == std::string_view::npos || mark == 0) return false;
  const std::string_view number = name.substr(mark + kMark.size());
  return !number.empty() && number.find_first_not_of("0123456789-") == std::string_view::npos;
}

bool same_file(int file, int directory, const char* name) {
  struct stat opened {
  }, named{};
  return fstat(file, &opened) == 0 && fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino && S_ISREG(named.st_mode);
}

bool lock(int file) { return flock(file, LOCK_EX | LOCK_NB) == 0; }

// Removes temporary files whose writer has died. What cannot be removed stays: it is only litter.
void remove_left_over(int directory) {
  Descriptor copy(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (copy.number() < 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(copy.number()), closedir);
  if (stream == nullptr) return;
  (void)copy.release();  // the stream closes it
  while (const dirent* entry = readdir(stream.get())) {
    const char* const name = entry->d_name;
    if (!is_temporary(name)) continue;
    const Descriptor file(openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.number() < 0 || !lock(file.number()) || !same_file(file.number(), directory, name))
      continue;
    unlinkat(directory, name, 0);
  }
}

// The file under its temporary name. The destructor deletes it unless it was renamed.
struct TemporaryFile {
  int directory;
  std::string name;
  Descriptor file;
  bool renamed = false;
  explicit TemporaryFile(int directory_) : directory(directory_) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (file.number() >= 0 && !renamed) unlinkat(directory, name.c_str(), 0);
  }

  // Makes the file. If another writer takes it for left over before it is locked, or if the name is
  // taken, another name is tried. RETURNS false, with the reason in errno, if it cannot be made.
  bool make(const std::string& target, mode_t mode) {
    for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
      name = temporary_name(target, attempt);
      constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
      file = Descriptor(openat(directory, name.c_str(), kFlags, mode));
      if (file.number() < 0 && errno != EEXIST) return false;
      if (file.number() < 0) continue;
      // A file system without locks gives none to those who would remove the file, either.
      const bool is_taken = !lock(file.number()) && errno == EWOULDBLOCK;
      if (!is_taken && same_file(file.number(), directory, name.c_str())) return true;
      file = Descriptor();
    }
    errno = EEXIST;
    return false;
  }
};

}  // namespace

Descriptor open_directory(const std::string& path) {
  constexpr int kFlags = O_DIRECTORY | O_CLOEXEC;
  const int file = ::open(path.c_str(), O_RDONLY | kFlags);
  return Descriptor(file >= 0 || errno != EACCES ? file : ::open(path.c_str(), O_PATH | kFlags));
}

Result<void> write_whole(const Descriptor& directory, const std::string& name,
                         const std::vector<std::string_view>& pieces, mode_t mode) {
  size_t bytes = 0;
  for (const std::string_view piece : pieces) bytes += piece.size();
  // Asked first: a write beyond the limit would raise SIGXFSZ, which ends the process.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes) {
    return fail(
        ATTNRT_UNSUPPORTED,
        "cannot be written: it has {} bytes; this process may write files of {} (ulimit -f)", bytes,
        limit.rlim_cur);
  }
  const int folder = directory.number();
  remove_left_over(folder);
  TemporaryFile temporary(folder);
  bool written = temporary.make(name, mode);
  const int file = temporary.file.number();
  for (const std::string_view piece : pieces) written = written && write_all(file, piece);
  if (!written || fsync(file) != 0 ||
      renameat(folder, temporary.name.c_str(), folder, name.c_str()) != 0)
    return system_error("cannot be written");
  temporary.renamed = true;
  // Makes the new name durable, too. Some file systems cannot do this, which is no error.
  (void)fsync(folder);
  return {};
}

Result<void> write_whole(const std::filesystem::path& path, std::string_view bytes) {
  const Descriptor directory =
      open_directory(path.parent_path().empty() ? "." : path.parent_path().string());
  if (directory.number() < 0) return system_error("cannot be written");
  const std::string name = path.filename();
  struct stat status {};
  if (fstatat(directory.number(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      !S_ISREG(status.st_mode))
    return fail(ATTNRT_UNSUPPORTED, "cannot be written: it is there and not a regular file");
  return write_whole(directory, name, {bytes}, 0600);
}

}  // namespace attnrt::core
