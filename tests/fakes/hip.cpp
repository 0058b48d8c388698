// tests/fakes/hip.cpp: a fake HIP runtime in host memory
//
// Enqueued work is done when its stream is synchronized. It detects what would fail on a real
// device: memory of the wrong kind or device, handles that are not streams, and work in the wrong
// order. The functions and numbers are those of hip/hip_runtime_api.h.
#include "hip.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fake_hip.hpp"

namespace {

using namespace fake;

thread_local int current = 0;
thread_local int capture_mode = 0;  // hipStreamCaptureModeGlobal
thread_local int last_error = 0;

int answer(int error) {
  if (error != kSuccess) last_error = error;
  return error;
}

// Whether a call is allowed while a stream is capturing.
enum class Kind { anywhere, not_captured };

template <class Call>
int with_hip(const char* name, Kind kind, Call&& call) {
  FakeHip& hip = fake_hip_runtime();
  const std::lock_guard lock(hip.mutex);
  if (std::strcmp(hip.state.failing_function, name) == 0) return answer(hip.state.failing_error);
  if (hip.state.device_count == 0) return answer(kNoDevice);
  if (kind == Kind::not_captured && hip.state.capturing != 0 && capture_mode != kRelaxed)
    return answer(kCaptureUnsupported);
  return answer(call(hip));
}

int allocate(FakeHip& hip, void** pointer, size_t bytes, bool pinned) {
  int64_t alive = 0;
  for (const auto& [start, block] : hip.blocks) {
    if (!block.pinned && block.device == current) alive += static_cast<int64_t>(block.bytes);
  }
  if (!pinned && alive + static_cast<int64_t>(bytes) > hip.memory_bytes) return kOutOfMemory;
  auto* data = static_cast<char*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  if (data == nullptr) return kOutOfMemory;
  std::memset(data, 0xFF, bytes);  // NaN, so that a read of fresh memory shows
  hip.blocks[data] = {bytes, pinned, current, false};
  ++(pinned ? hip.state.pinned_allocations : hip.state.allocations);
  ++(pinned ? hip.state.pinned : hip.state.allocated);
  *pointer = data;
  return kSuccess;
}

int release(FakeHip& hip, void* pointer, bool pinned) {
  if (pointer == nullptr) return kSuccess;
  const auto found = hip.blocks.find(static_cast<char*>(pointer));
  if (found == hip.blocks.end() || found->second.pinned != pinned)
    std::abort();                // not allocated here, or freed twice
  hip.finish(nullptr, 0, true);  // as on a real device, freeing waits for all work
  if (!pinned && found->second.device != current) ++hip.state.wrong_device;
  if (found->second.stream_ordered) --hip.state.stream_ordered;
  std::free(pointer);
  hip.blocks.erase(found);
  --(pinned ? hip.state.pinned : hip.state.allocated);
  return kSuccess;
}

// Finds the stream of a handle; false if there is none. Counts a use while another device is
// current.
bool stream_of(FakeHip& hip, void* handle, Stream** stream) {
  *stream = nullptr;
  if (handle == nullptr) return true;
  const auto found = hip.streams.find(handle);
  if (found == hip.streams.end()) return false;
  *stream = found->second;
  if ((*stream)->device != current) ++hip.state.wrong_device;
  return true;
}

// Returns the event of a handle, or nullptr. Counts a use while another device is current.
Event* event_of(FakeHip& hip, void* handle) {
  const auto found = hip.events.find(handle);
  if (found == hip.events.end()) return nullptr;
  if (found->second->device != current) ++hip.state.wrong_device;
  return found->second;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

fake_hip_state* fake_hip(void) { return &fake_hip_runtime().state; }

void fake_hip_use(const fake_hip_kernel* kernels) {
  const std::lock_guard lock(fake_hip_runtime().mutex);
  fake_hip_runtime().add(kernels);
}

int hipGetDeviceCount(int* count) {
  *count = 0;
  return with_hip("hipGetDeviceCount", Kind::anywhere, [&](FakeHip& hip) {
    *count = hip.state.device_count;
    return kSuccess;
  });
}

int hipGetDevice(int* device) {
  return with_hip("hipGetDevice", Kind::anywhere,
                  [&](FakeHip&) { return *device = current, kSuccess; });
}

int hipSetDevice(int device) {
  return with_hip("hipSetDevice", Kind::anywhere, [&](FakeHip& hip) {
    if (device < 0 || device >= hip.state.device_count) return kInvalidDevice;
    return current = device, kSuccess;
  });
}

int hipDeviceGetName(char* name, int bytes, int device) {
  return with_hip("hipDeviceGetName", Kind::anywhere, [&](FakeHip&) {
    (void)std::snprintf(name, static_cast<size_t>(bytes), "Fake Radeon %d", device);
    return kSuccess;
  });
}

int hipDeviceTotalMem(size_t* bytes, int) {
  return with_hip("hipDeviceTotalMem", Kind::anywhere, [&](FakeHip& hip) {
    *bytes = static_cast<size_t>(hip.memory_bytes);
    return kSuccess;
  });
}

int hipDeviceGetAttribute(int* value, int attribute, int) {
  return with_hip("hipDeviceGetAttribute", Kind::anywhere, [&](FakeHip&) {
    constexpr int kMultiprocessorCount = 63;
    if (attribute != kMultiprocessorCount) return kInvalidValue;
    return *value = 96, kSuccess;
  });
}

// Writes name and gcnArchName, whose offsets differ between hipDeviceProp_t of HIP 5 and
// hipDeviceProp_tR0600.
static int properties(char* to, int device, size_t bytes, size_t arch_offset) {
  return with_hip("hipGetDeviceProperties", Kind::anywhere, [&](FakeHip& hip) {
    if (device < 0 || device >= hip.state.device_count) return kInvalidDevice;
    std::memset(to, 0, bytes);
    (void)std::snprintf(to, 256, "Fake Radeon %d (gfx of ours)", device);
    std::strcpy(to + arch_offset, hip.archs[static_cast<size_t>(device)].c_str());
    return kSuccess;
  });
}

int hipGetDeviceProperties(void* to, int device) {
  return properties(static_cast<char*>(to), device, 792, 396);
}

#if !defined(FAKE_HIP_5)
int hipGetDevicePropertiesR0600(void* to, int device) {
  return properties(static_cast<char*>(to), device, 1472, 1160);
}
#endif

const char* hipGetErrorName(int error) {
  switch (error) {
    case kSuccess: return "hipSuccess";
    case kInvalidValue: return "hipErrorInvalidValue";
    case kOutOfMemory: return "hipErrorOutOfMemory";
    case kNoDevice: return "hipErrorNoDevice";
    case kInvalidDevice: return "hipErrorInvalidDevice";
    case kInvalidHandle: return "hipErrorInvalidHandle";
    case kNotFound: return "hipErrorNotFound";
    case kNotReady: return "hipErrorNotReady";
    case kCaptureUnsupported: return "hipErrorStreamCaptureUnsupported";
    default: return "hipErrorUnknown";
  }
}

const char* hipGetErrorString(int error) {
  switch (error) {
    case kOutOfMemory: return "out of memory";
    case kNoDevice: return "no ROCm-capable device is detected";
    case kInvalidDevice: return "invalid device ordinal";
    case kInvalidHandle: return "invalid resource handle";
    case kNotFound: return "named symbol not found";
    case kCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return hipGetErrorName(error);
  }
}

int hipGetLastError(void) {
  const int error = last_error;
  last_error = 0;
  return error;
}

int hipModuleLoadData(void** module, const void* image) {
  return with_hip("hipModuleLoadData", Kind::not_captured, [&](FakeHip& hip) {
    if (image == nullptr) return kInvalidValue;
    *module = new Module{current};
    ++hip.state.modules_loaded;
    return kSuccess;
  });
}

int hipModuleGetFunction(void** function, void* module, const char* name) {
  return with_hip("hipModuleGetFunction", Kind::anywhere, [&](FakeHip& hip) {
    const auto* from = static_cast<const Module*>(module);
    if (from->device != current) ++hip.state.wrong_device;
    *function = new Function{from->device, name};
    ++hip.state.functions_found;
    return kSuccess;
  });
}

int hipModuleLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared_bytes, void* handle, void** params, void** extra) {
  return with_hip("hipModuleLaunchKernel", Kind::anywhere, [&](FakeHip& hip) {
    const auto& kernel = *static_cast<const Function*>(function);
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_y > 65535 || grid_z > 65535 ||
        block_x == 0 || block_x * block_y * block_z > 1024 || shared_bytes > 65536 ||
        extra != nullptr) {
      return kInvalidValue;
    }
    if (kernel.device != current) ++hip.state.wrong_device;
    ++hip.state.launches;
    (void)std::snprintf(hip.state.last_kernel, sizeof hip.state.last_kernel, "%s",
                        kernel.name.c_str());
    hip.state.last_device = kernel.device;
    hip.state.last_grid[0] = grid_x, hip.state.last_grid[1] = grid_y,
    hip.state.last_grid[2] = grid_z;
    hip.state.last_block = block_x;
    hip.state.last_shared_bytes = shared_bytes;
    hip.state.last_stream = handle;
    const auto found = hip.kernels.find(kernel.name);
    if (found == hip.kernels.end()) return kSuccess;
    const fake_hip_kernel host = found->second;
    const auto* bytes = static_cast<const char*>(params[0]);
    hip.queue.push_back({stream, current,
                         [host, copy = std::vector<char>(bytes, bytes + host.params_bytes), grid_x,
                          grid_y, grid_z, block_x, shared_bytes, &hip] {
                           const uint32_t grid[3] = {grid_x, grid_y, grid_z};
                           host.run(copy.data(), grid, block_x, shared_bytes);
                           ++hip.state.kernels_run;
                         }});
    return kSuccess;
  });
}

