// plugins/cpu/plan.cpp: a problem into the kernel's words, and the workspace that its runs need
#include <new>

#include "plugins/common/translate.hpp"
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

attnrt_status translate(const attnrt_problem& problem, kernels::Problem* to, attnrt_error* error) {
  const attnrt_status status = attnrt_plugins::translate(problem, ATTNRT_DEVICE_CPU, to, error);
  if (status != ATTNRT_OK) return status;
  kernels::cpu::Error reason;
  if (kernels::cpu::check_problem(*to, &reason) == kernels::cpu::Status::ok) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s", reason.message);
}

attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                   void** plan, attnrt_error* error) {
  kernels::Problem translated;
  const attnrt_status status = translate(*problem, &translated, error);
  if (status != ATTNRT_OK) return status;
  Plan* made = new (std::nothrow) Plan{translated};
  if (made == nullptr)
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
  const Instance& self = *static_cast<const Instance*>(instance);
  info->workspace_bytes =
      kernels::cpu::workspace_bytes(translated, *self.target, self.workers.thread_count);
  info->workspace_alignment = kernels::cpu::kWorkspaceAlignment;
  info->kernel = kernels::cpu::kernel_name(*self.target);
  *plan = made;
  return ATTNRT_OK;
}

void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

}  // namespace attnrt_cpu
