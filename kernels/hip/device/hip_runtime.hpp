// kernels/hip/device/hip_runtime.hpp: the HIP runtime's functions, found by name at run time
//
// Prototypes and numbers are those of hip/hip_runtime_api.h, the same in HIP 5.0 to 7. So that
// header is not needed to build and nothing is linked: one binary loads on machines without HIP,
// and serves every ROCm.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/hip/device/device.hpp"

namespace kernels::hip::runtime {

using Error = int;  // hipError_t
constexpr Error kSuccess = 0;
constexpr Error kErrorInvalidValue = 1;
constexpr Error kErrorNoDevice = 100;
constexpr Error kErrorNotReady = 600;
constexpr Error kErrorNotSupported = 801;
constexpr Error kErrorStreamCaptureUnsupported = 900;
constexpr Error kErrorStreamCaptureImplicit = 906;
constexpr int kAttributeMultiprocessorCount =
    63;                                      // hipDeviceAttributeMultiprocessorCount since 4.3
constexpr unsigned kHostMallocPortable = 1;  // hipHostMallocPortable: pinned for every device
constexpr unsigned kStreamNonBlocking = 1;   // hipStreamNonBlocking
constexpr int kMemcpyHostToDevice = 1, kMemcpyDeviceToHost = 2,
              kMemcpyDeviceToDevice = 3;     // hipMemcpyKind
constexpr int kCaptureStatusNone = 0;        // hipStreamCaptureStatusNone
constexpr int kCaptureModeRelaxed = 2;       // hipStreamCaptureModeRelaxed
constexpr unsigned kEventDisableTiming = 2;  // hipEventDisableTiming

// Named without "hip". hipDevice_t is int; hipModule_t, hipFunction_t, hipStream_t and hipEvent_t
// are pointers.
struct Functions {
  Error (*GetDeviceCount)(int* count);
  Error (*GetDevice)(int* device);
  Error (*SetDevice)(int device);
  Error (*DeviceGetName)(char* name, int bytes, int device);
  Error (*DeviceTotalMem)(size_t* bytes, int device);
  Error (*DeviceGetAttribute)(int* value, int attribute, int device);
  // properties: of either layout, see arch_of in device_hip.cpp
  Error (*GetDeviceProperties)(void* properties, int device);
  const char* (*GetErrorName)(Error error);
  const char* (*GetErrorString)(Error error);
  Error (*GetLastError)();
  Error (*ModuleLoadData)(void** module, const void* image);
  Error (*ModuleGetFunction)(void** function, void* module, const char* name);
  Error (*ModuleLaunchKernel)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                              unsigned block_x, unsigned block_y, unsigned block_z,
                              unsigned shared_bytes, void* stream, void** params, void** extra);
  Error (*Malloc)(void** pointer, size_t bytes);
  Error (*Free)(void* pointer);
  Error (*HostMalloc)(void** pointer, size_t bytes, unsigned flags);
  Error (*HostFree)(void* pointer);
  Error (*MemcpyAsync)(void* to, const void* from, size_t bytes, int kind, void* stream);
  Error (*StreamCreateWithFlags)(void** stream, unsigned flags);
  Error (*StreamDestroy)(void* stream);
  Error (*StreamSynchronize)(void* stream);
  Error (*StreamWaitEvent)(void* stream, void* event, unsigned flags);
  Error (*StreamGetCaptureInfo)(void* stream, int* status, unsigned long long* id);
  Error (*ThreadExchangeStreamCaptureMode)(int* mode);
  Error (*EventCreate)(void** event);
  Error (*EventCreateWithFlags)(void** event, unsigned flags);
  Error (*EventQuery)(void* event);
  Error (*EventDestroy)(void* event);
  Error (*EventRecord)(void* event, void* stream);
  Error (*EventSynchronize)(void* event);
  Error (*EventElapsedTime)(float* milliseconds, void* from, void* to);
  // Since 5.2; null before.
  Error (*MallocAsync)(void** pointer, size_t bytes, void* stream);
  Error (*FreeAsync)(void* pointer, void* stream);
};

// RETURNS the functions of the HIP that the process has loaded already, else of the newest one that
// the loader finds; null and a message if there is none. A failure is not remembered, because HIP
// may be there later.
const Functions* functions(Message* message);

}  // namespace kernels::hip::runtime