int hipMalloc(void** pointer, size_t bytes) {
  return with_hip("hipMalloc", Kind::not_captured,
                  [&](FakeHip& hip) { return allocate(hip, pointer, bytes, false); });
}

int hipFree(void* pointer) {
  return with_hip("hipFree", Kind::not_captured,
                  [&](FakeHip& hip) { return release(hip, pointer, false); });
}

int hipMallocAsync(void** pointer, size_t bytes, void* handle) {
  return with_hip("hipMallocAsync", Kind::anywhere, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    if (hip.state.no_memory_pools != 0) return kNotSupported;
    if (hip.state.capturing != 0) return kCaptureUnsupported;
    const int error = allocate(hip, pointer, bytes, false);
    if (error != kSuccess) return error;
    hip.blocks[static_cast<char*>(*pointer)].stream_ordered = true;
    ++hip.state.stream_ordered;
    return kSuccess;
  });
}

int hipFreeAsync(void* pointer, void* handle) {
  return with_hip("hipFreeAsync", Kind::not_captured, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    const auto found = hip.blocks.find(static_cast<char*>(pointer));
    if (found == hip.blocks.end() || !found->second.stream_ordered) std::abort();
    return release(hip, pointer, false);
  });
}

int hipHostMalloc(void** pointer, size_t bytes, unsigned) {
  return with_hip("hipHostMalloc", Kind::not_captured,
                  [&](FakeHip& hip) { return allocate(hip, pointer, bytes, true); });
}

