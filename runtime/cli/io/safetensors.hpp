// runtime/cli/io/safetensors.hpp: a .safetensors file into tensors and metadata, and back; nothing that a file says is trusted
#pragma once

#include <attnrt/plugin.h>

#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"

namespace attnrt::cli {

// The format allows headers of 100 MB and any number of tensors; attention problems need a few hundred bytes of it.
constexpr int64_t max_header_bytes = int64_t{16} << 20;
constexpr int64_t max_tensors = 65536;
constexpr int64_t max_dimensions = 4;

using Metadata = std::map<std::string, std::string>;

// What a header says of one tensor. Its data are bytes [begin, end) of what follows the header.
struct TensorEntry {
  attnrt_dtype dtype{};
  std::vector<int64_t> shape;  // 1 to 4 dimensions, 0 included; the product fits int64
  int64_t begin = 0, end = 0;
};

struct Header {
  std::map<std::string, TensorEntry> tensors;
  Metadata metadata;
};

// Accepts only what the format allows and attention uses: known dtypes, offsets that fit dtype and shape and that cover
// data_bytes without overlap or hole, no key twice, no key that is not in the format.
core::Result<Header> parse_header(std::string_view json, int64_t data_bytes);

// A dense tensor in memory of its own, aligned to 64 bytes; never null, also where it has no elements.
class Tensor {
 public:
  // Zeros. Errors: OUT_OF_MEMORY.
  static core::Result<Tensor> allocate(attnrt_dtype dtype, std::vector<int64_t> shape);

  attnrt_dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const;
  int64_t bytes() const { return elements() * dtype_.bits / 8; }
  std::byte* data() const { return data_.get(); }
  attnrt_tensor view() const;  // lives as long as the Tensor

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  attnrt_dtype dtype_{};
  std::vector<int64_t> shape_;
  std::unique_ptr<std::byte, Free> data_;
};

// An open file with a checked header.
class SafetensorsReader {
 public:
  static core::Result<SafetensorsReader> open(const std::string& path);
  const Header& header() const { return header_; }
  core::Result<Tensor> read(const std::string& name) const;  // REQUIRES: the header has it

 private:
  std::string path_;
  core::Descriptor file_;
  Header header_;
  int64_t data_start_ = 0;
};

// As write_file (output_file.hpp) does: whole or not at all.
core::Result<void> write_safetensors(const std::string& path,
                                     const std::map<std::string, const Tensor*>& tensors,
                                     const Metadata& metadata);

// "F16", and "" for a dtype that the format does not name.
std::string_view safetensors_name(attnrt_dtype dtype);

std::string shape_text(const std::vector<int64_t>& shape);  // "[1, 5, 3, 64]"

}  // namespace attnrt::cli
