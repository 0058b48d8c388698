// runtime/src/run_event.hpp: the point of a stream at which a plan's last run has passed
#pragma once

#include <cstdint>
#include <memory>

#include "backend.hpp"

namespace attnrt::core {

// OWNERSHIP: owns an event of the device, once one was recorded; shares the backend.
// THREADS: one at a time.
class RunEvent {
 public:
  RunEvent() = default;
  RunEvent(RunEvent&& other) noexcept;
  RunEvent& operator=(RunEvent&& other) noexcept;
  ~RunEvent();

  // Enqueues the event behind what is on the stream now. If that fails, waits for the stream
  // instead, and returns the failure.
  attnrt_status record(const std::shared_ptr<const Backend>& backend, int32_t device_id,
                       void* stream, attnrt_error* error);
  // Whether the device has passed it. One that was never recorded has passed; so has one of a
  // device that was lost, since nothing runs there any more.
  bool passed();
  // Makes what is enqueued on the stream from now on wait for it. Asks the device for nothing if
  // that follows it in any case: the stream is the default one, and this thread recorded it there.
  // (Handles of other streams may stand for a new stream, once the old one was destroyed.)
  attnrt_status order(void* stream, attnrt_error* error);
  // Waits until the device has passed it.
  void wait();

 private:
  std::shared_ptr<const Backend> backend_;
  int32_t device_id_ = 0;
  void* event_ = nullptr;
  bool recorded_ = false;   // and not known to have passed
  void* stream_ = nullptr;  // that it was recorded on
  uint64_t thread_ = 0;     // by this one; a device may have a default stream for each thread
};

}  // namespace attnrt::core
