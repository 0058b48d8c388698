// runtime/cli/bench/device_memory.cpp: copies tensors to a device and back, and times its work
#include "cli/bench/device_memory.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace attnrt::cli::bench {
namespace {

using core::DeviceMemory;
using core::Result;

// Bytes. The problem promises the alignment of the host's tensors, and the copies have to keep it.
constexpr int64_t kTensorAlignment = 256;
constexpr int64_t kPinnedAlignment = 64;  // bytes: one cache line
// Bytes of one copy between host and device. Devices copy from pinned memory, which is scarce. So
// a tensor passes through one buffer of this size, piece by piece.
constexpr int64_t kPinnedBytes = int64_t{16} << 20;

// Turns the status of a plugin's call into a Result. The error has the plugin's text, if it left
// one.
Result<void> checked(const char* call, attnrt_status status, const attnrt_error& error) {
  if (status == ATTNRT_OK) return {};
  return core::fail(status, "{}: {}", call,
                    error.message[0] != '\0' ? error.message : core::status_name(status));
}

}  // namespace

Result<std::unique_ptr<BenchMemory>> BenchMemory::open(std::shared_ptr<const core::Backend> backend,
                                                       const core::Device& device) {
  std::unique_ptr<BenchMemory> memory(new BenchMemory(std::move(backend), device));
  if (const auto made = memory->make_stream_and_clock(); !made) return tl::unexpected(made.error());
  return memory;
}

Result<void> BenchMemory::make_stream_and_clock() {
  if (on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  auto made = checked("stream_create",
                      memory().stream_create(instance(), device_.id, &stream_, &error), error);
  const auto* timing = backend_->timing();
  if (timing == nullptr || !ATTNRT_HAS(timing, attnrt_timing, elapsed)) return made;
  timing_ = timing;
  for (void** timestamp : {&start_, &end_})
    if (made)
      made = checked("timestamp_create",
                     timing->timestamp_create(instance(), device_.id, timestamp, &error), error);
  return made;
}

BenchMemory::~BenchMemory() {
  if (on_cpu()) return;
  for (void* timestamp : {start_, end_})
    if (timestamp != nullptr) timing_->timestamp_destroy(instance(), device_.id, timestamp);
  buffers_.clear();
  if (stream_ != nullptr) memory().stream_destroy(instance(), device_.id, stream_);
}

Result<attnrt_args> BenchMemory::place(const Tensors& tensors) {
  attnrt_args args = tensors.args();
  args.stream = stream_;
  if (on_cpu()) return args;
  Result<void> copied;
  for_each_tensor(tensors, args, [&](const Tensor& tensor, attnrt_tensor& view) {
    if (copied) copied = copy_tensor(tensor, view);
  });
  if (!copied) return tl::unexpected(copied.error());
  return args;
}

Result<attnrt_args> BenchMemory::copy_inputs(const Tensors& tensors, attnrt_args args) {
  Result<void> copied;
  for_each_cold(tensors, args, [&](const Tensor& tensor, attnrt_tensor& view) {
    if (copied) copied = copy_tensor(tensor, view);
  });
  if (!copied) return tl::unexpected(copied.error());
  return args;
}

// Points view at a new copy of the tensor in this memory.
Result<void> BenchMemory::copy_tensor(const Tensor& tensor, attnrt_tensor& view) {
  if (tensor.bytes() == 0) return {};
  const auto kind = on_cpu() ? DeviceMemory::Kind::host : DeviceMemory::Kind::device;
  auto buffer = DeviceMemory::allocate(backend_, device_, kind, tensor.bytes(), kTensorAlignment);
  if (!buffer) return tl::unexpected(buffer.error());
  view.data = buffer->data();
  auto copied = copy_to_device(buffer->data(), tensor.data(), tensor.bytes());
  buffers_.push_back(std::move(*buffer));
  return copied;
}

Result<void> BenchMemory::copy_to_device(void* device, const void* host, int64_t bytes) {
  if (on_cpu()) {
    if (host != device) std::memcpy(device, host, static_cast<size_t>(bytes));
    return {};
  }
  const auto pinned = make_pinned(bytes);
  if (!pinned) return tl::unexpected(pinned.error());
  for (int64_t at = 0; at < bytes; at += kPinnedBytes) {
    const int64_t piece = std::min(bytes - at, kPinnedBytes);
    std::memcpy(pinned->data(), static_cast<const char*>(host) + at, static_cast<size_t>(piece));
    auto copied =
        enqueue_copy(static_cast<char*>(device) + at, pinned->data(), piece, ATTNRT_COPY_TO_DEVICE);
    if (copied) copied = wait();
    if (!copied) return copied;
  }
  return {};
}

Result<void> BenchMemory::copy_to_host(void* host, const void* device, int64_t bytes) {
  if (on_cpu()) {
    if (host != device) std::memcpy(host, device, static_cast<size_t>(bytes));
    return {};
  }
  const auto pinned = make_pinned(bytes);
  if (!pinned) return tl::unexpected(pinned.error());
  for (int64_t at = 0; at < bytes; at += kPinnedBytes) {
    const int64_t piece = std::min(bytes - at, kPinnedBytes);
    auto copied = enqueue_copy(pinned->data(), static_cast<const char*>(device) + at, piece,
                               ATTNRT_COPY_TO_HOST);
    if (copied) copied = wait();
    if (!copied) return copied;
    std::memcpy(static_cast<char*>(host) + at, pinned->data(), static_cast<size_t>(piece));
  }
  return {};
}

// Makes the buffer through which `bytes` bytes pass, piece by piece.
Result<DeviceMemory> BenchMemory::make_pinned(int64_t bytes) const {
  return DeviceMemory::allocate(backend_, device_, DeviceMemory::Kind::pinned,
                                std::min(bytes, kPinnedBytes), kPinnedAlignment);
}

Result<double> BenchMemory::time(const std::function<Result<void>()>& body) {
  const auto start = std::chrono::steady_clock::now();
  auto done = record(start_);
  if (done) done = body();
  if (done) done = record(end_);
  if (done) done = wait();
  const std::chrono::duration<double> host_seconds = std::chrono::steady_clock::now() - start;
  if (!done) return tl::unexpected(done.error());
  if (timing_ == nullptr) return host_seconds.count();

  attnrt_error error = ATTNRT_ERROR_INIT;
  double device_seconds = 0;
  const attnrt_status status =
      timing_->elapsed(instance(), device_.id, start_, end_, &device_seconds, &error);
  if (done = checked("elapsed", status, error); !done) return tl::unexpected(done.error());
  return device_seconds;
}

// Enqueues a timestamp, if the device has a clock.
Result<void> BenchMemory::record(void* timestamp) {
  if (timing_ == nullptr) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  return checked("record", timing_->record(instance(), device_.id, timestamp, stream_, &error),
                 error);
}

Result<void> BenchMemory::enqueue_copy(void* to, const void* from, int64_t bytes,
                                       int32_t direction) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      memory().copy(instance(), device_.id, to, from, bytes, direction, stream_, &error);
  return checked("copy", status, error);
}

Result<void> BenchMemory::wait() {
  if (on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  return checked("stream_synchronize",
                 memory().stream_synchronize(instance(), device_.id, stream_, &error), error);
}

}  // namespace attnrt::cli::bench
