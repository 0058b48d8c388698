// kernels/hip/device/device_cuda.cpp: the device interface on NVIDIA's CUDA runtime
//
// The static runtime opens the driver's library at the first call, so a plugin loads on machines
// without a driver.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "kernels/hip/device/device.hpp"
#include "kernels/hip/device/kernel_cache.hpp"
#include "kernels/hip/device/status.hpp"

namespace kernels::hip {
namespace {

// Turns an error into a Status and a message. CUDA keeps each thread's last error for
// cudaGetLastError; clears it, so that the application does not find ours there.
Status failed(cudaError_t error, const char* call, Message* message) {
  (void)cudaGetLastError();
  return fail(message, status_of(static_cast<int32_t>(error)), "%s: %s (%s)", call,
              cudaGetErrorString(error), cudaGetErrorName(error));
}

// Makes device_id the thread's current device as long as this object lives, then restores the one
// before.
class CurrentDevice {
 public:
  CurrentDevice(int32_t device_id, Message* message) {
    cudaError_t error = cudaGetDevice(&previous_);
    if (error == cudaSuccess && previous_ != device_id) {
      error = cudaSetDevice(device_id);
      changed_ = error == cudaSuccess;
    }
    status_ = error == cudaSuccess ? Status::ok : failed(error, "cudaSetDevice", message);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (changed_) (void)cudaSetDevice(previous_);
  }

  Status status() const { return status_; }

 private:
  int previous_ = 0;
  bool changed_ = false;
  Status status_ = Status::internal;
};

// Runs call() with device_id current. name: of the call, for the message.
template <class Call>
Status on_device(int32_t device_id, const char* name, Message* message, Call&& call) {
  const CurrentDevice current(device_id, message);
  if (current.status() != Status::ok) return current.status();
  const cudaError_t error = call();
  return error == cudaSuccess ? Status::ok : failed(error, name, message);
}

Status describe(int device_id, Device* device, Message* message) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device_id);
      error != cudaSuccess) {
    return failed(error, "cudaGetDeviceProperties", message);
  }
  device->id = device_id;
  (void)std::snprintf(device->arch, sizeof device->arch, "sm_%d%d", properties.major,
                      properties.minor);
  (void)std::snprintf(device->name, sizeof device->name, "%s", properties.name);
  device->total_memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device->multiprocessor_count = properties.multiProcessorCount;
  device->shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin);
  return Status::ok;
}

KernelCache& cache() {
  static auto* const kernels = new KernelCache;  // outlives every static destructor
  return *kernels;
}

}  // namespace

Platform platform() { return Platform::cuda; }

Status devices(std::vector<Device>* devices, Message* message) try {
  devices->clear();
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  // The static runtime says so too if there is no driver at all.
  if (error == cudaErrorInsufficientDriver) {
    (void)cudaGetLastError();
    fail(message, Status::ok, "no NVIDIA driver, or one that is too old for CUDA %d.%d: %s",
         CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, cudaGetErrorString(error));
    return Status::ok;
  }
  if (error != cudaSuccess) {
    const Status status = failed(error, "cudaGetDeviceCount", message);
    return error == cudaErrorNoDevice ? Status::ok : status;
  }
  if (count == 0) fail(message, Status::ok, "cudaGetDeviceCount: 0 devices");
  for (int n = 0; n < count; ++n) {
    Device device;
    if (const Status status = describe(n, &device, message); status != Status::ok) return status;
    devices->push_back(device);
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return fail(message, Status::out_of_memory, "out of host memory while listing devices");
}

Status find_kernel(int32_t device_id, const void* code_object, const char* name,
                   uint32_t shared_bytes, Kernel* kernel, Message* message) {
  const auto load = [&](void** module) {
    return on_device(device_id, "cudaLibraryLoadData", message, [&] {
      cudaLibrary_t library = nullptr;
      const cudaError_t error =
          cudaLibraryLoadData(&library, code_object, nullptr, nullptr, 0, nullptr, nullptr, 0);
      *module = library;
      return error;
    });
  };
  const auto resolve = [&](void* module, void** function) {
    return on_device(device_id, name, message, [&] {
      cudaKernel_t found = nullptr;
      cudaError_t error = cudaLibraryGetKernel(&found, static_cast<cudaLibrary_t>(module), name);
      // CUDA loads a kernel to the device at its first use. That must not happen in a launch, which
      // may be captured.
      cudaFuncAttributes attributes;
      if (error == cudaSuccess)
        error = cudaFuncGetAttributes(&attributes, static_cast<const void*>(found));
      *function = found;
      return error;
    });
  };
  const auto allow = [&](void* function) {  // more than 48 KiB must be asked for
    return on_device(device_id, name, message, [&] {
      return cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes));
    });
  };
  return cache().find(device_id, code_object, name, shared_bytes, kernel, message, load, resolve,
                      allow);
}

