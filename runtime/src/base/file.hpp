// runtime/src/base/file.hpp: file descriptors, sealed copies in memory, mapped files
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

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

// Copies a file from its current position into a memory file that nobody can change any more.
// bytes: the size that it is expected to have. name: of the memory file, for people who look into
// /proc. Errors name no file: "cannot be read: ...".
Result<Descriptor> sealed_copy(const Descriptor& file, int64_t bytes, const std::string& name);

// Maps a file's bytes for reading, for as long as this lives.
class MappedFile {
 public:
  static Result<MappedFile> map(int descriptor);  // an empty file is an error
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}
  void* data_;
  size_t size_;
};

// The text of errno.
std::string errno_text();

}  // namespace attnrt::core
