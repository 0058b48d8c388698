// runtime/cli/bench/device_memory.hpp: tensors in a backend's memory, and a clock for its work
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cli/bench/tensors.hpp"
#include "plan.hpp"

namespace attnrt::cli::bench {

// The memory of one backend's device, with a stream and a clock. On the cpu these are the host's
// own memory and clock, and there is no stream.
// OWNERSHIP: the destructor frees every buffer that the object made.
// THREADS: one at a time.
class BenchMemory {
 public:
  static core::Result<std::unique_ptr<BenchMemory>> open(
      std::shared_ptr<const core::Backend> backend, const core::Device& device);
  BenchMemory(const BenchMemory&) = delete;
  BenchMemory& operator=(const BenchMemory&) = delete;
  ~BenchMemory();

  // Whether time() reads the device's own clock, by the extension attnrt.timing/1.
  bool has_device_clock() const { return timing_ != nullptr; }

  // Returns the arguments of a run on these tensors: on the cpu the tensors themselves, on another
  // device copies that this call makes.
  core::Result<attnrt_args> place(const Tensors& tensors);
  // Returns the same arguments with further copies of q, k and v, also on the cpu.
  core::Result<attnrt_args> copy_inputs(const Tensors& tensors, attnrt_args args);

  // Copy between host memory and this memory, and wait for the copy.
  core::Result<void> copy_to_device(void* device, const void* host, int64_t bytes);
  core::Result<void> copy_to_host(void* host, const void* device, int64_t bytes);
  // Enqueues a copy within this memory.
  core::Result<void> copy_on_device(void* to, const void* from, int64_t bytes) {
    return enqueue_copy(to, from, bytes, ATTNRT_COPY_ON_DEVICE);
  }

  // Calls body, waits until the device has done what body enqueued, and returns its seconds.
  core::Result<double> time(const std::function<core::Result<void>()>& body);

 private:
  BenchMemory(std::shared_ptr<const core::Backend> backend, core::Device device)
      : backend_(std::move(backend)), device_(std::move(device)) {}
  bool on_cpu() const { return device_.type == ATTNRT_DEVICE_CPU; }
  const attnrt_memory& memory() const { return *backend_->memory(); }
  void* instance() const { return backend_->instance(); }
  core::Result<void> make_stream_and_clock();
  core::Result<void> copy_tensor(const Tensor& tensor, attnrt_tensor& view);
  core::Result<core::DeviceMemory> make_pinned(int64_t bytes) const;
  core::Result<void> enqueue_copy(void* to, const void* from, int64_t bytes, int32_t direction);
  core::Result<void> record(void* timestamp);
  core::Result<void> wait();

  std::shared_ptr<const core::Backend> backend_;
  core::Device device_;
  const attnrt_timing* timing_ = nullptr;  // nullptr: the backend has no clock of its own
  void *stream_ = nullptr, *start_ = nullptr, *end_ = nullptr;  // start_, end_: timestamps
  std::vector<core::DeviceMemory> buffers_;
};

}  // namespace attnrt::cli::bench
