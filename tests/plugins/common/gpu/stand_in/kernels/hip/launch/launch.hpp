// tests/plugins/common/gpu/stand_in/kernels/hip/launch/launch.hpp: the launches' interface, as
// kernels/hip declares it, for stand-in kernels
//
// With it the plugins are tested without a compiler for GPUs, whatever the real kernels do.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"
#include "kernels/hip/launch/tensor_map.hpp"

namespace kernels::hip {

struct Launch {
  const char* object;
  const char* kernel;
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  uint32_t params_bytes;
  bool overlaps = false;
  uint32_t map_count = 0;
  TensorMapRequest maps[3];
  alignas(kTensorMapAlignment) unsigned char params[4096];
};

struct FlashPlan {
  const char* kernel = nullptr;
  int64_t workspace_bytes = 0;
};
struct UnfusedPlan {
  const char* kernel = nullptr;
  int64_t workspace_bytes = 0;
};

inline constexpr int32_t kRowsTooFarApart = -1;
inline constexpr int32_t kNoTensorMap = -2;

struct Target {
  const char* arch;
  int32_t multiprocessors = 1;
  const char* list_arch = nullptr;
};

bool flash_supported(const Problem& problem, const Target& target, std::string* reason);
bool unfused_supported(const Problem& problem, const Target& target, std::string* reason);
FlashPlan plan_flash(const Problem& problem, const Target& target);
UnfusedPlan plan_unfused(const Problem& problem, const Target& target);
int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out, void* schedule = nullptr);
int32_t kernels_of(const FlashPlan& plan, const Problem& problem, const Args& args, Launch* out);
int32_t kernels_of(const UnfusedPlan& plan, const Problem& problem, const Args& args, Launch* out);
int64_t schedule_bytes(const FlashPlan& plan);
int32_t schedule_launches(const FlashPlan& plan, const Problem& problem, const Args& args,
                          void* schedule, Launch* out);
int32_t launches(const UnfusedPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out);

}  // namespace kernels::hip
