// tests/support/failing_calls.hpp: makes system calls fail, or do something first
//
// Include it in one source file of a test: it replaces functions of libc for the whole process.
#pragma once

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>

namespace attnrt::core::support {

// Which of this thread's calls fails.
struct CallFailure {
  std::string_view call;  // "open"; "": none fails
  int64_t until = 0;      // calls until the one that fails; 1: the next one
  bool lasts = false;     // every later one fails, too
  int error = 0;
  int64_t happened = 0;
};
inline thread_local CallFailure call_failure;
inline thread_local int64_t bytes_read = 0;  // by pread
// Called before a library is opened, with its path.
inline thread_local std::function<void(const char*)> before_dlopen;

// Makes this thread's n-th call of the function from now on fail, until it is destroyed.
class FailingCall {
 public:
  FailingCall(std::string_view call, int error, int64_t n = 1, bool lasting = false) {
    call_failure = {call, n, lasting, error, 0};
  }
  FailingCall(const FailingCall&) = delete;
  FailingCall& operator=(const FailingCall&) = delete;
  ~FailingCall() { call_failure.call = {}; }
  bool happened() const { return call_failure.happened > 0; }
};

inline bool call_fails(std::string_view call) {
  CallFailure& failure = call_failure;
  if (failure.call != call) return false;
  if (failure.until > 1) return --failure.until, false;
  if (!failure.lasts) failure.call = {};
  ++failure.happened;
  errno = failure.error;
  return true;
}

template <class Function>
Function* original(Function*, const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace attnrt::core::support

#define ATTNRT_ORIGINAL(name) attnrt::core::support::original(&name, #name)

extern "C" {
int open(const char* path, int flags, ...) {
  if (attnrt::core::support::call_fails("open")) return -1;
  va_list rest;
  va_start(rest, flags);
  const auto mode = static_cast<mode_t>((flags & O_CREAT) != 0 ? va_arg(rest, int) : 0);
  va_end(rest);
  static auto* const real = ATTNRT_ORIGINAL(open);
  return real(path, flags, mode);
}
DIR* opendir(const char* path) {
  if (attnrt::core::support::call_fails("opendir")) return nullptr;
  static auto* const real = ATTNRT_ORIGINAL(opendir);
  return real(path);
}
dirent* readdir(DIR* stream) {
  if (attnrt::core::support::call_fails("readdir")) return nullptr;
  static auto* const real = ATTNRT_ORIGINAL(readdir);
  return real(stream);
}
int fstat(int file, struct stat* status) noexcept {
  if (attnrt::core::support::call_fails("fstat")) return -1;
  static auto* const real = ATTNRT_ORIGINAL(fstat);
  return real(file, status);
}
int stat(const char* path, struct stat* status) noexcept {
  if (attnrt::core::support::call_fails("stat")) return -1;
  static auto* const real = ATTNRT_ORIGINAL(stat);
  return real(path, status);
}
ssize_t pread(int file, void* to, size_t bytes, off_t offset) {
  if (attnrt::core::support::call_fails("pread")) return -1;
  static auto* const real = ATTNRT_ORIGINAL(pread);
  const ssize_t got = real(file, to, bytes, offset);
  if (got > 0) attnrt::core::support::bytes_read += got;
  return got;
}
void* mmap(void* where, size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
  if ((protection & PROT_EXEC) != 0 && attnrt::core::support::call_fails("mmap code"))
    return MAP_FAILED;
  if ((protection & PROT_EXEC) == 0 && attnrt::core::support::call_fails("mmap")) return MAP_FAILED;
  static auto* const real = ATTNRT_ORIGINAL(mmap);
  return real(where, bytes, protection, flags, file, offset);
}
int memfd_create(const char* name, unsigned flags) noexcept {
  if (attnrt::core::support::call_fails("memfd_create")) return -1;
  static auto* const real = ATTNRT_ORIGINAL(memfd_create);
  return real(name, flags);
}
char* realpath(const char* path, char* to) noexcept {
  if (attnrt::core::support::call_fails("realpath")) return nullptr;
  static auto* const real = ATTNRT_ORIGINAL(realpath);
  return real(path, to);
}
void* dlopen(const char* path, int mode) noexcept {
  if (path != nullptr && attnrt::core::support::before_dlopen)
    attnrt::core::support::before_dlopen(path);
  static auto* const real = ATTNRT_ORIGINAL(dlopen);
  return real(path, mode);
}
}
