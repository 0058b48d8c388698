// plugins/hip_flash/backend.hpp: the calls of this backend that are its own; the others are those of plugins/hip
#pragma once

#include "attnrt/plugin.h"
#include "kernels/hip/launch.hpp"
#include "plugins/hip/backend.hpp"

namespace attnrt_hip_flash {

// What plan makes.
struct Plan {
  kernels::Problem problem;
  kernels::hip::FlashPlan flash;
  attnrt_hip::Kernels kernels;
};

attnrt_status supports(void* instance, const attnrt_problem* problem, attnrt_add_reason add, void* sink);
attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info, void** plan,
                   attnrt_error* error);
attnrt_status run(void* instance, void* plan, const attnrt_problem* problem, const attnrt_args* args,
                  attnrt_error* error);
void plan_destroy(void* instance, void* plan);

}  // namespace attnrt_hip_flash
