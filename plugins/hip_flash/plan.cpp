// plugins/hip_flash/plan.cpp: a problem into its kernel, loaded, and the workspace that its runs need
#include <new>
#include <string>

#include "plugins/hip_flash/backend.hpp"

namespace attnrt_hip_flash {

attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info, void** plan,
                   attnrt_error* error) try {
  attnrt_hip::Asked asked;
  attnrt_status status = attnrt_hip::understand(*static_cast<attnrt_hip::Instance*>(instance), *problem, &asked, error);
  if (status != ATTNRT_OK) return status;
  std::string reason;
  if (!kernels::hip::flash_supported(asked.problem, asked.device->code_arch, &reason)) {
    return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", reason.c_str());
  }
  const kernels::hip::FlashPlan flash = kernels::hip::plan_flash(asked.problem, asked.device->code_arch);
  Plan* made = new (std::nothrow) Plan{asked.problem, flash, {}};
  if (made == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
  kernels::hip::Launch launches[attnrt_hip::kMaxLaunches];
  const int32_t count = kernels::hip::launches(made->flash, made->problem, attnrt_hip::bounds_of(made->problem),
                                               attnrt_hip::somewhere(), launches);
  status = attnrt_hip::load(*asked.device, launches, count, &made->kernels, error);
  if (status != ATTNRT_OK) return delete made, status;
  info->workspace_bytes = flash.workspace_bytes;
  info->workspace_alignment = 256;
  info->kernel = flash.kernel;
  *plan = made;
  return ATTNRT_OK;
} catch (const std::bad_alloc&) {
  return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
}

void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace attnrt_hip_flash
