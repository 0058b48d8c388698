// runtime/conformance/guarded_memory.cpp: bytes into memory of the device under test, at an exact alignment, and back
#include <cstdlib>
#include <cstring>
#include <new>

#include "conformance/tensors.hpp"

namespace attnrt::cli::verify {
namespace {

constexpr int64_t kLargestAlignment = 8192;

}  // namespace

Place::Place(Subject& subject, int64_t bytes, int64_t alignment, int64_t before)
    : subject_(&subject) {
  const int64_t whole = bytes + 2 * kLargestAlignment;
  if (subject.on_cpu()) {
    raw_ = std::malloc(static_cast<size_t>(whole));
    if (raw_ == nullptr) throw std::bad_alloc();
  } else {
    attnrt_error error = ATTNRT_ERROR_INIT;
    const attnrt_status status =
        subject.memory()->allocate(subject.instance(), subject.device().id, whole, &raw_, &error);
    if (status != ATTNRT_OK || raw_ == nullptr) {
      error_ = fmt::format("allocate of {} bytes: {}: {}", whole, core::status_name(status),
                           error.message);
      raw_ = nullptr;
      return;
    }
  }
  // Aligned as asked, and no better: what a plugin assumes beyond that must not hold by luck.
  auto address = reinterpret_cast<uintptr_t>(raw_) + static_cast<uintptr_t>(before);
  const auto step = static_cast<uintptr_t>(alignment);
  address = (address + step - 1) / step * step;
  if (address / step % 2 == 0) address += step;
  start_ = reinterpret_cast<std::byte*>(address) - before;
}

Place::Place(Place&& other) noexcept
    : subject_(other.subject_),
      raw_(std::exchange(other.raw_, nullptr)),
      start_(other.start_),
      error_(std::move(other.error_)) {}

Place::~Place() {
  if (raw_ == nullptr) return;
  if (subject_->on_cpu()) {
    std::free(raw_);
  } else {
    subject_->memory()->free(subject_->instance(), subject_->device().id, raw_);
  }
}

std::string Place::copy(void* host, int64_t bytes, int32_t direction, void* stream) {
  const attnrt_memory& memory = *subject_->memory();
  void* const instance = subject_->instance();
  const int32_t id = subject_->device().id;
  attnrt_error error = ATTNRT_ERROR_INIT;
  void* pinned = nullptr;
  attnrt_status status = memory.allocate_pinned(instance, id, bytes, &pinned, &error);
  if (status == ATTNRT_OK) {
    const bool to_device = direction == ATTNRT_COPY_TO_DEVICE;
    if (to_device) std::memcpy(pinned, host, static_cast<size_t>(bytes));
    status = memory.copy(instance, id, to_device ? static_cast<void*>(start_) : pinned,
                         to_device ? pinned : static_cast<void*>(start_), bytes, direction, stream,
                         &error);
    if (status == ATTNRT_OK) status = memory.stream_synchronize(instance, id, stream, &error);
    if (status == ATTNRT_OK && !to_device) std::memcpy(host, pinned, static_cast<size_t>(bytes));
    memory.free_pinned(instance, id, pinned);
  }
  if (status == ATTNRT_OK) return {};
  return fmt::format("copy of {} bytes: {}: {}", bytes, core::status_name(status), error.message);
}

std::string Place::write(const void* from, int64_t bytes, void* stream) {
  if (!error_.empty()) return error_;
  if (!subject_->on_cpu())
    return copy(const_cast<void*>(from), bytes, ATTNRT_COPY_TO_DEVICE, stream);
  std::memcpy(start_, from, static_cast<size_t>(bytes));
  return {};
}

std::string Place::read(void* to, int64_t bytes, void* stream) {
  if (!subject_->on_cpu()) return copy(to, bytes, ATTNRT_COPY_TO_HOST, stream);
  std::memcpy(to, start_, static_cast<size_t>(bytes));
  return {};
}

}  // namespace attnrt::cli::verify
