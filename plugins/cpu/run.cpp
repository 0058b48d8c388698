// plugins/cpu/run.cpp: computes one run on the host's threads
#include "plugins/common/translate.hpp"
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

attnrt_status run(void* instance, void* plan, const attnrt_problem*, const attnrt_args* args,
                  attnrt_error* error) {
  kernels::Args translated;
  const attnrt_status status = attnrt_plugins::translate(*args, &translated, error);
  if (status != ATTNRT_OK) return status;
  const Instance& self = *static_cast<const Instance*>(instance);
  kernels::cpu::Error reason;
  return status_of(
      kernels::cpu::run(static_cast<const Plan*>(plan)->problem, translated, *self.target,
                        self.workers, args->workspace, args->workspace_bytes, &reason),
      reason, error);
}

}  // namespace attnrt_cpu
