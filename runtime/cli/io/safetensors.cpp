// runtime/cli/io/safetensors.cpp: reads and writes the tensors of a .safetensors file
//
//     8 bytes    the length of the header, little-endian
//     header     JSON: {"q": {"dtype": "F16", "shape": [1, 5, 3, 64], "data_offsets": [0, 1920]},
//                       ...}
//     data       the tensors' elements, dense, row by row
#include "cli/io/safetensors.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/io/output_file.hpp"

namespace attnrt::cli {
namespace {

using core::Descriptor;
using core::fail;
using core::Result;

constexpr int64_t length_bytes = 8;             // of the header's length
constexpr size_t header_alignment = 8;          // bytes: the data begin at a multiple of this
constexpr size_t memory_alignment = 64;         // bytes: a cache line, and the widest vector
constexpr int64_t max_read = int64_t{1} << 30;  // bytes; Linux reads less than 2 GiB in one call

// Reads exactly `bytes` bytes. RETURNS false, with the reason in errno, if that fails; errno is 0
// if the file ended.
bool read_at(int file, void* to, int64_t bytes, int64_t offset) {
  auto* cursor = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file, cursor, static_cast<size_t>(std::min(bytes, max_read)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    cursor += got;
    offset += got;
    bytes -= got;
  }
  return true;
}

// Returns the header of a file that holds these tensors, one after another.
std::string header_text(const std::vector<std::pair<std::string, const Tensor*>>& tensors,
                        const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", safetensors_name(tensor->dtype())},
                    {"shape", tensor->shape()},
                    {"data_offsets", {offset, offset + tensor->bytes()}}};
    offset += tensor->bytes();
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const size_t units = (text.size() + header_alignment - 1) / header_alignment;
  text.resize(units * header_alignment, ' ');
  return text;
}

}  // namespace

Result<Tensor> Tensor::allocate(attnrt_dtype dtype, std::vector<int64_t> shape) {
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  // aligned_alloc requires a multiple of the alignment. A tensor without elements gets memory, too,
  // so that its address is not null.
  const size_t bytes =
      (static_cast<size_t>(tensor.bytes()) / memory_alignment + 1) * memory_alignment;
  tensor.data_.reset(static_cast<std::byte*>(std::aligned_alloc(memory_alignment, bytes)));
  if (tensor.data_ == nullptr)
    return fail(ATTNRT_OUT_OF_MEMORY, "no memory for {} bytes (shape {})", tensor.bytes(),
                shape_text(tensor.shape_));
  std::memset(tensor.data_.get(), 0, bytes);
  return tensor;
}

int64_t Tensor::elements() const {
  if (std::find(shape_.begin(), shape_.end(), 0) != shape_.end())
    return 0;  // the product of the other dimensions could overflow
  return std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>());
}

attnrt_tensor Tensor::view() const {
  attnrt_tensor view{};
  view.data = data_.get();
  view.dtype = dtype_;
  view.ndim = static_cast<int32_t>(shape_.size());
  int64_t stride = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    view.shape[i] = shape_[i];
    view.stride[i] = stride;
    stride *= std::max<int64_t>(shape_[i], 1);
  }
  return view;
}

Result<SafetensorsReader> SafetensorsReader::open(const std::string& path) {
  SafetensorsReader reader;
  reader.path_ = path;
  // O_NONBLOCK: opening a pipe does not wait for a process that writes to it.
  reader.file_ = Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (reader.file_.number() < 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be opened: {}", path, std::strerror(errno));
  struct stat status {};
  if (fstat(reader.file_.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is not a regular file", path);

  const int64_t file_bytes = status.st_size;
  unsigned char length[length_bytes];
  if (file_bytes < length_bytes)
    return fail(
        ATTNRT_INVALID_ARGUMENT,
        "{}: is {} bytes long, expected at least 8: a safetensors file begins with the length "
        "of its header in 8 bytes",
        path, file_bytes);
  if (!read_at(reader.file_.number(), length, length_bytes, 0))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", path, std::strerror(errno));
  uint64_t header_bytes = 0;
  for (int i = length_bytes - 1; i >= 0; --i) header_bytes = header_bytes << 8 | length[i];
  if (header_bytes > static_cast<uint64_t>(max_header_bytes))
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: header length {} is above {}; is it a safetensors file?", path, header_bytes,
                max_header_bytes);
  if (static_cast<int64_t>(header_bytes) > file_bytes - length_bytes)
    return fail(
        ATTNRT_INVALID_ARGUMENT,
        "{}: header length {} is more than the {} bytes that follow; is the file truncated?", path,
        header_bytes, file_bytes - length_bytes);

  std::string text(header_bytes, '\0');
  if (!read_at(reader.file_.number(), text.data(), static_cast<int64_t>(header_bytes),
               length_bytes))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", path, std::strerror(errno));
  reader.data_start_ = length_bytes + static_cast<int64_t>(header_bytes);
  auto header = parse_header(text, file_bytes - reader.data_start_);
  if (!header) return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}", path, header.error().message);
  reader.header_ = std::move(*header);
  return reader;
}

Result<Tensor> SafetensorsReader::read(const std::string& name) const {
  const TensorEntry& entry = header_.tensors.at(name);
  auto tensor = Tensor::allocate(entry.dtype, entry.shape);
  if (!tensor)
    return fail(tensor.error().code, "{}: tensor {}: {}", path_, name, tensor.error().message);
  if (!read_at(file_.number(), tensor->data(), tensor->bytes(), data_start_ + entry.begin))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: tensor {}: cannot be read: {}", path_, name,
                errno == 0 ? "the file became shorter after it was opened" : std::strerror(errno));
  return tensor;
}

Result<void> write_safetensors(const OutputPath& output,
                               const std::map<std::string, const Tensor*>& named,
                               const Metadata& metadata) {
  // The widest dtype first, so that every tensor begins at a multiple of its element's size.
  std::vector<std::pair<std::string, const Tensor*>> tensors(named.begin(), named.end());
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return a.second->dtype().bits > b.second->dtype().bits;
  });
  const std::string header = header_text(tensors, metadata);
  std::string length(length_bytes, '\0');
  for (size_t i = 0; i < length.size(); ++i)
    length[i] = static_cast<char>(header.size() >> (8 * i));
  std::vector<std::string_view> pieces = {length, header};
  for (const auto& [name, tensor] : tensors)
    pieces.emplace_back(reinterpret_cast<const char*>(tensor->data()),
                        static_cast<size_t>(tensor->bytes()));
  return write_file(output, pieces);
}

}  // namespace attnrt::cli
