// plugins/common/gpu/backend.hpp: what both GPU plugins share: the instance, devices and launches
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnrt/plugin.h"
#include "kernels/hip/device/code_objects.hpp"
#include "kernels/hip/device/device.hpp"
#include "kernels/hip/launch/launch.hpp"

namespace attnrt_gpu {

// A device that this build has code objects for. Strings live as long as the library.
struct ServedDevice {
  int32_t device_id = -1;
  const char* arch = nullptr;       // the device's, without features: "gfx1100", "sm_86"
  const char* full_arch = nullptr;  // with them: "gfx90a:sramecc+:xnack-"
  const char* code_arch = nullptr;  // the newest of its code objects: "gfx1100", "sm_80"
  bool ptx_only = false;            // see Instance
  const char* name = nullptr;
  int64_t total_memory_bytes = 0;
  int64_t shared_bytes = 0;  // workgroup memory: the most that one workgroup may have
  int32_t multiprocessors = 1;

  const char* list_arch = nullptr;  // of serving_attention's; null: there is none

  kernels::hip::Target target() const { return {code_arch, multiprocessors, list_arch}; }
};

// What open makes. devices fills it, and nothing writes to it afterwards.
struct Instance {
  const attnrt_host* host = nullptr;
  int64_t max_workspace_bytes = 0;  // 0: no limit but the device's memory
  bool ptx_only = false;            // NVIDIA: no code but PTX is used, which the driver compiles
  std::vector<ServedDevice> devices;
};

// ---- instance.cpp ----
attnrt_status open(const attnrt_host* host, void** instance, attnrt_error* error);
void close(void* instance);
const void* get_extension(void* instance, const char* id);  // memory.cpp, timing.cpp
// ATTNRT_DEVICE_ROCM or ATTNRT_DEVICE_CUDA: which of the two builds this is.
int32_t device_type();
attnrt_status status_of(kernels::hip::Status status);
// Converts the outcome of a device call to the host's status, and writes its text to error.
attnrt_status report(kernels::hip::Status status, const kernels::hip::Message& message,
                     attnrt_error* error);

extern const attnrt_memory memory;  // attnrt.memory/1
extern const attnrt_timing timing;  // attnrt.timing/1

// ---- devices.cpp ----
// Lists the devices of the platform that this build has code objects for.
attnrt_status devices(void* instance, attnrt_add_device add, void* sink, attnrt_error* error);
// RETURNS the device with the id; null if it is not one of the instance's, and error says so.
const ServedDevice* find_device(const Instance& instance, int32_t device_id, attnrt_error* error);
// A problem in the kernels' words, and the device that it is for.
struct DeviceProblem {
  kernels::Problem problem;
  const ServedDevice* device = nullptr;
};
// Translates a problem and finds its device. RETURNS INVALID_ARGUMENT if either is not this
// backend's.
attnrt_status translate_for_device(const Instance& instance, const attnrt_problem& problem,
                                   DeviceProblem* asked, attnrt_error* error);

// ---- arch.cpp ----
inline constexpr char kPtxPrefix[] = "compute_";  // of a code object's arch
// RETURNS the architecture of the code objects that run best on a device; null if none runs.
const char* code_arch_for(const char* device_arch, bool ptx_only);
// RETURNS the code object with the name that runs best on a device: not every kernel file is
// compiled for every architecture. Null if none runs.
const kernels::hip::CodeObject* code_object_for(const ServedDevice& device, const char* name);
// Whether some of a device's code objects are PTX.
bool runs_ptx(const ServedDevice& device);

// ---- launch.cpp ----
constexpr int32_t kMaxLaunches = 8;  // of one run; launches() writes no more

// The kernels of a plan, loaded, so that run only has to find them here.
struct LoadedKernels {
  struct Kernel {
    const char* object = nullptr;
    const char* name = nullptr;
    uint32_t shared_bytes = 0;
    kernels::hip::Kernel handle;
  };
  ServedDevice device;
  int32_t count = 0;
  Kernel kernels[kMaxLaunches];
};

// RETURNS args with dense tensors as large as the problem's bounds: plan asks for their launches,
// so that it knows which kernels to load.
kernels::Args args_at_bounds(const kernels::Problem& problem);
// A non-null pointer in place of memory that is not allocated yet; nothing reads through it.
void* planning_address();

// Whether this build has code for every launch, and the device the workgroup memory that it needs;
// if not, reason says what is missing.
bool fits(const ServedDevice& device, const kernels::hip::Launch* launches, int32_t count,
          std::string* reason);

// Finds and loads the kernels of all launches.
attnrt_status load(const ServedDevice& device, const kernels::hip::Launch* launches, int32_t count,
                   LoadedKernels* loaded, attnrt_error* error);
// Enqueues one run's launches. count: as launches() returned it.
attnrt_status enqueue(const LoadedKernels& loaded, const kernels::hip::Launch* launches,
                      int32_t count, void* stream, attnrt_error* error);
// RETURNS INVALID_ARGUMENT if the workspace is smaller than the plan asked for.
attnrt_status check_workspace(const attnrt_args& args, int64_t bytes, attnrt_error* error);

}  // namespace attnrt_gpu
