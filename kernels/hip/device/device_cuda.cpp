// kernels/hip/device/device_cuda.cpp: the device interface on NVIDIA's CUDA runtime
//
// The static runtime opens the driver's library at the first call, so a plugin loads on machines
// without a driver.
#include <cuda.h>  // types alone: nothing links the driver's library
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "kernels/hip/device/device.hpp"
#include "kernels/hip/device/kernel_cache.hpp"
#include "kernels/hip/device/status.hpp"
#include "kernels/hip/device/tensor_map_cache.hpp"

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
    const char* call = "cudaGetDevice";
    cudaError_t error = cudaGetDevice(&previous_);
    if (error == cudaSuccess && previous_ != device_id) {
      call = "cudaSetDevice";
      error = cudaSetDevice(device_id);
      changed_ = error == cudaSuccess;
    }
    status_ = error == cudaSuccess ? Status::ok : failed(error, call, message);
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

// Lets this thread allocate, load, wait and query while a graph is being captured, as long as this
// object lives. In the mode before, which may be the capture's global one, such a call would fail
// and invalidate the capture.
class RelaxedCapture {
 public:
  RelaxedCapture() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // then the one before
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

// As on_device, for calls that a capture forbids.
template <class Call>
Status relaxed(int32_t device_id, const char* name, Message* message, Call&& call) {
  const CurrentDevice current(device_id, message);
  if (current.status() != Status::ok) return current.status();
  const RelaxedCapture allowed;
  const cudaError_t error = call();
  return error == cudaSuccess ? Status::ok : failed(error, name, message);
}

// Whether the device has stream-ordered memory. The answer is the same for as long as the process
// lives, so memory is always freed the way that it was allocated.
bool has_memory_pools(int32_t device_id) {
  int supported = 0;
  const cudaError_t error =
      cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device_id);
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess && supported != 0;
}

KernelCache& cache() {
  static auto* const kernels = new KernelCache;  // outlives every static destructor
  return *kernels;
}

// RETURNS the driver's function that encodes tensor maps; null if this driver has none.
decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
  static const auto encoder = [] {
    constexpr unsigned kCuda12 = 12000;
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                               kCuda12, cudaEnableDefault, &result);
    if (error != cudaSuccess) (void)cudaGetLastError();
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  return encoder;
}

CUresult encode_map(const TensorMapRequest& map, unsigned char* to) {
  constexpr uint32_t kEveryElement[5] = {1, 1, 1, 1, 1};
  // Copies look at no value, so the elements may be of any type of 16 bits.
  return tensor_map_encoder()(
      reinterpret_cast<CUtensorMap*>(to), CU_TENSOR_MAP_DATA_TYPE_UINT16, map.rank,
      const_cast<void*>(map.base), map.size, map.stride, map.box, kEveryElement,
      CU_TENSOR_MAP_INTERLEAVE_NONE,
      map.box[0] == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

constinit TensorMapCache tensor_maps;

// Copies the argument to `to`, with its tensor maps.
Status add_maps(const Argument& argument, unsigned char* to, Message* message) {
  if (tensor_map_encoder() == nullptr)
    return fail(message, Status::internal, "this driver has no cuTensorMapEncodeTiled");
  std::memcpy(to, argument.params, argument.size);
  for (const TensorMapRequest& map : argument.maps) {
    CUresult result = CUDA_SUCCESS;
    const bool done = tensor_maps.get(map, to + map.at, [&](unsigned char* at) {
      result = encode_map(map, at);
      return result == CUDA_SUCCESS;
    });
    if (done) continue;
    // The runtime's errors have the driver's numbers, and so its words.
    (void)failed(static_cast<cudaError_t>(result), "cuTensorMapEncodeTiled", message);
    return Status::internal;
  }
  return Status::ok;
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
    return relaxed(device_id, "cudaLibraryLoadData", message, [&] {
      cudaLibrary_t library = nullptr;
      const cudaError_t error =
          cudaLibraryLoadData(&library, code_object, nullptr, nullptr, 0, nullptr, nullptr, 0);
      *module = library;
      return error;
    });
  };
  const auto resolve = [&](void* module, void** function) {
    return relaxed(device_id, name, message, [&] {
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
    return relaxed(device_id, name, message, [&] {
      return cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes));
    });
  };
  return cache().find(device_id, code_object, name, shared_bytes, kernel, message, load, resolve,
                      allow);
}

Status launch(const Kernel& kernel, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes, const Argument& argument, void* stream, Message* message) {
  const CurrentDevice current(kernel.device_id, message);
  if (current.status() != Status::ok) return current.status();
  const void* params = argument.params;
  alignas(kTensorMapAlignment) unsigned char with_maps[kMostArgumentBytes];
  if (!argument.maps.empty()) {
    if (const Status status = add_maps(argument, with_maps, message); status != Status::ok)
      return status;
    params = with_maps;
  }
  void* arguments[] = {const_cast<void*>(params)};
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  const cudaLaunchConfig_t config{
      dim3(grid[0], grid[1], grid[2]),   dim3(block_threads), shared_bytes,
      static_cast<cudaStream_t>(stream), &attribute,          argument.overlaps ? 1U : 0U};
  const cudaError_t error = cudaLaunchKernelExC(&config, kernel.function, arguments);
  if (error == cudaSuccess) return Status::ok;
  const Status status = failed(error, "cudaLaunchKernelExC", message);
  // If CUDA calls a launch invalid, the fault is ours and not the caller's.
  return error == cudaErrorInvalidValue ? Status::internal : status;
}

Status allocate(int32_t device_id, int64_t bytes, void* stream, void** pointer, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  if (!has_memory_pools(device_id)) {
    return relaxed(device_id, "cudaMalloc", message, [&] { return cudaMalloc(pointer, size); });
  }
  return relaxed(device_id, "cudaMallocAsync", message,
                 [&] { return cudaMallocAsync(pointer, size, static_cast<cudaStream_t>(stream)); });
}

void free(int32_t device_id, void* pointer, void* stream) {
  if (pointer == nullptr) return;
  (void)relaxed(device_id, "cudaFree", nullptr, [&] {
    return has_memory_pools(device_id) ? cudaFreeAsync(pointer, static_cast<cudaStream_t>(stream))
                                       : cudaFree(pointer);
  });
}

Status allocate_pinned(int32_t device_id, int64_t bytes, void** pointer, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  return relaxed(device_id, "cudaHostAlloc", message, [&] {
    return cudaHostAlloc(pointer, static_cast<size_t>(std::max<int64_t>(bytes, 1)),
                         cudaHostAllocPortable);
  });
}

void free_pinned(int32_t device_id, void* pointer) {
  if (pointer == nullptr) return;
  (void)relaxed(device_id, "cudaFreeHost", nullptr, [&] { return cudaFreeHost(pointer); });
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
  return relaxed(device_id, "cudaStreamCreateWithFlags", message, [&] {
    cudaStream_t made = nullptr;
    const cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    *stream = made;
    return error;
  });
}

void stream_destroy(int32_t device_id, void* stream) {
  if (stream == nullptr) return;
  (void)relaxed(device_id, "cudaStreamDestroy", nullptr,
                [&] { return cudaStreamDestroy(static_cast<cudaStream_t>(stream)); });
}

Status stream_synchronize(int32_t device_id, void* stream, Message* message) {
  return relaxed(device_id, "cudaStreamSynchronize", message,
                 [&] { return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); });
}

