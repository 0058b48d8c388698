// runtime/conformance/guarded_memory.cpp: memory in which a plugin's mistakes are noticed
#include "conformance/guarded_memory.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace attnrt::conformance {
namespace {

constexpr int64_t kSlackBytes = 16384;  // behind each image

}  // namespace

GuardedMemory::GuardedMemory(Subject& subject, int64_t image_bytes, int64_t alignment,
                             int64_t guard_bytes, void* stream)
    : subject_(subject), image_bytes_(image_bytes), guard_bytes_(guard_bytes), stream_(stream) {
  // Aligning moves the content by less than 2 * alignment. What is left keeps a write beyond the
  // guard, which nobody compares, off other memory.
  const int64_t allocated = image_bytes + 2 * alignment + kSlackBytes;
  if (subject.on_cpu()) {
    allocation_ = std::malloc(static_cast<size_t>(allocated));
    if (allocation_ == nullptr) throw std::bad_alloc();
  } else {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const attnrt_status status = subject.memory()->allocate(
        subject.instance(), subject.device().id, allocated, stream, &allocation_, &error);
    if (status != ATTNRT_OK || allocation_ == nullptr) {
      error_ = fmt::format("allocate of {} bytes: {}: {}", allocated, core::status_name(status),
                           error.message);
      allocation_ = nullptr;
      return;
    }
  }
  const auto start = reinterpret_cast<uintptr_t>(allocation_);
  auto content = start + static_cast<uintptr_t>(guard_bytes_);
  const auto step = static_cast<uintptr_t>(alignment);
  content = (content + step - 1) / step * step;
  if (content / step % 2 == 0) content += step;
  image_ = static_cast<std::byte*>(allocation_) + (content - start) - guard_bytes_;
}

GuardedMemory::~GuardedMemory() {
  if (allocation_ == nullptr) return;
  if (subject_.on_cpu()) {
    std::free(allocation_);
  } else {
    subject_.memory()->free(subject_.instance(), subject_.device().id, allocation_, stream_);
  }
}

std::string GuardedMemory::copy(void* host, int32_t direction, void* stream) {
  const attnrt_memory& memory = *subject_.memory();
  void* const instance = subject_.instance();
  const int32_t id = subject_.device().id;
  const auto bytes = static_cast<size_t>(image_bytes_);
  const bool to_device = direction == ATTNRT_COPY_TO_DEVICE;
  attnrt_error error = ATTNRT_ERROR_INIT;
  void* pinned = nullptr;
  attnrt_status status = memory.allocate_pinned(instance, id, image_bytes_, &pinned, &error);
  if (status == ATTNRT_OK) {
    if (to_device) std::memcpy(pinned, host, bytes);
    void* const to = to_device ? static_cast<void*>(image_) : pinned;
    void* const from = to_device ? pinned : static_cast<void*>(image_);
    status = memory.copy(instance, id, to, from, image_bytes_, direction, stream, &error);
    if (status == ATTNRT_OK) status = memory.stream_synchronize(instance, id, stream, &error);
    if (status == ATTNRT_OK && !to_device) std::memcpy(host, pinned, bytes);
    memory.free_pinned(instance, id, pinned);
  }
  if (status == ATTNRT_OK) return {};
  return fmt::format("copy of {} bytes: {}: {}", image_bytes_, core::status_name(status),
                     error.message);
}

std::string GuardedMemory::write(const void* image, void* stream) {
  if (!error_.empty()) return error_;
  if (!subject_.on_cpu()) return copy(const_cast<void*>(image), ATTNRT_COPY_TO_DEVICE, stream);
  std::memcpy(image_, image, static_cast<size_t>(image_bytes_));
  return {};
}

std::string GuardedMemory::read(void* image, void* stream) {
  if (!error_.empty()) return error_;
  if (!subject_.on_cpu()) return copy(image, ATTNRT_COPY_TO_HOST, stream);
  std::memcpy(image, image_, static_cast<size_t>(image_bytes_));
  return {};
}

}  // namespace attnrt::conformance
