// plugins/hip_unfused/plugin.cpp: the plugin hip_unfused: the five unfused kernels, and its option
#include "plugins/common/gpu/plugin.hpp"

#include <charconv>
#include <cstring>

namespace {

struct Unfused {
  using Plan = kernels::hip::UnfusedPlan;
  static constexpr auto supported = kernels::hip::unfused_supported;
  static constexpr auto plan = kernels::hip::plan_unfused;
  static int32_t launches(const Plan& plan, const kernels::Problem& problem,
                          const kernels::Args& args, const attnrt_args& run,
                          kernels::hip::Launch* out) {
    return kernels::hip::launches(plan, problem, args, run.workspace, out);
  }
};

// Reads the one option, max_workspace_bytes: supports refuses a problem that needs more. The score
// matrix grows with the square of the sequence.
attnrt_status open(const attnrt_host* host, const attnrt_option* options, int32_t count,
                   void** instance, attnrt_error* error) {
  int64_t max_workspace_bytes = 0;
  for (int32_t n = 0; n < count; ++n) {
    if (std::strcmp(options[n].key, "max_workspace_bytes") != 0) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "options: found %s, expected max_workspace_bytes", options[n].key);
    }
    const char* end = options[n].value + std::strlen(options[n].value);
    const auto [stop, failed] = std::from_chars(options[n].value, end, max_workspace_bytes);
    if (failed != std::errc() || stop != end || max_workspace_bytes <= 0) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "max_workspace_bytes: found %s, expected a number of bytes, 1 or more",
                         options[n].value);
    }
  }
  const attnrt_status status = attnrt_gpu::open(host, instance, error);
  if (status == ATTNRT_OK)
    static_cast<attnrt_gpu::Instance*>(*instance)->max_workspace_bytes = max_workspace_bytes;
  return status;
}

}  // namespace

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = attnrt_gpu::Calls<Unfused>::table(open);
