// plugins/cpu/supports.cpp: whether the backend can compute a problem, and why not
#include "plugins/common/translate.hpp"
#include "plugins/cpu/backend.hpp"

namespace attnrt_cpu {

attnrt_status status_of(kernels::cpu::Status status, const kernels::cpu::Error& reason,
                        attnrt_error* error) {
  if (status == kernels::cpu::Status::ok) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s", reason.message);
}

attnrt_status checked_problem(const attnrt_problem& problem, kernels::Problem* to,
                              attnrt_error* error) {
  const attnrt_status status = attnrt_plugins::translate(problem, ATTNRT_DEVICE_CPU, to, error);
  if (status != ATTNRT_OK) return status;
  kernels::cpu::Error reason;
  return status_of(kernels::cpu::check_problem(*to, &reason), reason, error);
}

// The kernels compute everything that a problem can state. Only problems whose numbers contradict
// each other are refused.
attnrt_status supports(void*, const attnrt_problem* problem, attnrt_add_reason add, void* sink) {
  kernels::Problem translated;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (checked_problem(*problem, &translated, &error) == ATTNRT_OK) return ATTNRT_OK;
  add(sink, error.message);
  return ATTNRT_UNSUPPORTED;
}

}  // namespace attnrt_cpu
