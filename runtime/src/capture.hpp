// runtime/src/capture.hpp: whether a graph is being captured on a stream
#pragma once

#include <cstdint>

#include "backend.hpp"

namespace attnrt::core {

// The graph that is being captured on a stream.
struct Capture {
  bool active = false;
  uint64_t id = 0;  // 0 of an active one: work on the stream would spoil another stream's capture
};

// Asks the backend of the stream's device. On the cpu nothing is captured.
attnrt_status find_capture(const Backend& backend, const Device& device, void* stream,
                           Capture* capture, attnrt_error* error);

}  // namespace attnrt::core
