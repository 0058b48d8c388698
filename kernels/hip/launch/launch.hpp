// kernels/hip/launch/launch.hpp: a problem into the kernels that serve it, and one run's tensors into their launches; pure functions
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"

namespace kernels::hip {

// One kernel of a code object, over a grid of workgroups; params is its one argument, by value.
struct Launch {
  const char* object;
  const char* kernel;
  uint32_t grid[3];
  uint32_t block;
  uint32_t shared_bytes;
  uint32_t params_bytes;
  alignas(16) unsigned char params[512];
};

struct FlashPlan {
  const char* kernel = nullptr;  // which of the three instantiations
  int64_t workspace_bytes = 0;
  const char* object = nullptr;
  uint32_t block = 0, shared_bytes = 0, rows = 0;
};
struct UnfusedPlan {
  const char* kernel = nullptr;  // for people
  int64_t workspace_bytes = 0;
  const char* object = nullptr;
  uint32_t block = 0, shared_bytes = 0, qk_shared_bytes = 0, rows = 0, keys = 0;
};

// arch: of the code objects ("gfx1100", "sm_90"). What they cannot do is worded in reason.
bool flash_supported(const Problem& problem, const char* arch, std::string* reason);
bool unfused_supported(const Problem& problem, const char* arch, std::string* reason);

// REQUIRES: supported.
FlashPlan plan_flash(const Problem& problem, const char* arch);
UnfusedPlan plan_unfused(const Problem& problem, const char* arch);

// The launches of one run, in order; 0 where there is nothing to do, -1 where rows of k or v are farther apart than the kernels
// index (2^25 elements). out has room for 8.
int32_t launches(const FlashPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out);
int32_t launches(const UnfusedPlan& plan, const Problem& problem, const Args& args, void* workspace,
                 Launch* out);

}  // namespace kernels::hip
