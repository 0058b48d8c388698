// runtime/cli/bench/device_memory.cpp: a backend's device into tensors there, a stream, and seconds by the device's own clock
#include "cli/bench/device_memory.hpp"

#include <chrono>
#include <cstring>

namespace attnrt::cli::bench {
namespace {

using core::DeviceMemory;
using core::Result;

// A call of the plugin: its status, with the text that it left.
Result<void> checked(const char* call, attnrt_status status, const attnrt_error& error) {
  if (status == ATTNRT_OK) return {};
  return core::fail(status, "{}: {}", call,
                    error.message[0] != '\0' ? error.message : core::status_name(status));
}

}  // namespace

Result<std::unique_ptr<Place>> Place::make(std::shared_ptr<const core::Backend> backend,
                                           const core::Device& device) {
  std::unique_ptr<Place> place(new Place(std::move(backend), device));
  if (const auto opened = place->open(); !opened) return tl::unexpected(opened.error());
  return place;
}

Result<void> Place::open() {
  if (on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  auto opened = checked("stream_create",
                        memory().stream_create(instance(), device_.id, &stream_, &error), error);
  const auto* timing = static_cast<const attnrt_timing*>(backend_->extension(ATTNRT_TIMING));
  if (timing == nullptr || !ATTNRT_HAS(timing, attnrt_timing, elapsed)) return opened;
  timing_ = timing;
  for (void*& stamp : stamps_)
    if (opened)
      opened = checked("timestamp_create",
                       timing->timestamp_create(instance(), device_.id, &stamp, &error), error);
  return opened;
}

Place::~Place() {
  if (on_cpu()) return;
  for (void* stamp : stamps_)
    if (stamp != nullptr) timing_->timestamp_destroy(instance(), device_.id, stamp);
  buffers_.clear();
  if (stream_ != nullptr) memory().stream_destroy(instance(), device_.id, stream_);
}

Result<attnrt_args> Place::bring(const Tensors& tensors) {
  attnrt_args args = tensors.args();
  args.stream = stream_;
  for (int n = 0; n < Tensors::kCount && !on_cpu(); ++n)
    if (const auto copied = copy_here(tensors, n, args); !copied)
      return tl::unexpected(copied.error());
  return args;
}

Result<attnrt_args> Place::bring_inputs_again(const Tensors& tensors, attnrt_args args) {
  for (int n = 0; n < 3; ++n)
    if (const auto copied = copy_here(tensors, n, args); !copied)
      return tl::unexpected(copied.error());
  return args;
}

Result<void> Place::copy_here(const Tensors& tensors, int n, attnrt_args& args) {
  const auto& tensor = tensors.all[static_cast<size_t>(n)];
  if (!tensor || tensor->bytes() == 0) return {};
  const auto kind = on_cpu() ? DeviceMemory::Kind::host : DeviceMemory::Kind::device;
  auto here = DeviceMemory::allocate(backend_, device_, kind, tensor->bytes(), 256);
  if (!here) return tl::unexpected(here.error());
  tensor_of(args, n).data = here->data();
  auto moved = move(tensor->data(), here->data(), tensor->bytes(), true);
  buffers_.push_back(std::move(*here));
  return moved;
}

Result<void> Place::move(void* host, void* here, int64_t bytes, bool to_here) {
  if (on_cpu()) {
    if (host != here)
      std::memcpy(to_here ? here : host, to_here ? host : here, static_cast<size_t>(bytes));
    return {};
  }
  constexpr int64_t kPiece =
      int64_t{16} << 20;  // of pinned memory, which is the only one that devices copy from
  auto pinned = DeviceMemory::allocate(backend_, device_, DeviceMemory::Kind::pinned,
                                       std::min(bytes, kPiece), 64);
  if (!pinned) return tl::unexpected(pinned.error());
  for (int64_t at = 0; at < bytes; at += kPiece) {
    const int64_t piece = std::min(bytes - at, kPiece);
    char *const there = static_cast<char*>(here) + at, *const ours = static_cast<char*>(host) + at;
    if (to_here) std::memcpy(pinned->data(), ours, static_cast<size_t>(piece));
    auto copied = to_here ? copy(there, pinned->data(), piece, ATTNRT_COPY_TO_DEVICE)
                          : copy(pinned->data(), there, piece, ATTNRT_COPY_TO_HOST);
    if (copied) copied = wait();
    if (!copied) return copied;
    if (!to_here) std::memcpy(ours, pinned->data(), static_cast<size_t>(piece));
  }
  return {};
}

Result<double> Place::time(const std::function<Result<void>()>& body) {
  const auto start = std::chrono::steady_clock::now();
  auto done = stamp(0);
  if (done) done = body();
  if (done) done = stamp(1);
  if (done) done = wait();
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (done && timing_ != nullptr) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    double elapsed = 0;
    done = checked(
        "elapsed",
        timing_->elapsed(instance(), device_.id, stamps_[0], stamps_[1], &elapsed, &error), error);
    seconds = std::chrono::duration<double>(elapsed);
  }
  if (!done) return tl::unexpected(done.error());
  return seconds.count();
}

Result<void> Place::stamp(int n) {
  if (timing_ == nullptr) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  return checked("record", timing_->record(instance(), device_.id, stamps_[n], stream_, &error),
                 error);
}

Result<void> Place::copy(void* to, const void* from, int64_t bytes, int32_t direction) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  return checked("copy",
                 memory().copy(instance(), device_.id, to, from, bytes, direction, stream_, &error),
                 error);
}

Result<void> Place::wait() {
  if (on_cpu()) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  return checked("stream_synchronize",
                 memory().stream_synchronize(instance(), device_.id, stream_, &error), error);
}

}  // namespace attnrt::cli::bench