Status launch(const Kernel& kernel, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes, const void* params, void* stream, Message* message) {
  const CurrentDevice current(kernel.device_id, message);
  if (current.status() != Status::ok) return current.status();
  void* arguments[] = {const_cast<void*>(params)};
  const cudaError_t error =
      cudaLaunchKernel(kernel.function, dim3(grid[0], grid[1], grid[2]), dim3(block_threads),
                       arguments, shared_bytes, static_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) return Status::ok;
  const Status status = failed(error, "cudaLaunchKernel", message);
  // If CUDA calls a launch invalid, the fault is ours and not the caller's.
  return error == cudaErrorInvalidValue ? Status::internal : status;
}

Status allocate(int32_t device_id, int64_t bytes, void** pointer, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  return on_device(device_id, "cudaMalloc", message, [&] {
    return cudaMalloc(pointer, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  });
}

void free(int32_t device_id, void* pointer) {
  if (pointer == nullptr) return;
  (void)on_device(device_id, "cudaFree", nullptr, [&] { return cudaFree(pointer); });
}

Status allocate_pinned(int32_t device_id, int64_t bytes, void** pointer, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  return on_device(device_id, "cudaHostAlloc", message, [&] {
    return cudaHostAlloc(pointer, static_cast<size_t>(std::max<int64_t>(bytes, 1)),
                         cudaHostAllocPortable);
  });
}

void free_pinned(int32_t device_id, void* pointer) {
  if (pointer == nullptr) return;
  (void)on_device(device_id, "cudaFreeHost", nullptr, [&] { return cudaFreeHost(pointer); });
}

Status copy(int32_t device_id, void* to, const void* from, int64_t bytes, Direction direction,
            void* stream, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  if (bytes == 0) return Status::ok;
  const cudaMemcpyKind kind = direction == Direction::to_device ? cudaMemcpyHostToDevice
                              : direction == Direction::to_host ? cudaMemcpyDeviceToHost
                                                                : cudaMemcpyDeviceToDevice;
  return on_device(device_id, "cudaMemcpyAsync", message, [&] {
    return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind,
                           static_cast<cudaStream_t>(stream));
  });
}

Status stream_create(int32_t device_id, void** stream, Message* message) {
  return on_device(device_id, "cudaStreamCreateWithFlags", message, [&] {
    cudaStream_t made = nullptr;
    const cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    *stream = made;
    return error;
  });
}

void stream_destroy(int32_t device_id, void* stream) {
  if (stream == nullptr) return;
  (void)on_device(device_id, "cudaStreamDestroy", nullptr,
                  [&] { return cudaStreamDestroy(static_cast<cudaStream_t>(stream)); });
}

Status stream_synchronize(int32_t device_id, void* stream, Message* message) {
  return on_device(device_id, "cudaStreamSynchronize", message,
                   [&] { return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); });
}

Status is_capturing(int32_t device_id, void* stream, bool* capturing, Message* message) {
  return on_device(device_id, "cudaStreamIsCapturing", message, [&] {
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &state);
    // The default stream reports this while another stream, which waits for it, is captured. Then
    // nothing may allocate or synchronise either.
    if (error == cudaErrorStreamCaptureImplicit) {
      (void)cudaGetLastError();
      error = cudaSuccess;
      state = cudaStreamCaptureStatusActive;
    }
    *capturing = state != cudaStreamCaptureStatusNone;
    return error;
  });
}

Status timestamp_create(int32_t device_id, void** timestamp, Message* message) {
  return on_device(device_id, "cudaEventCreate", message, [&] {
    cudaEvent_t made = nullptr;
    const cudaError_t error = cudaEventCreate(&made);
    *timestamp = made;
    return error;
  });
}

void timestamp_destroy(int32_t device_id, void* timestamp) {
  if (timestamp == nullptr) return;
  (void)on_device(device_id, "cudaEventDestroy", nullptr,
                  [&] { return cudaEventDestroy(static_cast<cudaEvent_t>(timestamp)); });
}

Status record(int32_t device_id, void* timestamp, void* stream, Message* message) {
  return on_device(device_id, "cudaEventRecord", message, [&] {
    return cudaEventRecord(static_cast<cudaEvent_t>(timestamp), static_cast<cudaStream_t>(stream));
  });
}

Status elapsed(int32_t device_id, void* from, void* to, double* seconds, Message* message) {
  return on_device(device_id, "cudaEventElapsedTime", message, [&] {
    float milliseconds = 0;
    cudaError_t error = cudaEventSynchronize(static_cast<cudaEvent_t>(to));
    if (error == cudaSuccess) {
      error = cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(from),
                                   static_cast<cudaEvent_t>(to));
    }
    *seconds = milliseconds * 1e-3;
    return error;
  });
}

}  // namespace kernels::hip
