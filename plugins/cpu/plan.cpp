// plugins/cpu/plan.cpp: prepares the runs of a problem and sizes their workspace
#include <new>

#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                   void** plan, attnrt_error* error) {
  kernels::Problem translated;
  const attnrt_status status = checked_problem(*problem, &translated, error);
  if (status != ATTNRT_OK) return status;
  Plan* made = new (std::nothrow) Plan(translated);
  if (made == nullptr)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: out of host memory for the plan");
  const Instance& self = *static_cast<const Instance*>(instance);
  info->workspace_bytes =
      kernels::cpu::workspace_bytes(translated, *self.target, self.workers.thread_count);
  info->workspace_alignment = kernels::cpu::kWorkspaceAlignment;
  info->held_bytes = sizeof(Plan);
  info->kernel = kernels::cpu::kernel_name(*self.target);
  *plan = made;
  return ATTNRT_OK;
}

void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace attnrt_cpu
