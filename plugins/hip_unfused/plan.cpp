// plugins/hip_unfused/plan.cpp: a problem into its kernels, loaded, and the workspace that their runs need
#include <new>
#include <string>

#include "plugins/hip_unfused/backend.hpp"

namespace attnrt_hip_unfused {

attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info, void** plan,
                   attnrt_error* error) try {
  attnrt_hip::Asked asked;
  attnrt_status status = attnrt_hip::understand(*static_cast<attnrt_hip::Instance*>(instance), *problem, &asked, error);
  if (status != ATTNRT_OK) return status;
  std::string reason;
  if (!kernels::hip::unfused_supported(asked.problem, asked.device->code_arch, &reason)) {
    return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", reason.c_str());
  }
  const kernels::hip::UnfusedPlan unfused = kernels::hip::plan_unfused(asked.problem, asked.device->code_arch);
  // The allocation would say so, too, but only after what others keep there has been pushed out.
  const int64_t total = asked.device->total_memory_bytes;
  if (total > 0 && unfused.workspace_bytes > total) {
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "its scores need %lld bytes, and %s has %lld in all",
                       static_cast<long long>(unfused.workspace_bytes), asked.device->name,
                       static_cast<long long>(total));
  }
  Plan* made = new (std::nothrow) Plan{asked.problem, unfused, {}};
  if (made == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
  kernels::hip::Launch launches[attnrt_hip::kMaxLaunches];
  const int32_t count = kernels::hip::launches(made->unfused, made->problem, attnrt_hip::bounds_of(made->problem),
                                               attnrt_hip::somewhere(), launches);
  status = attnrt_hip::load(*asked.device, launches, count, &made->kernels, error);
  if (status != ATTNRT_OK) return delete made, status;
  info->workspace_bytes = unfused.workspace_bytes;
  info->workspace_alignment = 256;
  info->kernel = unfused.kernel;
  *plan = made;
  return ATTNRT_OK;
} catch (const std::bad_alloc&) {
  return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
}

void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace attnrt_hip_unfused
