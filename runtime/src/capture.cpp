// runtime/src/capture.cpp: whether a graph is being captured on a stream
#include "capture.hpp"

namespace attnrt::core {

attnrt_status find_capture(const Backend& backend, const Device& device, void* stream,
                           Capture* capture, attnrt_error* error) {
  *capture = {};
  if (device.type == ATTNRT_DEVICE_CPU) return ATTNRT_OK;
  int32_t active = 0;
  attnrt_error found = ATTNRT_ERROR_INIT;
  const attnrt_status status = backend.call(&found, [&] {
    return backend.memory()->is_capturing(backend.instance(), device.id, stream, &active,
                                          &capture->id, &found);
  });
  capture->active = active != 0;
  if (status == ATTNRT_OK) return status;
  return attnrt_fail(error, status, "run: %s: cannot tell whether the stream is being captured: %s",
                     backend.manifest().name.c_str(),
                     found.message[0] != '\0' ? found.message : status_name(status));
}

}  // namespace attnrt::core
