// kernels/hip/device/status.hpp: turns HIP and CUDA error numbers into a Status and a message
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "kernels/hip/device/device.hpp"

namespace kernels::hip {

// Formats the message, unless it is null. RETURNS status.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
inline Status
fail(Message* message, Status status, const char* format, ...) {
  if (message != nullptr) {
    va_list arguments;
    va_start(arguments, format);
    (void)std::vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
  }
  return status;
}

// hipError_t has cudaError_t's numbers (hip/hip_runtime_api.h, enum hipError_t; driver_types.h,
// enum cudaError), so one table serves both. Numbers from 1000 on are HIP's own.
inline Status status_of(int32_t error) {
  switch (error) {
    case 0: return Status::ok;
    case 2:     // OutOfMemory
    case 1052:  // RuntimeMemory
      return Status::out_of_memory;
    case 1:    // InvalidValue
    case 17:   // InvalidDevicePointer
    case 21:   // InvalidMemcpyDirection
    case 101:  // InvalidDevice
    case 400:  // InvalidHandle: not a stream
      return Status::invalid;
    case 46:   // DevicesUnavailable
    case 100:  // NoDevice
    case 214:  // ECCNotCorrectable
    case 220:  // NvlinkUncorrectable
    case 700:  // IllegalAddress; this and those below stay until the process ends
    case 702:  // LaunchTimeOut
    case 709:  // ContextIsDestroyed
    case 710:  // Assert
    case 714:  // HardwareStackError
    case 715:  // IllegalInstruction
    case 716:  // MisalignedAddress
    case 717:  // InvalidAddressSpace
    case 718:  // InvalidPc
    case 719:  // LaunchFailure
      return Status::device_lost;
    default: return Status::internal;
  }
}

}  // namespace kernels::hip
