// plugins/common/gpu/backend.hpp: what the GPU plugins share: their instance, their devices, and the road to a launch
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attnrt/plugin.h"
#include "kernels/hip/device/device.hpp"
#include "kernels/hip/launch/launch.hpp"

namespace attnrt_hip {

// A device that this build has code for. Strings live as long as the library.
struct Served {
  int32_t id = -1;
  const char* arch = nullptr;       // the device's, without features: "gfx1100", "sm_86"
  const char* code_arch = nullptr;  // of the code objects that serve it: "gfx1100", "sm_80"
  const char* name = nullptr;
  int64_t total_memory_bytes = 0;
  int64_t shared_bytes = 0;  // of one workgroup, at most
};

// What open makes; devices fills it, and nothing writes to it afterwards.
struct Instance {
  const attnrt_host* host = nullptr;
  int64_t max_workspace_bytes = 0;  // 0: what the device has
  std::vector<Served> devices;
};

// ---- instance.cpp ----
attnrt_status open(const attnrt_host* host, void** instance, attnrt_error* error);
void close(void* instance);
const void* get_extension(void* instance, const char* id);  // memory.cpp, timing.cpp
// ATTNRT_DEVICE_ROCM or ATTNRT_DEVICE_CUDA: which of the two builds this is.
int32_t device_type();
attnrt_status status_of(kernels::hip::Status status);
// What a device call gave, as the host wants it: its text goes to error.
attnrt_status answer(kernels::hip::Status status, const kernels::hip::Message& message,
                     attnrt_error* error);

extern const attnrt_memory memory;  // attnrt.memory/1
extern const attnrt_timing timing;  // attnrt.timing/1

// ---- devices.cpp ----
attnrt_status devices(void* instance, attnrt_add_device add, void* sink, attnrt_error* error);
// A problem in the kernels' words, and the device that it is on.
struct Asked {
  kernels::Problem problem;
  const Served* device = nullptr;
};
attnrt_status understand(const Instance& instance, const attnrt_problem& problem, Asked* asked,
                         attnrt_error* error);

// ---- arch.cpp ----
// The architecture of the code objects that run on a device of this one; null: there are none.
const char* code_arch_for(const char* device_arch);

// ---- launch.cpp ----
constexpr int32_t kMaxLaunches = 8;

// The kernels of a plan, loaded, so that run only looks them up.
struct Kernels {
  struct Loaded {
    const char* object = nullptr;
    const char* name = nullptr;
    uint32_t shared_bytes = 0;
    kernels::hip::Kernel kernel;
  };
  int32_t device_id = -1;
  const char* code_arch = nullptr;
  int32_t count = 0;
  Loaded loaded[kMaxLaunches];
};

// A run at the problem's bounds, with tensors that lie dense: what plan asks the kernels about.
kernels::Args bounds_of(const kernels::Problem& problem);
void* somewhere();  // stands for memory that is not there yet; nobody reads it

// Whether every launch finds the workgroup memory that it needs on the device; the reason where not.
bool fits(const Served& device, const kernels::hip::Launch* launches, int32_t count,
          std::string* reason);

attnrt_status load(const Served& device, const kernels::hip::Launch* launches, int32_t count,
                   Kernels* kernels, attnrt_error* error);
attnrt_status enqueue(const Kernels& kernels, const kernels::hip::Launch* launches, int32_t count,
                      void* stream, attnrt_error* error);
// INVALID_ARGUMENT if the workspace is smaller than plan asked for.
attnrt_status check_workspace(const attnrt_args& args, int64_t bytes, attnrt_error* error);

}  // namespace attnrt_hip