int hipHostFree(void* pointer) {
  return with_hip("hipHostFree", Kind::not_captured,
                  [&](FakeHip& hip) { return release(hip, pointer, true); });
}

int hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void* handle) {
  return with_hip("hipMemcpyAsync", Kind::anywhere, [&](FakeHip& hip) {
    constexpr int kToDevice = 1, kToHost = 2, kOnDevice = 3;
    if (kind < kToDevice || kind > kOnDevice) return kInvalidMemcpyDirection;
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    const Block* target = hip.block_of(to, bytes);
    const Block* source = hip.block_of(from, bytes);
    if (target == nullptr || source == nullptr || target->pinned != (kind == kToHost) ||
        source->pinned != (kind == kToDevice)) {
      return kInvalidValue;
    }
    for (const Block* block : {target, source}) {
      if (!block->pinned && block->device != current) ++hip.state.wrong_device;
    }
    ++(kind == kToDevice ? hip.state.copies_to_device
       : kind == kToHost ? hip.state.copies_to_host
                         : hip.state.copies_on_device);
    hip.queue.push_back({stream, current, [to, from, bytes] { std::memcpy(to, from, bytes); }});
    return kSuccess;
  });
}

int hipStreamCreateWithFlags(void** handle, unsigned) {
  return with_hip("hipStreamCreateWithFlags", Kind::anywhere, [&](FakeHip& hip) {
    auto* stream = new Stream{current};
    hip.streams[stream] = stream;
    ++hip.state.streams_created;
    ++hip.state.streams;
    *handle = stream;
    return kSuccess;
  });
}

