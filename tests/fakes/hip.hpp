// tests/fakes/hip.hpp: the settings, counters and kernels of the fake HIP runtime (hip.cpp)
//
// The environment sets how a process begins:
//   FAKE_HIP_DEVICES   the architecture of each device: "gfx1100,gfx90a:sramecc+:xnack-". Empty:
//                      hipErrorNoDevice
//   FAKE_HIP_MEMORY    bytes of memory of each device; default 1 GiB
//   FAKE_HIP_FAIL      "hipMalloc=2": that function always fails with that error
//   FAKE_HIP_KERNELS   a library that exports fake_hip_kernels: host code of kernels, by name
//
// A kernel with host code runs when its stream is synchronized. One without is only counted.
#pragma once

#include <cstdint>

extern "C" {

struct fake_hip_kernel {
  const char* name;  // NULL ends a list
  uint32_t params_bytes;
  void (*run)(const void* params, const uint32_t grid[3], uint32_t block_threads,
              uint32_t shared_bytes);
};

struct fake_hip_state {
  int64_t allocations, allocated;      // hipMalloc: in total, and alive
  int64_t pinned_allocations, pinned;  // hipHostMalloc
  int64_t copies_to_device, copies_to_host, copies_on_device;
  int64_t streams_created, streams;
  int64_t events;
  int64_t synchronizations;
  int64_t modules_loaded, functions_found;
  int64_t launches;      // enqueued
  int64_t kernels_run;   // with host code, and done
  int64_t wrong_device;  // calls for something of a device that was not current
  // Set by a test: calls that allocate or wait then fail with 900, unless the thread's capture mode
  // is relaxed; hipMallocAsync fails in any mode, as in ROCm 6.
  int32_t capturing;
  uint64_t capture_id;      // what hipStreamGetCaptureInfo gives while it is set
  int64_t stream_ordered;   // alive now, of hipMallocAsync
  int64_t stream_waits;     // hipStreamWaitEvent
  int32_t no_memory_pools;  // set by a test: hipMallocAsync is not supported
  int32_t device_count;
  char failing_function[64];  // as FAKE_HIP_FAIL
  int32_t failing_error;
  char last_kernel[128];
  int32_t last_device;
  uint32_t last_grid[3], last_block, last_shared_bytes;
  void* last_stream;
};

fake_hip_state* fake_hip(void);                     // exported by the runtime
void fake_hip_use(const fake_hip_kernel* kernels);  // adds kernels; the list must stay valid
int hipGetDevice(int* device);
int hipSetDevice(int device);
int hipGetLastError(void);
int hipThreadExchangeStreamCaptureMode(int* mode);
}
