// plugins/hip_unfused/plugin.cpp: the five operations into the plugin hip_unfused, and its option
#include "plugins/common/gpu/plugin.hpp"

#include <charconv>
#include <cstring>

namespace {

struct Unfused {
  using Plan = kernels::hip::UnfusedPlan;
  static constexpr auto supported = kernels::hip::unfused_supported;
  static constexpr auto plan = kernels::hip::plan_unfused;
};

// The one option: max_workspace_bytes, above which supports says no. Scores grow with the square of the sequence.
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
                         "max_workspace_bytes: found %s, expected a number from 1 on",
                         options[n].value);
    }
  }
  const attnrt_status status = attnrt_hip::open(host, instance, error);
  if (status == ATTNRT_OK)
    static_cast<attnrt_hip::Instance*>(*instance)->max_workspace_bytes = max_workspace_bytes;
  return status;
}

}  // namespace

ATTNRT_PLUGIN_EXPORT const attnrt_plugin attnrt_plugin_v1 = attnrt_hip::Calls<Unfused>::table(open);
