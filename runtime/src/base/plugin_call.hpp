// runtime/src/base/plugin_call.hpp: makes one call into a plugin, whatever the plugin does
#pragma once

#include <attnrt/plugin.h>

#include <exception>

#include "base/floating_point.hpp"
#include "base/guarded.hpp"

namespace attnrt::core {

// Returns the status of `call`, which calls a plugin's function. INTERNAL if it throws, or returns
// a status that does not exist. The call runs in the default floating-point environment, and the
// thread's own is restored. error's text ends with NUL afterwards.
// REQUIRES: error is NULL or a whole attnrt_error.
template <class Call>
attnrt_status call_plugin(attnrt_error* error, Call&& call) {
  const DefaultFloatingPoint floating_point;
  const attnrt_status status = guarded(call, [error](const std::exception* exception) {
    if (exception == nullptr)
      return attnrt_fail(error, ATTNRT_INTERNAL, "threw an exception across the plugin boundary");
    return attnrt_fail(error, ATTNRT_INTERNAL, "threw an exception across the plugin boundary: %s",
                       exception->what());
  });
  if (error != nullptr) error->message[sizeof error->message - 1] = '\0';
  if (status < ATTNRT_OK || status > ATTNRT_DEVICE_LOST) {
    return attnrt_fail(error, ATTNRT_INTERNAL, "returned status %d, which does not exist",
                       static_cast<int>(status));
  }
  return status;
}

}  // namespace attnrt::core
