// runtime/cli/io/safetensors.hpp: reads and writes .safetensors files
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
#include "cli/io/output_file.hpp"

namespace attnrt::cli {

// Limits of what is read. The format allows headers of 100 MB and any number of tensors; an
// attention problem needs a few hundred bytes and a dozen tensors.
constexpr int64_t max_header_bytes = int64_t{16} << 20;
constexpr int64_t max_tensors = 65536;
constexpr int64_t max_dimensions = 4;  // as attnrt_tensor

using Metadata = std::map<std::string, std::string>;

// The header's entry of one tensor.
struct TensorEntry {
  attnrt_dtype dtype{};
  std::vector<int64_t> shape;  // 1 to 4 dimensions, which may be 0; the product fits int64
  int64_t begin = 0, end = 0;  // its bytes, counted from the end of the header
};

struct Header {
  std::map<std::string, TensorEntry> tensors;
  Metadata metadata;
};

// Parses and checks a header. It accepts only what the format allows and attention uses: dtypes
// that it knows, offsets that fit dtype and shape, tensors that cover data_bytes without overlap
// and without a hole, and no key twice or of another name.
core::Result<Header> parse_header(std::string_view json, int64_t data_bytes);

// A dense tensor in memory of its own, aligned to 64 bytes. The address is not null, even if the
// tensor has no elements.
class Tensor {
 public:
  // Makes a tensor of zeros. Errors: OUT_OF_MEMORY.
  static core::Result<Tensor> allocate(attnrt_dtype dtype, std::vector<int64_t> shape);

  attnrt_dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const;
  int64_t bytes() const { return elements() * dtype_.bits / 8; }
  std::byte* data() const { return data_.get(); }
  attnrt_tensor view() const;  // valid as long as the Tensor

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  attnrt_dtype dtype_{};
  std::vector<int64_t> shape_;
  std::unique_ptr<std::byte, Free> data_;
};

// An open file whose header was read and checked.
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

// Writes a file as a whole or not at all, as write_file of output_file.hpp does.
core::Result<void> write_safetensors(const OutputPath& output,
                                     const std::map<std::string, const Tensor*>& tensors,
                                     const Metadata& metadata);

// Returns the format's name of a dtype: "F16". "" for a dtype without a name.
std::string_view safetensors_name(attnrt_dtype dtype);

std::string shape_text(const std::vector<int64_t>& shape);  // "[1, 5, 3, 64]"

}  // namespace attnrt::cli