Status is_capturing(int32_t device_id, void* stream, Capture* capture, Message* message) {
  return on_device(device_id, "cudaStreamGetCaptureInfo", message, [&] {
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    cudaError_t error = cudaStreamGetCaptureInfo(static_cast<cudaStream_t>(stream), &state, &id);
    // The default stream reports this while another stream, which waits for it, is captured. Work
    // on it would invalidate that capture.
    if (error == cudaErrorStreamCaptureImplicit) {
      (void)cudaGetLastError();
      error = cudaSuccess;
      state = cudaStreamCaptureStatusActive;
    }
    capture->active = state != cudaStreamCaptureStatusNone;
    capture->id = capture->active ? id : 0;
    return error;
  });
}

Status event_create(int32_t device_id, void** event, Message* message) {
  return relaxed(device_id, "cudaEventCreateWithFlags", message, [&] {
    cudaEvent_t made = nullptr;
    const cudaError_t error = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
    *event = made;
    return error;
  });
}

void event_destroy(int32_t device_id, void* event) { timestamp_destroy(device_id, event); }

Status event_query(int32_t device_id, void* event, bool* passed, Message* message) {
  return relaxed(device_id, "cudaEventQuery", message, [&] {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    *passed = error == cudaSuccess;
    if (error != cudaErrorNotReady) return error;
    (void)cudaGetLastError();  // no failure, but CUDA keeps it as one
    return cudaSuccess;
  });
}

Status event_synchronize(int32_t device_id, void* event, Message* message) {
  return relaxed(device_id, "cudaEventSynchronize", message,
                 [&] { return cudaEventSynchronize(static_cast<cudaEvent_t>(event)); });
}

Status stream_wait_event(int32_t device_id, void* stream, void* event, Message* message) {
  return on_device(device_id, "cudaStreamWaitEvent", message, [&] {
    return cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event),
                               0);
  });
}

Status timestamp_create(int32_t device_id, void** timestamp, Message* message) {
  return relaxed(device_id, "cudaEventCreate", message, [&] {
    cudaEvent_t made = nullptr;
    const cudaError_t error = cudaEventCreate(&made);
    *timestamp = made;
    return error;
  });
}

void timestamp_destroy(int32_t device_id, void* timestamp) {
  if (timestamp == nullptr) return;
  (void)relaxed(device_id, "cudaEventDestroy", nullptr,
                [&] { return cudaEventDestroy(static_cast<cudaEvent_t>(timestamp)); });
}

Status record(int32_t device_id, void* event, void* stream, Message* message) {
  return on_device(device_id, "cudaEventRecord", message, [&] {
    return cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream));
  });
}

Status elapsed(int32_t device_id, void* from, void* to, double* seconds, Message* message) {
  return relaxed(device_id, "cudaEventElapsedTime", message, [&] {
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
