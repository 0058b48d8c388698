// kernels/hip/device/device.hpp: memory, streams, launches and timestamps of a GPU
//
// One interface over HIP (device_hip.cpp) and CUDA (device_cuda.cpp); a library links one of them.
//
// THREADS: every call may come from any thread, and leaves the thread's current device as it was.
// CAPTURE: every call but launch, copy, record and stream_wait_event may be made while a graph is
// being captured on another stream, and does not invalidate that capture.
// ERRORS: a call that fails returns a Status, and the platform's text in *message (may be null).
// LIFETIME: the platform's runtime and the code objects stay loaded until the process ends.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/hip/launch/tensor_map.hpp"

namespace kernels::hip {

// The outcome of a call, by what the caller can do about it.
enum class Status : int32_t {
  ok,
  out_of_memory,  // free memory, or ask for less
  invalid,        // correct the arguments
  device_lost,    // stop using the device
  internal,       // report a bug
};

struct Message {
  char text[256] = {};
};

enum class Platform : int32_t { rocm, cuda };
Platform platform();

struct Device {
  int32_t id = 0;
  // With the features that it runs with: "gfx1100", "gfx90a:sramecc+:xnack-", "sm_90".
  char arch[96] = {};
  char name[256] = {};
  int64_t total_memory_bytes = 0;
  int32_t multiprocessor_count = 0;  // compute units
  int64_t shared_bytes = 0;          // workgroup memory: the most that one workgroup may have
};

// Lists the platform's devices. The first call opens its runtime. Without a device, RETURNS ok with
// an empty list, and *message says why.
Status devices(std::vector<Device>* devices, Message* message);

// A kernel on one device, ready to launch. A plain value that is valid until the process ends.
struct Kernel {
  int32_t device_id = -1;
  void* function = nullptr;
};

// Finds a kernel in a code object (an AMD ELF file, a cubin) that stays in memory for ever, and
// lets it use shared_bytes of dynamic shared memory. The first call for a device and a code object
// loads it, which may allocate and synchronise. Later calls only look the kernel up.
Status find_kernel(int32_t device_id, const void* code_object, const char* name,
                   uint32_t shared_bytes, Kernel* kernel, Message* message);

// A kernel's one argument: a struct by value of size bytes, at most kMostArgumentBytes. The tensor
// maps in it are still to be encoded.
inline constexpr uint32_t kMostArgumentBytes = 4096;
struct Argument {
  const void* params;
  uint32_t size;
  std::span<const TensorMapRequest> maps;
  bool overlaps = false;  // see Launch; NVIDIA only
};

// Enqueues a kernel. Copies its argument, and encodes the copy's tensor maps, before it returns.
// Allocates nothing and never synchronises.
// ERRORS: internal if a map cannot be encoded, as on AMD, which has none.
Status launch(const Kernel& kernel, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes, const Argument& argument, void* stream, Message* message);

// Device memory, in the order of a stream where the device has stream-ordered memory; else a free
// waits for the device.
Status allocate(int32_t device_id, int64_t bytes, void* stream, void** pointer, Message* message);
void free(int32_t device_id, void* pointer, void* stream);
// Host memory that the device reads and writes directly (pinned).
Status allocate_pinned(int32_t device_id, int64_t bytes, void** pointer, Message* message);
void free_pinned(int32_t device_id, void* pointer);

enum class Direction : int32_t { to_device, to_host, on_device };
// Enqueues a copy. REQUIRES: host memory is pinned.
Status copy(int32_t device_id, void* to, const void* from, int64_t bytes, Direction direction,
            void* stream, Message* message);

Status stream_create(int32_t device_id, void** stream, Message* message);
void stream_destroy(int32_t device_id, void* stream);
Status stream_synchronize(int32_t device_id, void* stream, Message* message);
// A graph that is being captured on a stream.
struct Capture {
  bool active = false;
  uint64_t id = 0;  // no other capture of the process has it
};
Status is_capturing(int32_t device_id, void* stream, Capture* capture, Message* message);

// An event is a point of a stream. One that is not recorded yet counts as passed.
Status event_create(int32_t device_id, void** event, Message* message);
void event_destroy(int32_t device_id, void* event);
Status event_query(int32_t device_id, void* event, bool* passed, Message* message);
Status event_synchronize(int32_t device_id, void* event, Message* message);
Status stream_wait_event(int32_t device_id, void* stream, void* event, Message* message);
// Enqueues an event or a timestamp.
Status record(int32_t device_id, void* event, void* stream, Message* message);

// A timestamp is an event that keeps the time at which the device reached it.
Status timestamp_create(int32_t device_id, void** timestamp, Message* message);
void timestamp_destroy(int32_t device_id, void* timestamp);
// Waits for `to`, and gives the time between the two.
Status elapsed(int32_t device_id, void* from, void* to, double* seconds, Message* message);

}  // namespace kernels::hip
