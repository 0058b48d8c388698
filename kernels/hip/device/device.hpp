// kernels/hip/device/device.hpp: GPUs into memory, streams, launches and timestamps; one interface over HIP (device_hip.cpp) or CUDA
// (device_cuda.cpp), of which a library links one
//
// THREADS: every call may come from any thread. Each leaves the calling thread's current device as it was.
// ERRORS: a call that fails returns why as a Status, and the platform's own text in *message (may be null).
// Nothing here is undone: the platform's runtime and the code objects stay loaded until the process ends.
#pragma once

#include <cstdint>
#include <vector>

namespace kernels::hip {

// What the caller can do about it: try elsewhere with less memory, mend its arguments, give the device up, report a bug.
enum class Status : int32_t { ok, out_of_memory, invalid, device_lost, internal };

struct Message {
  char text[256] = {};
};

enum class Platform : int32_t { rocm, cuda };
Platform platform();

struct Device {
  int32_t id = 0;
  char arch[96] =
      {};  // "gfx1100", "gfx90a:sramecc+:xnack-" (with the features that it runs with), "sm_90"
  char name[256] = {};
  int64_t total_memory_bytes = 0;
  int32_t multiprocessor_count = 0;  // compute units
  int64_t shared_bytes = 0;          // of one workgroup, at most
};

// The first call opens the platform's runtime. No device is ok: *devices is empty, and *message says why.
Status devices(std::vector<Device>* devices, Message* message);

// A kernel on one device, ready to launch: a value, good until the process ends.
struct Kernel {
  int32_t device_id = -1;
  void* function = nullptr;
};

// Finds a kernel in a code object (an AMD ELF file, a cubin) that lies in memory for ever. The first call for a device and
// a code object loads it, which may allocate and synchronise; the first for a kernel lets it use shared_bytes of dynamic
// shared memory. Later calls only look it up.
Status find_kernel(int32_t device_id, const void* code_object, const char* name,
                   uint32_t shared_bytes, Kernel* kernel, Message* message);

// Enqueues. The kernel takes one argument, a struct by value, which is read before launch returns. Allocates nothing,
// never synchronises.
Status launch(const Kernel& kernel, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes, const void* params, void* stream, Message* message);

Status allocate(int32_t device_id, int64_t bytes, void** pointer, Message* message);
void free(int32_t device_id, void* pointer);
Status allocate_pinned(int32_t device_id, int64_t bytes, void** pointer, Message* message);
void free_pinned(int32_t device_id, void* pointer);

enum class Direction : int32_t { to_device, to_host, on_device };
// Enqueues. Host memory is pinned.
Status copy(int32_t device_id, void* to, const void* from, int64_t bytes, Direction direction,
            void* stream, Message* message);

Status stream_create(int32_t device_id, void** stream, Message* message);
void stream_destroy(int32_t device_id, void* stream);
Status stream_synchronize(int32_t device_id, void* stream, Message* message);
// Whether a graph is being captured on stream, so that nothing may allocate or synchronise.
Status is_capturing(int32_t device_id, void* stream, bool* capturing, Message* message);

// A place in a stream whose time the device notes as it passes.
Status timestamp_create(int32_t device_id, void** timestamp, Message* message);
void timestamp_destroy(int32_t device_id, void* timestamp);
Status record(int32_t device_id, void* timestamp, void* stream, Message* message);  // enqueues
// Waits for `to`.
Status elapsed(int32_t device_id, void* from, void* to, double* seconds, Message* message);

}  // namespace kernels::hip
