// runtime/src/base/file.hpp: file descriptors, and the bytes of files in memory
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

struct stat;

namespace attnrt::core {

// Owns a file descriptor and closes it.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int number() const { return number_; }  // -1: none
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

// Writes all bytes to a descriptor. RETURNS false, and errno says why, if that failed.
bool write_all(int file, std::string_view bytes);

// The text of errno.
std::string errno_text();

// Whether a system call that failed with this errno says nothing about the file: descriptors,
// memory or the device's answer were missing, and the same call may succeed later.
bool could_not_look(int error);

// Makes an error of errno: "cannot be opened: Permission denied". Its code tells who is to blame:
//   UNSUPPORTED              the file
//   OUT_OF_MEMORY, INTERNAL  this process or machine: could_not_look(errno)
tl::unexpected<Error> system_error(const char* what);

// Makes an error of errno for a call on a file that is open already: whatever failed, it says
// nothing about the file. OUT_OF_MEMORY or INTERNAL.
tl::unexpected<Error> reading_error(const char* what);

// Whether an error is of the second kind: nothing is known about the file.
bool says_nothing_about_the_file(const Error& error);

// What tells one state of a file from another without reading it.
struct FileIdentity {
  uint64_t device = 0, inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0, changed_ns = 0;  // mtime and ctime
  bool operator==(const FileIdentity&) const = default;
};
FileIdentity identity_of(const struct stat& status);

// A file's bytes in memory of this process, which nothing can change any more. No descriptor is
// kept.
class FileBytes {
 public:
  // Reads the file from its start. bytes: the size that it must have; more or less is an error.
  static Result<FileBytes> read(const Descriptor& file, int64_t bytes);
  FileBytes(FileBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  FileBytes& operator=(FileBytes&&) = delete;
  ~FileBytes();
  std::string_view view() const { return {static_cast<const char*>(data_), size_}; }

 private:
  FileBytes(void* data, size_t size) : data_(data), size_(size) {}
  void* data_;
  size_t size_;
};

struct ByteRange {
  uint64_t offset = 0, bytes = 0;
};

// Makes a memory file that nobody can change, with the given ranges of `bytes`. The rest reads as
// zeros and costs no memory. name: for people who look into /proc/self/maps. Errors name no file:
// "cannot be copied into memory: ...".
Result<Descriptor> sealed_file(std::string_view bytes, const std::vector<ByteRange>& ranges,
                               const std::string& name);

}  // namespace attnrt::core
