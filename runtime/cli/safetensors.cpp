// runtime/cli/safetensors.cpp: a .safetensors file into tensors, and tensors into a file that is there whole or not at all
#include "safetensors.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

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
    const ssize_t got = pread(file, cursor, static_cast<size_t>(std::min(bytes, int64_t{1} << 30)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    cursor += got;
    offset += got;
    bytes -= got;
  }
  return true;
}

bool write_all(int file, const void* from, int64_t bytes) {
  const auto* cursor = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    const ssize_t put = write(file, cursor, static_cast<size_t>(std::min(bytes, int64_t{1} << 30)));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    cursor += put;
    bytes -= put;
  }
  return true;
}

// The file that path means once links are followed, and its folder; devices, pipes and folders are no outputs.
struct Target {
  std::string path, folder;
};

Result<Target> find_target(const std::string& path) {
  if (path.empty()) return fail(ATTNRT_INVALID_ARGUMENT, "the name of the output is empty");
  std::error_code error;
  std::filesystem::path target(path);
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(target, error))) {
    target = std::filesystem::canonical(target, error);
    if (error) return fail(ATTNRT_INVALID_ARGUMENT, "{}: the link leads nowhere", path);
  }
  const auto status = std::filesystem::status(target, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is {}, expected the name of a file", path,
                std::filesystem::is_directory(status) ? "a directory" : "not a regular file");
  if (!target.has_filename()) return fail(ATTNRT_INVALID_ARGUMENT, "{}: names a directory, expected a file", path);
  std::string folder = target.parent_path().string();
  return Target{target.string(), folder.empty() ? "." : folder};
}

// A file without a final name; gone unless it is renamed.
struct Temporary {
  std::string path;
  Descriptor file;
  bool renamed = false;
  ~Temporary() {
    if (file.number() >= 0 && !renamed) unlink(path.c_str());
  }
};

std::string header_text(const std::vector<std::pair<std::string, const Tensor*>>& tensors, const Metadata& metadata) {
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
  const size_t bytes = (static_cast<size_t>(tensor.bytes()) / memory_alignment + 1) * memory_alignment;
  tensor.data_.reset(static_cast<std::byte*>(std::aligned_alloc(memory_alignment, bytes)));
  if (tensor.data_ == nullptr)
    return fail(ATTNRT_OUT_OF_MEMORY, "no memory for {} bytes (shape {})", tensor.bytes(), shape_text(tensor.shape_));
  std::memset(tensor.data_.get(), 0, bytes);
  return tensor;
}

int64_t Tensor::elements() const {
  if (std::find(shape_.begin(), shape_.end(), 0) != shape_.end()) return 0;  // the others may be of any size
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
  if (reader.file_.number() < 0) return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be opened: {}", path, system_error());
  struct stat status {};
  if (fstat(reader.file_.number(), &status) != 0 || !S_ISREG(status.st_mode))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: is not a regular file", path);

  const int64_t file_bytes = status.st_size;
  unsigned char length[length_bytes];
  if (file_bytes < length_bytes)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: is {} bytes long, a safetensors file begins with 8 bytes of header length", path, file_bytes);
  if (!read_at(reader.file_.number(), length, length_bytes, 0))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", path, system_error());
  uint64_t header_bytes = 0;
  for (int i = length_bytes - 1; i >= 0; --i) header_bytes = header_bytes << 8 | length[i];
  if (header_bytes > static_cast<uint64_t>(max_header_bytes))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: header length {} is above {}: not a safetensors file?", path,
                header_bytes, max_header_bytes);
  if (static_cast<int64_t>(header_bytes) > file_bytes - length_bytes)
    return fail(ATTNRT_INVALID_ARGUMENT,
                "{}: header length {} is more than the {} bytes that follow: is the file truncated?", path,
                header_bytes, file_bytes - length_bytes);

  std::string text(header_bytes, '\0');
  if (!read_at(reader.file_.number(), text.data(), static_cast<int64_t>(header_bytes), length_bytes))
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
  if (!tensor) return fail(tensor.error().code, "{}: tensor {}: {}", path_, name, tensor.error().message);
  if (!read_at(file_.number(), tensor->data(), tensor->bytes(), data_start_ + entry.begin))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: tensor {}: cannot be read: {}", path_, name,
                errno == 0 ? "the file became shorter meanwhile" : system_error());
  return tensor;
}

Result<void> check_output(const std::string& path) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());
  std::error_code error;
  if (!std::filesystem::is_directory(target->folder, error))
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: there is no directory {}", path, target->folder);
  if (access(target->folder.c_str(), W_OK | X_OK) != 0)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: nothing can be written in the directory {}: {}", path, target->folder,
                system_error());
  return {};
}

Result<void> write_safetensors(const std::string& path, const std::map<std::string, const Tensor*>& named,
                               const Metadata& metadata) {
  const auto target = find_target(path);
  if (!target) return tl::unexpected(target.error());

  // Widest first, so that every tensor is aligned to its elements.
  std::vector<std::pair<std::string, const Tensor*>> tensors(named.begin(), named.end());
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.second->dtype().bits > b.second->dtype().bits; });
  const std::string header = header_text(tensors, metadata);
  unsigned char length[length_bytes];
  for (int i = 0; i < length_bytes; ++i) length[i] = static_cast<unsigned char>(header.size() >> (8 * i));

  Temporary temporary;
  for (int attempt = 0; attempt < 100 && temporary.file.number() < 0; ++attempt) {
    temporary.path = fmt::format("{}/.attnrt-{}-{}", target->folder, getpid(), attempt);
    temporary.file = Descriptor(::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (temporary.file.number() < 0 && errno != EEXIST) break;
  }
  const int file = temporary.file.number();
  bool written = file >= 0 && write_all(file, length, length_bytes) &&
                 write_all(file, header.data(), static_cast<int64_t>(header.size()));
  for (const auto& [name, tensor] : tensors) written = written && write_all(file, tensor->data(), tensor->bytes());
  if (!written || fsync(file) != 0 || rename(temporary.path.c_str(), target->path.c_str()) != 0)
    return fail(ATTNRT_INTERNAL, "{}: cannot be written: {}", path, system_error());
  temporary.renamed = true;

  // The new name itself; file systems that cannot do this have nothing better to offer.
  const Descriptor folder(::open(target->folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number() >= 0) (void)fsync(folder.number());
  return {};
}

}  // namespace attnrt::cli
