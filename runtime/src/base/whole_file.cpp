// runtime/src/base/whole_file.cpp: writes a file so that it is there as a whole or not at all
#include "base/whole_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "base/file.hpp"

namespace attnrt::core {
namespace {

// Bytes of a file's name that its temporary name keeps, so that this stays below the 255 bytes that
// file systems allow.
constexpr size_t kKeptName = 200;

// A new file of a name that nobody else has. The destructor removes it, unless it was renamed.
struct TemporaryFile {
  std::string path;
  Descriptor file;
  bool renamed = false;

  explicit TemporaryFile(const std::filesystem::path& target) {
    const std::string name = target.filename().string().substr(0, kKeptName);
    path = target.parent_path() / ("." + name + ".attnrt-XXXXXX");
    file = Descriptor(mkostemp(path.data(), O_CLOEXEC));
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (file.number() >= 0 && !renamed) unlink(path.c_str());
  }
};

}  // namespace

Result<void> write_whole(const std::filesystem::path& path, std::string_view bytes) {
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    return fail(ATTNRT_UNSUPPORTED, "cannot be written: it is there and not a regular file");
  // Asked first: a write beyond the limit would raise SIGXFSZ, which ends the process.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes.size()) {
    return fail(
        ATTNRT_UNSUPPORTED,
        "cannot be written: it has {} bytes; this process may write files of {} (ulimit -f)",
        bytes.size(), limit.rlim_cur);
  }
  TemporaryFile temporary(path);
  if (temporary.file.number() < 0 || !write_all(temporary.file.number(), bytes) ||
      fsync(temporary.file.number()) != 0 || rename(temporary.path.c_str(), path.c_str()) != 0)
    return system_error("cannot be written");
  temporary.renamed = true;
  return {};
}

}  // namespace attnrt::core
