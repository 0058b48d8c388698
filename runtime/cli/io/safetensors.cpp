// runtime/cli/io/safetensors.cpp: a .safetensors file into tensors, and back
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

constexpr int64_t length_bytes = 8;
constexpr size_t memory_alignment = 64;

std::string system_error() { return std::strerror(errno); }

// Exactly `bytes`, or false with errno (0: the file ended).
bool read_at(int file, void* to, int64_t bytes, int64_t offset) {
  auto* cursor = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const ssize_t got =
        pread(file, cursor, static_cast<size_t>(std::min(bytes, int64_t{1} << 30)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    cursor += got;
    offset += got;
    bytes -= got;
  }
  return true;
}

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
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Result<Tensor> Tensor::allocate(attnrt_dtype dtype, std::vector<int64_t> shape) {
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  // aligned_alloc wants a multiple of the alignment, and a tensor without elements still needs an address.
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
    return 0;  // the others may be of any size
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
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  reader.file_ = Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (reader.file_.number() < 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be opened: {}", path, system_error());
  struct stat status {};
  if (fstat(reader.file_.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is not a regular file", path);

  const int64_t file_bytes = status.st_size;
  unsigned char length[length_bytes];
  if (file_bytes < length_bytes)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: is {} bytes long, a safetensors file begins with 8 bytes of header length",
                path, file_bytes);
  if (!read_at(reader.file_.number(), length, length_bytes, 0))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", path, system_error());
  uint64_t header_bytes = 0;
  for (int i = length_bytes - 1; i >= 0; --i) header_bytes = header_bytes << 8 | length[i];
  if (header_bytes > static_cast<uint64_t>(max_header_bytes))
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: header length {} is above {}: not a safetensors file?", path, header_bytes,
                max_header_bytes);
  if (static_cast<int64_t>(header_bytes) > file_bytes - length_bytes)
    return fail(
        ATTNRT_INVALID_ARGUMENT,
        "{}: header length {} is more than the {} bytes that follow: is the file truncated?", path,
        header_bytes, file_bytes - length_bytes);

  std::string text(header_bytes, '\0');
  if (!read_at(reader.file_.number(), text.data(), static_cast<int64_t>(header_bytes),
               length_bytes))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", path, system_error());
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
                errno == 0 ? "the file became shorter meanwhile" : system_error());
  return tensor;
}

Result<void> write_safetensors(const std::string& path,
                               const std::map<std::string, const Tensor*>& named,
                               const Metadata& metadata) {
  // Widest first, so that every tensor is aligned to its elements.
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
  return write_file(path, pieces);
}

}  // namespace attnrt::cli
