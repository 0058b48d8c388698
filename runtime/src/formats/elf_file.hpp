// runtime/src/formats/elf_file.hpp: the bytes of a shared library into what the runtime wants to know of it; the only user of libelf
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace attnrt::core {

// A file's bytes, mapped for reading while this lives.
class MappedFile {
 public:
  static Result<MappedFile> map(int descriptor);
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

struct PluginElf {
  std::string manifest;             // contents of section .attnrt_manifest
  bool exports_plugin = false;      // defines attnrt_plugin_v1
  std::string other_plugin_symbol;  // attnrt_plugin_v2 and the like, if it defines one
};

// Trusts no length: every header, segment and section must lie inside the bytes (dlopen of a file whose segments do not
// would end the process). Errors say what the file is and what was expected.
Result<PluginElf> read_plugin_elf(std::string_view bytes);

}  // namespace attnrt::core
