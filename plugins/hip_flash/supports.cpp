// plugins/hip_flash/supports.cpp: a problem into yes, or the reasons that the manifest cannot say
#include <new>
#include <string>

#include "plugins/hip_flash/backend.hpp"

namespace attnrt_hip_flash {

attnrt_status supports(void* instance, const attnrt_problem* problem, attnrt_add_reason add, void* sink) try {
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_hip::Asked asked;
  if (attnrt_hip::understand(*static_cast<attnrt_hip::Instance*>(instance), *problem, &asked, &error) != ATTNRT_OK) {
    return add(sink, error.message), ATTNRT_UNSUPPORTED;
  }
  std::string reason;
  if (!kernels::hip::flash_supported(asked.problem, asked.device->code_arch, &reason)) {
    return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
  }
  kernels::hip::Launch launches[attnrt_hip::kMaxLaunches];
  const int32_t count =
      kernels::hip::launches(kernels::hip::plan_flash(asked.problem, asked.device->code_arch), asked.problem,
                             attnrt_hip::bounds_of(asked.problem), attnrt_hip::somewhere(), launches);
  if (!attnrt_hip::fits(*asked.device, launches, count, &reason)) return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
  return ATTNRT_OK;
} catch (const std::bad_alloc&) {
  return add(sink, "no host memory for its reasons"), ATTNRT_UNSUPPORTED;
}

}  // namespace attnrt_hip_flash
