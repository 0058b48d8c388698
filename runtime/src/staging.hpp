// runtime/src/staging.hpp: host tensors into dense copies on a device and results back, through attnrt.memory/1
#pragma once

#include <array>
#include <memory>

#include "plan.hpp"
#include "run.hpp"

namespace attnrt::core {

// The buffers of one plan whose tensors live on the host while its backend works on a device. They grow at need (the only
// place where a run allocates), are pinned on the host side, and are reused by the next run. THREADS: as the plan.
class Staging {
 public:
  static Result<std::unique_ptr<Staging>> make(std::shared_ptr<const Backend> backend,
                                               const Device& device);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Packs, copies, runs, copies back and waits: when it returns, the result is in the caller's tensors.
  attnrt_status run(const Plan& plan, const attnrt_args& args, attnrt_error* error);

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
