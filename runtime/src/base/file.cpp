// runtime/src/base/file.cpp: file descriptors, and the bytes of files in memory
#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // since Linux 6.3
#endif

namespace attnrt::core {
namespace {

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Makes an empty memory file. It is never executed as a program, and kernels that know the
// difference want to be told (vm.memfd_noexec).
int make_memory_file(const std::string& name) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int file = memfd_create(name.c_str(), kFlags | MFD_NOEXEC_SEAL);
  if (file >= 0 || errno != EINVAL) return file;
  return memfd_create(name.c_str(), kFlags);
}

Result<void> write_range(const Descriptor& file, std::string_view bytes, const ByteRange& range) {
  for (uint64_t done = 0; done < range.bytes;) {
    const uint64_t at = range.offset + done;
    const ssize_t put =
        pwrite(file.number(), bytes.data() + at, range.bytes - done, static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0)
      return fail(ATTNRT_OUT_OF_MEMORY, "cannot be copied into memory: {}", errno_text());
    done += static_cast<uint64_t>(put);
  }
  return {};
}

}  // namespace

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = write(file, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

std::string errno_text() { return std::strerror(errno); }

bool could_not_look(int error) {
  switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EIO:
    case EAGAIN:
    case EINTR:
    case ESTALE:
    case ETIMEDOUT:
    case EREMOTEIO:
    case ENOTCONN: return true;
    default: return false;
  }
}

tl::unexpected<Error> system_error(const char* what) {
  const int error = errno;
  const attnrt_status code = error == ENOMEM         ? ATTNRT_OUT_OF_MEMORY
                             : could_not_look(error) ? ATTNRT_INTERNAL
                                                     : ATTNRT_UNSUPPORTED;
  return fail(code, "{}: {}", what, std::strerror(error));
}

tl::unexpected<Error> reading_error(const char* what) {
  return fail(errno == ENOMEM ? ATTNRT_OUT_OF_MEMORY : ATTNRT_INTERNAL, "{}: {}", what,
              errno_text());
}

bool says_nothing_about_the_file(const Error& error) {
  return error.code == ATTNRT_OUT_OF_MEMORY || error.code == ATTNRT_INTERNAL;
}

FileIdentity identity_of(const struct stat& status) {
  return {status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim),
          nanoseconds(status.st_ctim)};
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

Result<FileBytes> FileBytes::read(const Descriptor& file, int64_t bytes) {
  if (bytes == 0) return fail(ATTNRT_UNSUPPORTED, "is empty");
  const auto size = static_cast<size_t>(bytes);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return reading_error("cannot be copied into memory");
  FileBytes copy(data, size);
  for (size_t done = 0; done < size;) {
    const ssize_t got = pread(file.number(), static_cast<char*>(data) + done, size - done,
                              static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return reading_error("cannot be read");
    if (got == 0)
      return fail(ATTNRT_UNSUPPORTED, "shrank while it was read; reload when it is complete");
    done += static_cast<size_t>(got);
  }
  if (mprotect(data, size, PROT_READ) != 0) return reading_error("its copy cannot be protected");
  return copy;
}

FileBytes::~FileBytes() {
  if (data_ != nullptr) munmap(data_, size_);
}

Result<Descriptor> sealed_file(std::string_view bytes, const std::vector<ByteRange>& ranges,
                               const std::string& name) {
  // Asked first: a write beyond the limit would raise SIGXFSZ, which ends the process.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes.size()) {
    return fail(ATTNRT_UNSUPPORTED, "has {} bytes; this process may write files of {} (ulimit -f)",
                bytes.size(), limit.rlim_cur);
  }
  Descriptor file(make_memory_file(name));
  if (file.number() < 0) return system_error("cannot be copied into memory");
  if (ftruncate(file.number(), static_cast<off_t>(bytes.size())) != 0)
    return system_error("cannot be copied into memory");
  for (const ByteRange& range : ranges) {
    if (auto written = write_range(file, bytes, range); !written)
      return tl::unexpected(written.error());
  }
  if (fcntl(file.number(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) !=
      0) {
    return system_error("its copy cannot be sealed");
  }
  return file;
}

}  // namespace attnrt::core
