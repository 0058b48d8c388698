// plugins/cpu/run.cpp: one run's tensors into the kernel's
#include "plugins/common/translate.hpp"
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

attnrt_status run(void* instance, void* plan, const attnrt_problem*, const attnrt_args* args,
                  attnrt_error* error) {
  kernels::Args to;
  if (const attnrt_status status = attnrt_plugins::translate(*args, &to, error);
      status != ATTNRT_OK)
    return status;
  kernels::cpu::Error reason;
  const Instance& self = *static_cast<const Instance*>(instance);
  if (kernels::cpu::run(static_cast<const Plan*>(plan)->problem, to, *self.target, self.workers,
                        args->workspace, args->workspace_bytes,
                        &reason) == kernels::cpu::Status::ok) {
    return ATTNRT_OK;
  }
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s", reason.message);
}

}  // namespace attnrt_cpu
