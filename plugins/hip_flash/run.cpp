// plugins/hip_flash/run.cpp: one run's tensors onto the stream
#include "plugins/hip_flash/backend.hpp"
#include "plugins/translate.hpp"

namespace attnrt_hip_flash {

attnrt_status run(void*, void* plan, const attnrt_problem*, const attnrt_args* args, attnrt_error* error) {
  const Plan& made = *static_cast<const Plan*>(plan);
  kernels::Args to;
  if (const attnrt_status status = attnrt_plugins::translate(*args, &to, error); status != ATTNRT_OK) return status;
  const attnrt_status status = attnrt_hip::check_workspace(*args, made.flash.workspace_bytes, error);
  if (status != ATTNRT_OK) return status;
  kernels::hip::Launch launches[attnrt_hip::kMaxLaunches];
  const int32_t count = kernels::hip::launches(made.flash, made.problem, to, args->workspace, launches);
  return attnrt_hip::enqueue(made.kernels, launches, count, args->stream, error);
}

}  // namespace attnrt_hip_flash
