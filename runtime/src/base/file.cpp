// runtime/src/base/file.cpp: file descriptors, sealed copies in memory, mapped files
#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace attnrt::core {

std::string errno_text() { return std::strerror(errno); }

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

Result<Descriptor> sealed_copy(const Descriptor& file, int64_t bytes, const std::string& name) {
  Descriptor copy(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (copy.number() < 0)
    return fail(ATTNRT_INTERNAL, "cannot be copied into memory: {}", errno_text());
  std::vector<char> buffer(1 << 16);
  int64_t copied = 0;
  for (;;) {
    const ssize_t got = read(file.number(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ATTNRT_INTERNAL, "cannot be read: {}", errno_text());
    if (got == 0) break;
    copied += got;
    if (copied > bytes) return fail(ATTNRT_INTERNAL, "grew while it was read");
    for (ssize_t done = 0; done < got;) {
      const ssize_t put =
          write(copy.number(), buffer.data() + done, static_cast<size_t>(got - done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0)
        return fail(ATTNRT_OUT_OF_MEMORY, "cannot be copied into memory: {}", errno_text());
      done += put;
    }
  }
  if (fcntl(copy.number(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) !=
      0) {
    return fail(ATTNRT_INTERNAL, "its copy cannot be sealed: {}", errno_text());
  }
  return copy;
}

Result<MappedFile> MappedFile::map(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0)
    return fail(ATTNRT_INTERNAL, "cannot be read: {}", errno_text());
  if (status.st_size == 0) return fail(ATTNRT_UNSUPPORTED, "is empty");
  const auto size = static_cast<size_t>(status.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) return fail(ATTNRT_OUT_OF_MEMORY, "cannot be mapped: {}", errno_text());
  return MappedFile(data, size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace attnrt::core
