// kernels/hip/device/device_hip.cpp: the device interface on AMD's HIP runtime
#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <set>

#include "kernels/hip/device/device.hpp"
#include "kernels/hip/device/hip_runtime.hpp"
#include "kernels/hip/device/kernel_cache.hpp"
#include "kernels/hip/device/status.hpp"

namespace kernels::hip {
namespace {

using runtime::Error;
using runtime::Functions;

// Turns an error into a Status and a message. HIP keeps each thread's last error for
// hipGetLastError; clears it, so that the application does not find ours there.
Status failed(const Functions& f, Error error, const char* call, Message* message) {
  (void)f.GetLastError();
  const char* const name = f.GetErrorName(error);
  const char* const text = f.GetErrorString(error);  // before HIP 6, the same as name
  if (std::strcmp(name, text) == 0) return fail(message, status_of(error), "%s: %s", call, name);
  return fail(message, status_of(error), "%s: %s (%s)", call, text, name);
}

// Makes device_id the thread's current device as long as this object lives, then restores the one
// before.
class CurrentDevice {
 public:
  CurrentDevice(int32_t device_id, Message* message) : f_(runtime::functions(message)) {
    if (f_ == nullptr) return;
    const char* call = "hipGetDevice";
    Error error = f_->GetDevice(&previous_);
    if (error == runtime::kSuccess && previous_ != device_id) {
      call = "hipSetDevice";
      error = f_->SetDevice(device_id);
      changed_ = error == runtime::kSuccess;
    }
    status_ = error == runtime::kSuccess ? Status::ok : failed(*f_, error, call, message);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (changed_) (void)f_->SetDevice(previous_);
  }

  Status status() const { return status_; }
  const Functions& f() const { return *f_; }

 private:
  const Functions* f_;
  int previous_ = 0;
  bool changed_ = false;
  Status status_ = Status::internal;
};

// Lets this thread allocate, load, wait and query while a graph is being captured, as long as this
// object lives. In the mode before, which may be the capture's global one, such a call would fail
// and invalidate the capture.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(const Functions& f) : f_(f) {
    (void)f_.ThreadExchangeStreamCaptureMode(&mode_);
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture() { (void)f_.ThreadExchangeStreamCaptureMode(&mode_); }

 private:
  const Functions& f_;
  int mode_ = runtime::kCaptureModeRelaxed;  // then the one before
};

// Runs call(functions) with device_id current. name: of the call, for the message.
template <class Call>
Status on_device(int32_t device_id, const char* name, Message* message, Call&& call) {
  const CurrentDevice current(device_id, message);
  if (current.status() != Status::ok) return current.status();
  const Error error = call(current.f());
  return error == runtime::kSuccess ? Status::ok : failed(current.f(), error, name, message);
}

// As on_device, for calls that a capture forbids.
template <class Call>
Status relaxed(int32_t device_id, const char* name, Message* message, Call&& call) {
  const CurrentDevice current(device_id, message);
  if (current.status() != Status::ok) return current.status();
  const RelaxedCapture allowed(current.f());
  const Error error = call(current.f());
  return error == runtime::kSuccess ? Status::ok : failed(current.f(), error, name, message);
}

// The device memory that hipMallocAsync could not give, and which hipFree must free.
class PlainMemory {
 public:
  void add(void* pointer) {
    const std::lock_guard lock(mutex_);
    pointers_.insert(pointer);
  }
  // RETURNS whether the pointer was there.
  bool remove(void* pointer) {
    const std::lock_guard lock(mutex_);
    return pointers_.erase(pointer) != 0;
  }

 private:
  std::mutex mutex_;
  std::set<void*> pointers_;
};

PlainMemory& plain_memory() {
  static auto* const memory = new PlainMemory;  // outlives every static destructor
  return *memory;
}

// Reads a device's architecture. hipDeviceProp_t changed its layout in HIP 6.0. Both layouts are
// far smaller than this buffer, begin with name[256], and hold the architecture as the only text
// after it that starts with "gfx".
Status arch_of(const Functions& f, int device_id, char* arch, size_t arch_bytes, Message* message) {
  constexpr size_t kBytes = 16384, kNameBytes = 256;
  alignas(16) char properties[kBytes] = {};
  if (const Error error = f.GetDeviceProperties(properties, device_id);
      error != runtime::kSuccess) {
    return failed(f, error, "hipGetDeviceProperties", message);
  }
  constexpr char kPrefix[] = {'g', 'f', 'x'};
  const char* end = properties + kBytes - 1;
  const char* found =
      std::search(static_cast<const char*>(properties) + kNameBytes, end, kPrefix, kPrefix + 3);
  if (found == end) {
    return fail(message, Status::internal,
                "hipGetDeviceProperties: found no architecture (gfx...) in what it returned");
  }
  const size_t length = strnlen(found, std::min(arch_bytes - 1, static_cast<size_t>(end - found)));
  std::memcpy(arch, found, length);
  arch[length] = '\0';
  return Status::ok;
}

Status describe(const Functions& f, int device_id, Device* device, Message* message) {
  device->id = device_id;
  if (const Status status = arch_of(f, device_id, device->arch, sizeof device->arch, message);
      status != Status::ok) {
    return status;
  }
  size_t bytes = 0;
  int count = 0;
  Error error = f.DeviceGetName(device->name, sizeof device->name, device_id);
  if (error == runtime::kSuccess) error = f.DeviceTotalMem(&bytes, device_id);
  if (error == runtime::kSuccess) {
    error = f.DeviceGetAttribute(&count, runtime::kAttributeMultiprocessorCount, device_id);
  }
  if (error != runtime::kSuccess) return failed(f, error, "hipDeviceGetAttribute", message);
  device->total_memory_bytes = static_cast<int64_t>(bytes);
  device->multiprocessor_count = count;
  device->shared_bytes = 64 << 10;  // the same on every GPU that HIP serves
  return Status::ok;
}

KernelCache& cache() {
  static auto* const kernels = new KernelCache;  // outlives every static destructor
  return *kernels;
}

}  // namespace

