// runtime/src/staging.hpp: runs a device's backend on copies of host tensors
#pragma once

#include <memory>

#include "plan.hpp"

namespace attnrt::core {

// The buffers of one plan whose tensors are on the host and whose backend works on a device. They
// grow when a run needs more, which is the only case in which a run allocates, and the next runs
// reuse them.
// THREADS: one run at a time, as for the plan.
class Staging {
 public:
  static Result<std::unique_ptr<Staging>> make(std::shared_ptr<const Backend> backend,
                                               const Device& device);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Packs the tensors, copies them to the device, runs the plan, copies the results back and waits
  // for them.
  attnrt_status run(const Plan& plan, const attnrt_args& args, attnrt_error* error);

  int64_t bytes() const { return on_device_.bytes() + pinned_.bytes(); }  // held now
  void* stream() const { return stream_; }  // of its own, on which the plan's runs work

 private:
  struct Slot;
  Staging(std::shared_ptr<const Backend> backend, Device device)
      : backend_(std::move(backend)), device_(std::move(device)) {}
  attnrt_status grow(int64_t bytes, attnrt_error* error);
  attnrt_status copy(int64_t offset, int64_t bytes, int32_t direction, attnrt_error* error);

  std::shared_ptr<const Backend> backend_;
  Device device_;
  void* stream_ = nullptr;
  DeviceMemory on_device_, pinned_;
};

}  // namespace attnrt::core
