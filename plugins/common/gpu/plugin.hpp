// plugins/common/gpu/plugin.hpp: one family of kernels into the calls of a plugin
//
// A GPU plugin names its kernels in a struct, and makes its table of Calls of that struct:
//   using Plan = ...                        what the kernels' plan gives (kernels/hip/launch/launch.hpp)
//   static constexpr auto supported, plan   the kernels' functions
#pragma once

#include <new>
#include <string>

#include "attnrt/plugin.h"
#include "kernels/hip/launch/launch.hpp"
#include "plugins/common/gpu/backend.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt_hip {

template <class Kernels>
struct Calls {
  // What plan makes.
  struct Plan {
    kernels::Problem problem;
    typename Kernels::Plan planned;
    attnrt_hip::Kernels kernels;
  };

  // A problem into yes, or the reasons that the manifest cannot say.
  static attnrt_status supports(void* instance, const attnrt_problem* problem,
                                attnrt_add_reason add, void* sink) try {
    const Instance& self = *static_cast<const Instance*>(instance);
    attnrt_error error = ATTNRT_ERROR_INIT;
    Asked asked;
    if (understand(self, *problem, &asked, &error) != ATTNRT_OK)
      return add(sink, error.message), ATTNRT_UNSUPPORTED;
    const char* arch = asked.device->code_arch;
    std::string reason;
    if (!Kernels::supported(asked.problem, arch, &reason))
      return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
    const typename Kernels::Plan planned = Kernels::plan(asked.problem, arch);
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count = kernels::hip::launches(planned, asked.problem, bounds_of(asked.problem),
                                                 somewhere(), launches);
    if (!fits(*asked.device, launches, count, &reason))
      return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
    // Where the policy sets a limit, explain can say so.
    if (self.max_workspace_bytes > 0 && planned.workspace_bytes > self.max_workspace_bytes) {
      attnrt_fail(&error, ATTNRT_UNSUPPORTED,
                  "its workspace needs %lld bytes, and max_workspace_bytes is %lld",
                  static_cast<long long>(planned.workspace_bytes),
                  static_cast<long long>(self.max_workspace_bytes));
      return add(sink, error.message), ATTNRT_UNSUPPORTED;
    }
    return ATTNRT_OK;
  } catch (const std::bad_alloc&) {
    return add(sink, "no host memory for its reasons"), ATTNRT_UNSUPPORTED;
  }

  // A problem into its kernels, loaded, and the workspace that their runs need.
  static attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                            void** plan, attnrt_error* error) try {
    Asked asked;
    attnrt_status status =
        understand(*static_cast<const Instance*>(instance), *problem, &asked, error);
    if (status != ATTNRT_OK) return status;
    const char* arch = asked.device->code_arch;
    std::string reason;
    if (!Kernels::supported(asked.problem, arch, &reason)) {
      return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", reason.c_str());
    }
    const typename Kernels::Plan planned = Kernels::plan(asked.problem, arch);
    // The allocation would say so, too, but only after what others keep there has been pushed out.
    const int64_t total = asked.device->total_memory_bytes;
    if (total > 0 && planned.workspace_bytes > total) {
      return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY,
                         "its workspace needs %lld bytes, and %s has %lld in all",
                         static_cast<long long>(planned.workspace_bytes), asked.device->name,
                         static_cast<long long>(total));
    }
    Plan* made = new (std::nothrow) Plan{asked.problem, planned, {}};
    if (made == nullptr)
      return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count = kernels::hip::launches(made->planned, made->problem,
                                                 bounds_of(made->problem), somewhere(), launches);
    status = load(*asked.device, launches, count, &made->kernels, error);
    if (status != ATTNRT_OK) return delete made, status;
    info->workspace_bytes = planned.workspace_bytes;
    info->workspace_alignment = 256;
    info->kernel = planned.kernel;
    *plan = made;
    return ATTNRT_OK;
  } catch (const std::bad_alloc&) {
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: no memory for the plan");
  }

  // One run's tensors onto the stream.
  static attnrt_status run(void*, void* plan, const attnrt_problem*, const attnrt_args* args,
                           attnrt_error* error) {
    const Plan& made = *static_cast<const Plan*>(plan);
    kernels::Args to;
    if (const attnrt_status status = attnrt_plugins::translate(*args, &to, error);
        status != ATTNRT_OK)
      return status;
    const attnrt_status status = check_workspace(*args, made.planned.workspace_bytes, error);
    if (status != ATTNRT_OK) return status;
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count =
        kernels::hip::launches(made.planned, made.problem, to, args->workspace, launches);
    return enqueue(made.kernels, launches, count, args->stream, error);
  }

  static void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

  static constexpr attnrt_plugin table(attnrt_status (*open)(const attnrt_host*,
                                                             const attnrt_option*, int32_t, void**,
                                                             attnrt_error*)) {
    return {sizeof(attnrt_plugin),
            ATTNRT_ABI_MINOR,
            ATTNRT_PLUGIN_NAME,
            ATTNRT_PLUGIN_VERSION,
            open,
            devices,
            supports,
            plan,
            run,
            plan_destroy,
            close,
            get_extension};
  }
};

}  // namespace attnrt_hip
