// runtime/cli/bench/device_memory.hpp: a backend's device into tensors there, a stream, and seconds by the device's own clock
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cli/bench/bench.hpp"
#include "plan.hpp"

namespace attnrt::cli::bench {

// On the cpu memory and clock are the host's own. OWNERSHIP: what it brought is gone with it. THREADS: one at a time.
class Place {
 public:
  static core::Result<std::unique_ptr<Place>> make(std::shared_ptr<const core::Backend> backend,
                                                   const core::Device& device);
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place();

  bool has_clock() const { return timing_ != nullptr; }  // attnrt.timing/1

  // The tensors as a run here takes them: the host's own, or copies where they cannot be.
  core::Result<attnrt_args> bring(const Tensors& tensors);
  // The same run on other copies of q, k and v.
  core::Result<attnrt_args> bring_inputs_again(const Tensors& tensors, attnrt_args args);
  // Between the host's memory and this one's; waits.
  core::Result<void> move(void* host, void* here, int64_t bytes, bool to_here);
  // Within this memory; enqueues.
  core::Result<void> copy(void* to, const void* from, int64_t bytes) {
    return copy(to, from, bytes, ATTNRT_COPY_ON_DEVICE);
  }
  // Seconds of what body enqueues, which has been done when this returns.
  core::Result<double> time(const std::function<core::Result<void>()>& body);

 private:
  Place(std::shared_ptr<const core::Backend> backend, core::Device device)
      : backend_(std::move(backend)), device_(std::move(device)) {}
  bool on_cpu() const { return device_.type == ATTNRT_DEVICE_CPU; }
  const attnrt_memory& memory() const { return *backend_->memory(); }
  void* instance() const { return backend_->instance(); }
  core::Result<void> open();
  core::Result<void> copy_here(const Tensors& tensors, int n, attnrt_args& args);
  core::Result<void> copy(void* to, const void* from, int64_t bytes, int32_t direction);
  core::Result<void> stamp(int n);
  core::Result<void> wait();

  std::shared_ptr<const core::Backend> backend_;
  core::Device device_;
  const attnrt_timing* timing_ = nullptr;
  void *stream_ = nullptr, *stamps_[2] = {};
  std::vector<core::DeviceMemory> buffers_;
};

}  // namespace attnrt::cli::bench
