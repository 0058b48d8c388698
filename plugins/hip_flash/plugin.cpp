// plugins/hip_flash/plugin.cpp: the plugin hip_flash: the fused kernels; it has no options
#include "plugins/common/gpu/plugin.hpp"

namespace {

struct Flash {
  using Plan = kernels::hip::FlashPlan;
  static constexpr auto supported = kernels::hip::flash_supported;
  static constexpr auto plan = kernels::hip::plan_flash;
};

attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count,
                   void** instance, attnrt_error* error) {
  if (count > 0) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "options: found %s, expected none: this backend has no options",
                       options[0].key);
  }
  return attnrt_gpu::open(host, instance, error);
}

}  // namespace

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = attnrt_gpu::Calls<Flash>::table(open);