Platform platform() { return Platform::rocm; }

Status devices(std::vector<Device>* devices, Message* message) try {
  devices->clear();
  const Functions* f = runtime::functions(message);
  if (f == nullptr) return Status::ok;
  int count = 0;
  const Error error = f->GetDeviceCount(&count);
  if (error != runtime::kSuccess) {
    const Status status = failed(*f, error, "hipGetDeviceCount", message);
    return error == runtime::kErrorNoDevice ? Status::ok : status;
  }
  if (count == 0) fail(message, Status::ok, "hipGetDeviceCount: 0 devices");
  for (int n = 0; n < count; ++n) {
    Device device;
    if (const Status status = describe(*f, n, &device, message); status != Status::ok)
      return status;
    devices->push_back(device);
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return fail(message, Status::out_of_memory, "out of host memory while listing devices");
}

Status find_kernel(int32_t device_id, const void* code_object, const char* name,
                   uint32_t shared_bytes, Kernel* kernel, Message* message) {
  const auto load = [&](void** module) {
    return relaxed(device_id, "hipModuleLoadData", message,
                   [&](const Functions& f) { return f.ModuleLoadData(module, code_object); });
  };
  const auto resolve = [&](void* module, void** function) {
    return relaxed(device_id, name, message,
                   [&](const Functions& f) { return f.ModuleGetFunction(function, module, name); });
  };
  const auto allow = [](void*) { return Status::ok; };  // HIP has no limit below the hardware's
  return cache().find(device_id, code_object, name, shared_bytes, kernel, message, load, resolve,
                      allow);
}

Status launch(const Kernel& kernel, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes, const Argument& argument, void* stream, Message* message) {
  if (!argument.maps.empty())
    return fail(message, Status::internal, "AMD's GPUs have no tensor maps");
  const CurrentDevice current(kernel.device_id, message);
  if (current.status() != Status::ok) return current.status();
  void* arguments[] = {const_cast<void*>(argument.params)};
  const Error error =
      current.f().ModuleLaunchKernel(kernel.function, grid[0], grid[1], grid[2], block_threads, 1,
                                     1, shared_bytes, stream, arguments, nullptr);
  if (error == runtime::kSuccess) return Status::ok;
  const Status status = failed(current.f(), error, "hipModuleLaunchKernel", message);
  // If HIP calls a launch invalid, the fault is ours and not the caller's.
  return error == runtime::kErrorInvalidValue ? Status::internal : status;
}

Status allocate(int32_t device_id, int64_t bytes, void* stream, void** pointer,
                Message* message) try {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  return relaxed(device_id, "hipMalloc", message, [&](const Functions& f) {
    if (f.MallocAsync != nullptr) {
      const Error error = f.MallocAsync(pointer, size, stream);
      // A device may have no memory pools; and HIP refuses even another stream's while one is being
      // captured, but allows hipMalloc.
      if (error != runtime::kErrorNotSupported && error != runtime::kErrorStreamCaptureUnsupported)
        return error;
      (void)f.GetLastError();
    }
    const Error error = f.Malloc(pointer, size);
    if (error == runtime::kSuccess && f.MallocAsync != nullptr) plain_memory().add(*pointer);
    return error;
  });
} catch (const std::bad_alloc&) {
  return fail(message, Status::out_of_memory, "hipMalloc: out of host memory");
}

void free(int32_t device_id, void* pointer, void* stream) {
  if (pointer == nullptr) return;
  (void)relaxed(device_id, "hipFree", nullptr, [&](const Functions& f) {
    if (f.MallocAsync == nullptr || plain_memory().remove(pointer)) return f.Free(pointer);
    return f.FreeAsync(pointer, stream);
  });
}

Status allocate_pinned(int32_t device_id, int64_t bytes, void** pointer, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  return relaxed(device_id, "hipHostMalloc", message, [&](const Functions& f) {
    return f.HostMalloc(pointer, static_cast<size_t>(std::max<int64_t>(bytes, 1)),
                        runtime::kHostMallocPortable);
  });
}

void free_pinned(int32_t device_id, void* pointer) {
  if (pointer == nullptr) return;
  (void)relaxed(device_id, "hipHostFree", nullptr,
                [&](const Functions& f) { return f.HostFree(pointer); });
}

Status copy(int32_t device_id, void* to, const void* from, int64_t bytes, Direction direction,
            void* stream, Message* message) {
  if (bytes < 0)
    return fail(message, Status::invalid, "bytes: found %lld, expected 0 or more",
                static_cast<long long>(bytes));
  if (bytes == 0) return Status::ok;
  const int kind = direction == Direction::to_device ? runtime::kMemcpyHostToDevice
                   : direction == Direction::to_host ? runtime::kMemcpyDeviceToHost
                                                     : runtime::kMemcpyDeviceToDevice;
  return on_device(device_id, "hipMemcpyAsync", message, [&](const Functions& f) {
    return f.MemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream);
  });
}

