// plugins/common/gpu/plugin.hpp: the calls of a GPU plugin, as a template over its kernels
//
// A plugin describes its kernels in a struct, and makes its table from Calls of that struct:
//
//   using Plan                     the kernels' plan: FlashPlan or UnfusedPlan, of launch.hpp
//   static constexpr supported     the kernels' function that accepts or refuses a problem
//   static constexpr plan          the kernels' function that plans it
//   static int32_t launches(...)   the launches of one run; gets the run's workspace and schedule
#pragma once

#include <new>
#include <string>

#include "attnrt/plugin.h"
#include "kernels/hip/launch/launch.hpp"
#include "plugins/common/gpu/backend.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt_gpu {

template <class Kernels>
struct Calls {
  // What plan makes and run takes.
  struct Plan {
    kernels::Problem problem;
    typename Kernels::Plan planned;
    LoadedKernels loaded;
  };

  // Accepts a problem, or adds the reason why not: one that the manifest cannot express.
  static attnrt_status supports(void* instance, const attnrt_problem* problem,
                                attnrt_add_reason add, void* sink) try {
    const Instance& self = *static_cast<const Instance*>(instance);
    attnrt_error error = ATTNRT_ERROR_INIT;
    DeviceProblem translated;
    if (translate_for_device(self, *problem, &translated, &error) != ATTNRT_OK)
      return add(sink, error.message), ATTNRT_UNSUPPORTED;
    const kernels::hip::Target target = translated.device->target();
    std::string reason;
    if (!Kernels::supported(translated.problem, target, &reason))
      return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
    const typename Kernels::Plan planned = Kernels::plan(translated.problem, target);
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count = kernels::hip::kernels_of(planned, translated.problem,
                                                   args_at_bounds(translated.problem), launches);
    if (!fits(*translated.device, launches, count, &reason))
      return add(sink, reason.c_str()), ATTNRT_UNSUPPORTED;
    if (self.max_workspace_bytes > 0 && planned.workspace_bytes > self.max_workspace_bytes) {
      attnrt_fail(&error, ATTNRT_UNSUPPORTED,
                  "workspace: needs %lld bytes, and max_workspace_bytes is %lld",
                  static_cast<long long>(planned.workspace_bytes),
                  static_cast<long long>(self.max_workspace_bytes));
      return add(sink, error.message), ATTNRT_UNSUPPORTED;
    }
    return ATTNRT_OK;
  } catch (const std::bad_alloc&) {
    return ATTNRT_OUT_OF_MEMORY;
  }

  // Loads a problem's kernels, and says which workspace their runs need.
  static attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                            void** plan, attnrt_error* error) try {
    DeviceProblem translated;
    attnrt_status status =
        translate_for_device(*static_cast<const Instance*>(instance), *problem, &translated, error);
    if (status != ATTNRT_OK) return status;
    const kernels::hip::Target target = translated.device->target();
    std::string reason;
    if (!Kernels::supported(translated.problem, target, &reason)) {
      return attnrt_fail(error, ATTNRT_UNSUPPORTED, "%s", reason.c_str());
    }
    const typename Kernels::Plan planned = Kernels::plan(translated.problem, target);
    // Without this check the allocation would fail too, but only after memory that is cached for
    // others had been freed for it.
    const int64_t total = translated.device->total_memory_bytes;
    if (total > 0 && planned.workspace_bytes > total) {
      return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY,
                         "workspace: needs %lld bytes, and %s has %lld in all",
                         static_cast<long long>(planned.workspace_bytes), translated.device->name,
                         static_cast<long long>(total));
    }
    Plan* made = new (std::nothrow) Plan{translated.problem, planned, {}};
    if (made == nullptr)
      return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: out of host memory");
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count = kernels::hip::kernels_of(made->planned, made->problem,
                                                   args_at_bounds(made->problem), launches);
    status = load(*translated.device, launches, count, &made->loaded, error);
    if (status != ATTNRT_OK) return delete made, status;
    info->workspace_bytes = planned.workspace_bytes;
    info->workspace_alignment = 256;
    info->held_bytes = sizeof(Plan);
    info->capturable = 1;
    info->kernel = planned.kernel;
    *plan = made;
    return ATTNRT_OK;
  } catch (const std::bad_alloc&) {
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "plan: out of host memory");
  }

  // Enqueues one run on its stream.
  static attnrt_status run(void*, void* plan, const attnrt_problem*, const attnrt_args* args,
                           attnrt_error* error) {
    const Plan& made = *static_cast<const Plan*>(plan);
    kernels::Args kernel_args;
    if (const attnrt_status status = attnrt_plugins::translate(*args, &kernel_args, error);
        status != ATTNRT_OK)
      return status;
    const attnrt_status status = check_workspace(*args, made.planned.workspace_bytes, error);
    if (status != ATTNRT_OK) return status;
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count =
        Kernels::launches(made.planned, made.problem, kernel_args, *args, launches);
    return enqueue(made.loaded, launches, count, args->stream, error);
  }

  // ---- attnrt.schedule/1, for kernels that offer it ----
  static attnrt_status schedule_bytes(void*, void* plan, const attnrt_problem*, int64_t* bytes,
                                      attnrt_error*) {
    *bytes = kernels::hip::schedule_bytes(static_cast<const Plan*>(plan)->planned);
    return ATTNRT_OK;
  }
  static attnrt_status build_schedule(void*, void* plan, const attnrt_problem*,
                                      const attnrt_args* args, attnrt_error* error) {
    const Plan& made = *static_cast<const Plan*>(plan);
    kernels::Args kernel_args;
    if (const attnrt_status status = attnrt_plugins::translate(*args, &kernel_args, error);
        status != ATTNRT_OK)
      return status;
    const int64_t bytes = kernels::hip::schedule_bytes(made.planned);
    if (args->schedule == nullptr || args->schedule_bytes < bytes) {
      return attnrt_fail(
          error, ATTNRT_INVALID_ARGUMENT, "schedule_bytes: found %lld, expected at least %lld",
          static_cast<long long>(args->schedule_bytes), static_cast<long long>(bytes));
    }
    kernels::hip::Launch launches[kMaxLaunches];
    const int32_t count = kernels::hip::schedule_launches(made.planned, made.problem, kernel_args,
                                                          args->schedule, launches);
    return enqueue(made.loaded, launches, count, args->stream, error);
  }

  static void plan_destroy(void*, void* plan) { delete static_cast<Plan*>(plan); }

  // extension: the plugin's own get_extension, if it offers more than both do.
  static constexpr attnrt_plugin table(attnrt_status (*open)(const attnrt_host*,
                                                             const attnrt_option*, int32_t, void**,
                                                             attnrt_error*),
                                       const void* (*extension)(void* instance,
                                                                const char* id) = get_extension) {
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
            extension};
  }
};

}  // namespace attnrt_gpu