int hipStreamDestroy(void* handle) {
  return with_hip("hipStreamDestroy", Kind::anywhere, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    if (handle == nullptr || !stream_of(hip, handle, &stream)) return kInvalidHandle;
    hip.finish(stream, 0, false);
    hip.streams.erase(handle);
    --hip.state.streams;
    delete stream;
    return kSuccess;
  });
}

int hipStreamSynchronize(void* handle) {
  return with_hip("hipStreamSynchronize", Kind::not_captured, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    ++hip.state.synchronizations;
    hip.finish(stream, current, false);
    return kSuccess;
  });
}

int hipStreamGetCaptureInfo(void* handle, int* status, unsigned long long* id) {
  return with_hip("hipStreamGetCaptureInfo", Kind::anywhere, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    if (!stream_of(hip, handle, &stream)) return kInvalidHandle;
    *status = hip.state.capturing != 0 ? 1 : 0;
    *id = hip.state.capture_id;
    return kSuccess;
  });
}

int hipThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, capture_mode);
  return kSuccess;
}

// Waits at once: the order is kept, since nobody sees the wait.
int hipStreamWaitEvent(void* handle, void* event_handle, unsigned) {
  return with_hip("hipStreamWaitEvent", Kind::anywhere, [&](FakeHip& hip) {
    Stream* stream = nullptr;
    Event* event = event_of(hip, event_handle);
    if (event == nullptr || !stream_of(hip, handle, &stream)) return kInvalidHandle;
    ++hip.state.stream_waits;
    if (event->recorded && !event->passed) hip.finish(event->stream, event->device, false);
    return kSuccess;
  });
}

int hipEventCreate(void** handle) {
  return with_hip("hipEventCreate", Kind::anywhere, [&](FakeHip& hip) {
    auto* event = new Event{current};
    hip.events[event] = event;
    ++hip.state.events;
    *handle = event;
    return kSuccess;
  });
}

int hipEventCreateWithFlags(void** handle, unsigned) { return hipEventCreate(handle); }

int hipEventQuery(void* handle) {
  return with_hip("hipEventQuery", Kind::not_captured, [&](FakeHip& hip) {
    const Event* event = event_of(hip, handle);
    if (event == nullptr) return kInvalidHandle;
    return event->recorded && !event->passed ? kNotReady : kSuccess;
  });
}

int hipEventDestroy(void* handle) {
  return with_hip("hipEventDestroy", Kind::anywhere, [&](FakeHip& hip) {
    Event* event = event_of(hip, handle);
    if (event == nullptr) return kInvalidHandle;
    hip.finish(nullptr, 0, true);  // queued work refers to it
    hip.events.erase(handle);
    --hip.state.events;
    delete event;
    return kSuccess;
  });
}

int hipEventRecord(void* handle, void* stream_handle) {
  return with_hip("hipEventRecord", Kind::anywhere, [&](FakeHip& hip) {
    Event* event = event_of(hip, handle);
    Stream* stream = nullptr;
    if (event == nullptr || !stream_of(hip, stream_handle, &stream)) return kInvalidHandle;
    event->recorded = true, event->passed = false, event->stream = stream;
    hip.queue.push_back({stream, current, [event] {
                           event->at = std::chrono::steady_clock::now(), event->passed = true;
                         }});
    return kSuccess;
  });
}

int hipEventSynchronize(void* handle) {
  return with_hip("hipEventSynchronize", Kind::not_captured, [&](FakeHip& hip) {
    Event* event = event_of(hip, handle);
    if (event == nullptr) return kInvalidHandle;
    if (event->recorded) hip.finish(event->stream, event->device, false);
    return kSuccess;
  });
}

int hipEventElapsedTime(float* milliseconds, void* from_handle, void* to_handle) {
  return with_hip("hipEventElapsedTime", Kind::anywhere, [&](FakeHip& hip) {
    const Event *from = event_of(hip, from_handle), *to = event_of(hip, to_handle);
    if (from == nullptr || to == nullptr || !from->recorded || !to->recorded) return kInvalidHandle;
    if (!from->passed || !to->passed) return kNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return kSuccess;
  });
}

}  // extern "C"
#pragma GCC visibility pop