Status stream_create(int32_t device_id, void** stream, Message* message) {
  return relaxed(device_id, "hipStreamCreateWithFlags", message, [&](const Functions& f) {
    return f.StreamCreateWithFlags(stream, runtime::kStreamNonBlocking);
  });
}

void stream_destroy(int32_t device_id, void* stream) {
  if (stream == nullptr) return;
  (void)relaxed(device_id, "hipStreamDestroy", nullptr,
                [&](const Functions& f) { return f.StreamDestroy(stream); });
}

Status stream_synchronize(int32_t device_id, void* stream, Message* message) {
  return relaxed(device_id, "hipStreamSynchronize", message,
                 [&](const Functions& f) { return f.StreamSynchronize(stream); });
}

Status is_capturing(int32_t device_id, void* stream, Capture* capture, Message* message) {
  return on_device(device_id, "hipStreamGetCaptureInfo", message, [&](const Functions& f) {
    int state = runtime::kCaptureStatusNone;
    unsigned long long id = 0;
    Error error = f.StreamGetCaptureInfo(stream, &state, &id);
    // The default stream reports this while another stream, which waits for it, is captured. Work
    // on it would invalidate that capture.
    if (error == runtime::kErrorStreamCaptureImplicit) {
      (void)f.GetLastError();
      error = runtime::kSuccess;
      state = 1;
    }
    capture->active = state != runtime::kCaptureStatusNone;
    capture->id = capture->active ? id : 0;
    return error;
  });
}

Status event_create(int32_t device_id, void** event, Message* message) {
  return relaxed(device_id, "hipEventCreateWithFlags", message, [&](const Functions& f) {
    return f.EventCreateWithFlags(event, runtime::kEventDisableTiming);
  });
}

void event_destroy(int32_t device_id, void* event) { timestamp_destroy(device_id, event); }

Status event_query(int32_t device_id, void* event, bool* passed, Message* message) {
  return relaxed(device_id, "hipEventQuery", message, [&](const Functions& f) {
    const Error error = f.EventQuery(event);
    *passed = error == runtime::kSuccess;
    if (error != runtime::kErrorNotReady) return error;
    (void)f.GetLastError();  // no failure, but HIP keeps it as one
    return runtime::kSuccess;
  });
}

Status event_synchronize(int32_t device_id, void* event, Message* message) {
  return relaxed(device_id, "hipEventSynchronize", message,
                 [&](const Functions& f) { return f.EventSynchronize(event); });
}

Status stream_wait_event(int32_t device_id, void* stream, void* event, Message* message) {
  return on_device(device_id, "hipStreamWaitEvent", message,
                   [&](const Functions& f) { return f.StreamWaitEvent(stream, event, 0); });
}

Status timestamp_create(int32_t device_id, void** timestamp, Message* message) {
  return relaxed(device_id, "hipEventCreate", message,
                 [&](const Functions& f) { return f.EventCreate(timestamp); });
}

void timestamp_destroy(int32_t device_id, void* timestamp) {
  if (timestamp == nullptr) return;
  (void)relaxed(device_id, "hipEventDestroy", nullptr,
                [&](const Functions& f) { return f.EventDestroy(timestamp); });
}

Status record(int32_t device_id, void* event, void* stream, Message* message) {
  return on_device(device_id, "hipEventRecord", message,
                   [&](const Functions& f) { return f.EventRecord(event, stream); });
}

Status elapsed(int32_t device_id, void* from, void* to, double* seconds, Message* message) {
  return relaxed(device_id, "hipEventElapsedTime", message, [&](const Functions& f) {
    float milliseconds = 0;
    Error error = f.EventSynchronize(to);
    if (error == runtime::kSuccess) error = f.EventElapsedTime(&milliseconds, from, to);
    *seconds = milliseconds * 1e-3;
    return error;
  });
}

}  // namespace kernels::hip
