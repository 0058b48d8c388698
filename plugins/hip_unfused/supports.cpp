// plugins/hip_unfused/supports.cpp: a problem into yes, or the reasons that the manifest cannot say
#include <new>
#include <string>

#include "plugins/hip_unfused/backend.hpp"

namespace attnrt_hip_unfused {

attnrt_status supports(void* instance, const attnrt_problem* problem, attnrt_add_reason add, void* sink) try {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_hip::Asked asked;
  if (attnrt_hip::understand(*static_cast<attnrt_hip::Instance*>(instance), *problem, &asked, &error) != ATTNRT_OK) {
    return add(sink, error.message), ATTNRT_UNSUPPORTED;
  }
  std::string reason;
  if (!kernels::hip::unfused_supported(asked.problem, asked.device->code_arch, &reason)) {
    return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
  }
  kernels::hip::Launch launches[attnrt_hip::kMaxLaunches];
  const int32_t count =
      kernels::hip::launches(kernels::hip::plan_unfused(asked.problem, asked.device->code_arch), asked.problem,
                             attnrt_hip::bounds_of(asked.problem), attnrt_hip::somewhere(), launches);
  if (!attnrt_hip::fits(*asked.device, launches, count, &reason)) return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
  // Where the policy sets a limit, explain can say so.
  const auto& self = *static_cast<const attnrt_hip::Instance*>(instance);
  const int64_t bytes = kernels::hip::plan_unfused(asked.problem, asked.device->code_arch).workspace_bytes;
  if (self.max_workspace_bytes > 0 && bytes > self.max_workspace_bytes) {
    attnrt_fail(&error, ATTNRT_UNSUPPORTED, "its scores need %lld bytes, and max_workspace_bytes is %lld",
                static_cast<long long>(bytes), static_cast<long long>(self.max_workspace_bytes));
    return add(sink, error.message), ATTNRT_UNSUPPORTED;
  }
  return ATTNRT_OK;
} catch (const std::bad_alloc&) {
  return add(sink, "no host memory for its reasons"), ATTNRT_UNSUPPORTED;
}

}  // namespace attnrt_hip_unfused
