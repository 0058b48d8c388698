// plugins/hip_flash/plugin.cpp: the plugin hip_flash: the fused kernels, its option and extensions
#include "plugins/common/gpu/plugin.hpp"

#include <cstring>

#include "plugins/hip_flash/merge.hpp"

namespace {

struct Flash {
  using Plan = kernels::hip::FlashPlan;
  static constexpr auto supported = kernels::hip::flash_supported;
  static constexpr auto plan = kernels::hip::plan_flash;
  static int32_t launches(const Plan& plan, const kernels::Problem& problem,
                          const kernels::Args& args, const attnrt_args& run,
                          kernels::hip::Launch* out) {
    void* const schedule = ATTNRT_HAS(&run, attnrt_args, schedule) ? run.schedule : nullptr;
    return kernels::hip::launches(plan, problem, args, run.workspace, out, schedule);
  }
};

// Reads the one option, code: ptx uses no code but PTX, as on NVIDIA devices that are newer than
// this build. The build for AMD accepts it, since both builds get one plugin's options.
attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count,
                   void** instance, attnrt_error* error) {
  bool ptx_only = false;
  for (int32_t n = 0; n < count; ++n) {
    if (std::strcmp(options[n].key, "code") != 0) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "options: found %s, expected code",
                         options[n].key);
    }
    ptx_only = std::strcmp(options[n].value, "ptx") == 0;
    if (!ptx_only && std::strcmp(options[n].value, "any") != 0) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "code: found %s, expected any or ptx",
                         options[n].value);
    }
  }
  const attnrt_status status = attnrt_gpu::open(host, instance, error);
  if (status == ATTNRT_OK && attnrt_gpu::device_type() == ATTNRT_DEVICE_CUDA)
    static_cast<attnrt_gpu::Instance*>(*instance)->ptx_only = ptx_only;
  return status;
}

using FlashCalls = attnrt_gpu::Calls<Flash>;
constexpr attnrt_scheduling scheduling = {sizeof(attnrt_scheduling), 0, FlashCalls::schedule_bytes,
                                          FlashCalls::build_schedule};

const void* get_extension(void* instance, const char* id) {
  if (std::strcmp(id, ATTNRT_SCHEDULE) == 0) return &scheduling;
  if (std::strcmp(id, ATTNRT_MERGE) == 0) return &attnrt_hip_flash::merging;
  return attnrt_gpu::get_extension(instance, id);
}

}  // namespace

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = FlashCalls::table(open, get_extension);
