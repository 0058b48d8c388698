// runtime/src/api.cpp: the C API of attnrt.h; no exception leaves these functions
#include <attnrt/attnrt.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <optional>

#include "base/guarded.hpp"
#include "base/structs.hpp"
#include "merge.hpp"
#include "problem/check_args.hpp"
#include "problem/infer.hpp"
#include "run.hpp"
#include "runtime.hpp"
#include "schedule.hpp"
#include "stats_trace.hpp"
#include "trace.hpp"

using namespace attnrt::core;

struct attnrt_runtime {
  std::unique_ptr<Runtime> impl;
};

struct attnrt_plan {
  std::unique_ptr<Plan> impl;
};

struct attnrt_schedule {
  std::unique_ptr<Schedule> impl;
};

namespace {

attnrt_status missing(attnrt_error* error, const char* what) {
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s is NULL; expected a pointer", what);
}

// Runs the body of one entry point. std::bad_alloc becomes OUT_OF_MEMORY, any other exception
// INTERNAL.
template <class Call>
attnrt_status without_exceptions(attnrt_error* error, Call&& call) {
  return guarded(call, [error](const std::exception* exception) {
    if (dynamic_cast<const std::bad_alloc*>(exception) != nullptr)
      return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "out of host memory");
    return attnrt_fail(error, ATTNRT_INTERNAL, "%s",
                       exception != nullptr ? exception->what() : "an unknown exception");
  });
}

// Calls read_struct, and reports its error through attnrt_error.
template <class Struct>
attnrt_status read(const Struct& given, Struct* ours, attnrt_error* error) {
  const auto done = read_struct(given, ours);
  return done ? attnrt_status{ATTNRT_OK} : fill_error(error, done.error());
}

// Writes a problem back into the caller's struct. An older caller's struct may be too short for a
// field that is set: INVALID_ARGUMENT, and the struct stays as it was. REQUIRES: *out was read
// without an error.
attnrt_status write_problem(const Problem& problem, attnrt_problem* out, attnrt_error* error) {
  const auto size = static_cast<size_t>(out->struct_size);
  attnrt_problem copy = problem;
  copy.struct_size = out->struct_size;
  if (size < sizeof copy) {
    Problem readable = default_problem();  // what the caller would find in its struct
    if (const auto status = read(copy, &readable, error); status != ATTNRT_OK) return status;
    if (!same_problem(readable, problem)) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "problem: its %zu bytes cannot hold all of: %s", size,
                         describe(problem).c_str());
    }
  }
  std::memcpy(out, &copy, std::min(size, sizeof copy));
  return ATTNRT_OK;
}

// stream: gets the call's stream; absent if it is NULL.
attnrt_status read_call(const attnrt_call* given, Call* call, attnrt_error* error,
                        std::optional<void*>* stream = nullptr) {
  if (given == nullptr) return ATTNRT_OK;
  attnrt_call known = ATTNRT_CALL_INIT;
  const attnrt_status status = read(*given, &known, error);
  if (status == ATTNRT_OK && known.backend != nullptr) call->backend = known.backend;
  if (status == ATTNRT_OK && known.stream != nullptr && stream != nullptr) *stream = known.stream;
  return status;
}

attnrt_status give_text(const std::string& text, char** out, attnrt_error* error) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "out of host memory");
  std::memcpy(copy, text.c_str(), text.size() + 1);
  *out = copy;
  return ATTNRT_OK;
}

bool known_format(int32_t format, attnrt_error* error) {
  if (format == ATTNRT_TEXT || format == ATTNRT_JSON) return true;
  (void)attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                    "format is %d; expected ATTNRT_TEXT or ATTNRT_JSON", format);
  return false;
}

RuntimeOptions options_of(const attnrt_runtime_options& options) {
  RuntimeOptions result;
  result.thread_count = options.thread_count;
  if (options.policy_path != nullptr) result.policy_path = options.policy_path;
  if (options.policy_text != nullptr) result.policy_text = options.policy_text;
  if (options.plugin_path != nullptr) result.plugin_path = options.plugin_path;
  if (options.log != nullptr) {
    result.log = [log = options.log, self = options.log_self](int32_t severity,
                                                              const std::string& text) {
      log(self, severity, text.c_str());
    };
  }
  result.parallel_for = options.parallel_for;
  result.parallel_self = options.parallel_self;
  result.allocator = {options.allocate, options.free, options.allocator_self};
  return result;
}

}  // namespace

const char* attnrt_version(void) { return ATTNRT_VERSION; }

attnrt_status attnrt_runtime_open(const attnrt_runtime_options* options, attnrt_runtime** runtime,
                                  attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return without_exceptions(error, [&] {
    attnrt_runtime_options known = ATTNRT_RUNTIME_OPTIONS_INIT;
    if (options != nullptr) {
      if (const auto status = read(*options, &known, error); status != ATTNRT_OK) return status;
    }
    auto opened = Runtime::open(options_of(known));
    if (!opened) return fill_error(error, opened.error());
    *runtime = new attnrt_runtime{std::move(*opened)};
    return attnrt_status{ATTNRT_OK};
  });
}

void attnrt_runtime_close(attnrt_runtime* runtime) { delete runtime; }

attnrt_status attnrt_runtime_reload(attnrt_runtime* runtime, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return without_exceptions(error, [&] {
    const auto reloaded = runtime->impl->reload();
    return reloaded ? attnrt_status{ATTNRT_OK} : fill_error(error, reloaded.error());
  });
}

attnrt_status attnrt_runtime_watch(attnrt_runtime* runtime, int32_t* descriptor,
                                   attnrt_error* error) {
  if (runtime == nullptr || descriptor == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "descriptor");
  return without_exceptions(error, [&] {
    const auto watched = runtime->impl->watch();
    if (!watched) return fill_error(error, watched.error());
    *descriptor = *watched;
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_runtime_handle_events(attnrt_runtime* runtime, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return without_exceptions(error, [&] {
    const auto handled = runtime->impl->handle_events();
    return handled ? attnrt_status{ATTNRT_OK} : fill_error(error, handled.error());
  });
}

attnrt_status attnrt_runtime_trim(attnrt_runtime* runtime, int64_t bytes, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  if (bytes < 0) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "bytes is %lld; expected 0 or more",
                       static_cast<long long>(bytes));
  }
  return without_exceptions(error, [&] {
    runtime->impl->trim(bytes);
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_runtime_retry(attnrt_runtime* runtime, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return without_exceptions(error,
                            [&] { return runtime->impl->retry(), attnrt_status{ATTNRT_OK}; });
}

attnrt_status attnrt_runtime_promote(attnrt_runtime* runtime, const char* backend,
                                     attnrt_error* error) {
  if (runtime == nullptr || backend == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "backend");
  return without_exceptions(error, [&] {
    const auto done = runtime->impl->promote(backend);
    return done ? attnrt_status{ATTNRT_OK} : fill_error(error, done.error());
  });
}

attnrt_status attnrt_runtime_roll_back(attnrt_runtime* runtime, const char* backend,
                                       attnrt_error* error) {
  if (runtime == nullptr || backend == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "backend");
  return without_exceptions(error, [&] {
    const auto done = runtime->impl->roll_back(backend);
    return done ? attnrt_status{ATTNRT_OK} : fill_error(error, done.error());
  });
}

attnrt_status attnrt_problem_infer(attnrt_problem* problem, const attnrt_args* args,
                                   attnrt_error* error) {
  if (problem == nullptr || args == nullptr)
    return missing(error, problem == nullptr ? "problem" : "args");
  return without_exceptions(error, [&] {
    Problem inferred = default_problem();  // its dimensions need not be set yet
    attnrt_args known{};
    attnrt_status status = read(*problem, &inferred, error);
    if (const auto done = read_args(*args, &known); status == ATTNRT_OK && !done)
      status = fill_error(error, done.error());
    if (status == ATTNRT_OK) status = infer_problem(known, &inferred, error);
    if (status == ATTNRT_OK) status = write_problem(inferred, problem, error);
    return status;
  });
}

attnrt_status attnrt_problem_parse(const char* words, attnrt_problem* problem, char* arch,
                                   int32_t capacity, attnrt_error* error) {
  if (words == nullptr || problem == nullptr)
    return missing(error, words == nullptr ? "words" : "problem");
  return without_exceptions(error, [&] {
    Problem parsed = default_problem();
    if (const auto status = read(*problem, &parsed, error); status != ATTNRT_OK) return status;
    std::string parsed_arch;
    if (const auto result = parse_problem(words, parsed, parsed_arch); !result)
      return fill_error(error, result.error());
    if (arch == nullptr && !parsed_arch.empty()) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "problem: arch=%s is not expected here",
                         parsed_arch.c_str());
    }
    if (arch != nullptr && parsed_arch.size() >= static_cast<size_t>(std::max(capacity, 0))) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "problem: arch=%s and its NUL do not fit into %d bytes",
                         parsed_arch.c_str(), capacity);
    }
    const attnrt_status status = write_problem(parsed, problem, error);
    if (status == ATTNRT_OK && arch != nullptr)
      std::memcpy(arch, parsed_arch.c_str(), parsed_arch.size() + 1);
    return status;
  });
}

attnrt_status attnrt_explain(attnrt_runtime* runtime, const attnrt_problem* problem,
                             const char* arch, const attnrt_call* call, int32_t format, char** text,
                             attnrt_error* error) {
  if (runtime == nullptr || text == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return without_exceptions(error, [&] {
    const auto checked = check_problem(problem);
    if (!checked) return fill_error(error, checked.error());
    Call asked;
    if (const auto status = read_call(call, &asked, error); status != ATTNRT_OK) return status;
    const Decision decision = runtime->impl->explain(*checked, arch != nullptr ? arch : "", asked);
    return give_text(
        format == ATTNRT_JSON ? decision_json(decision).text() : decision_text(decision), text,
        error);
  });
}

attnrt_status attnrt_plugins(attnrt_runtime* runtime, int32_t format, char** text,
                             attnrt_error* error) {
  if (runtime == nullptr || text == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return without_exceptions(error, [&] {
    const auto snapshot = runtime->impl->snapshot();
    const auto rows = runtime->impl->plugins();
    return give_text(format == ATTNRT_JSON ? plugins_json(*snapshot, rows).text()
                                           : plugins_text(*snapshot, rows),
                     text, error);
  });
}

attnrt_status attnrt_policy(attnrt_runtime* runtime, int32_t format, char** text,
                            attnrt_error* error) {
  if (runtime == nullptr || text == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return without_exceptions(error, [&] {
    const auto snapshot = runtime->impl->snapshot();
    return give_text(format == ATTNRT_JSON ? policy_json(*snapshot).text() : policy_text(*snapshot),
                     text, error);
  });
}

attnrt_status attnrt_stats(attnrt_runtime* runtime, int32_t format, char** text,
                           attnrt_error* error) {
  if (runtime == nullptr || text == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return without_exceptions(error, [&] {
    const StatsReport report = runtime->impl->stats();
    return give_text(format == ATTNRT_JSON ? stats_json(report).text() : stats_text(report), text,
                     error);
  });
}

attnrt_status attnrt_decisions(attnrt_runtime* runtime, int64_t after, char** lines,
                               attnrt_error* error) {
  if (runtime == nullptr || lines == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "lines");
  return without_exceptions(
      error, [&] { return give_text(runtime->impl->decisions(after), lines, error); });
}

void attnrt_text_free(char* text) { std::free(text); }

attnrt_status attnrt_plan_create(attnrt_runtime* runtime, const attnrt_problem* problem,
                                 const attnrt_call* call, attnrt_plan** plan, attnrt_error* error) {
  if (runtime == nullptr || plan == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "plan");
  return without_exceptions(error, [&] {
    const auto checked = check_problem(problem);
    if (!checked) return fill_error(error, checked.error());
    Call asked;
    std::optional<void*> stream;
    if (const auto status = read_call(call, &asked, error, &stream); status != ATTNRT_OK)
      return status;
    auto made = runtime->impl->plan(*checked, asked, stream);
    if (!made) return fill_error(error, made.error());
    *plan = new attnrt_plan{std::move(*made)};
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_plan_run(attnrt_plan* plan, const attnrt_args* args, attnrt_error* error) {
  if (plan == nullptr || args == nullptr) return missing(error, plan == nullptr ? "plan" : "args");
  return without_exceptions(error, [&] { return run(*plan->impl, *args, error); });
}

void attnrt_plan_destroy(attnrt_plan* plan) { delete plan; }

const char* attnrt_plan_backend(const attnrt_plan* plan) {
  return plan != nullptr ? plan->impl->backend_name().c_str() : "";
}
const char* attnrt_plan_version(const attnrt_plan* plan) {
  return plan != nullptr ? plan->impl->version().c_str() : "";
}
const char* attnrt_plan_kernel(const attnrt_plan* plan) {
  return plan != nullptr ? plan->impl->kernel().c_str() : "";
}
int64_t attnrt_plan_workspace_bytes(const attnrt_plan* plan) {
  return plan != nullptr ? plan->impl->workspace_bytes() : 0;
}

attnrt_status attnrt_plan_explain(const attnrt_plan* plan, int32_t format, char** text,
                                  attnrt_error* error) {
  if (plan == nullptr || text == nullptr) return missing(error, plan == nullptr ? "plan" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return without_exceptions(error, [&] {
    const Decision& decision = plan->impl->decision();
    return give_text(
        format == ATTNRT_JSON ? decision_json(decision).text() : decision_text(decision), text,
        error);
  });
}

attnrt_status attnrt_schedule_create(attnrt_plan* plan, attnrt_schedule** schedule,
                                     attnrt_error* error) {
  if (plan == nullptr || schedule == nullptr)
    return missing(error, plan == nullptr ? "plan" : "schedule");
  return without_exceptions(error, [&] {
    auto made = Schedule::make(*plan->impl);
    if (!made) return fill_error(error, made.error());
    *schedule = new attnrt_schedule{std::move(*made)};
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_schedule_build(attnrt_schedule* schedule, const attnrt_args* args,
                                    attnrt_error* error) {
  if (schedule == nullptr || args == nullptr)
    return missing(error, schedule == nullptr ? "schedule" : "args");
  return without_exceptions(error, [&] { return schedule->impl->build(*args, error); });
}

attnrt_status attnrt_plan_run_scheduled(attnrt_plan* plan, const attnrt_schedule* schedule,
                                        const attnrt_args* args, attnrt_error* error) {
  if (plan == nullptr) return missing(error, "plan");
  if (schedule == nullptr) return missing(error, "schedule");
  if (args == nullptr) return missing(error, "args");
  return without_exceptions(error,
                            [&] { return run(*plan->impl, *args, error, schedule->impl.get()); });
}

void attnrt_schedule_destroy(attnrt_schedule* schedule) { delete schedule; }

int64_t attnrt_schedule_bytes(const attnrt_schedule* schedule) {
  return schedule != nullptr ? schedule->impl->bytes() : 0;
}

attnrt_status attnrt_attention(attnrt_runtime* runtime, const attnrt_problem* problem,
                               const attnrt_args* args, const attnrt_call* call,
                               attnrt_error* error) {
  if (runtime == nullptr || args == nullptr)
    return missing(error, runtime == nullptr ? "runtime" : "args");
  return without_exceptions(error, [&] {
    Problem attributes = default_problem();
    Call asked;
    attnrt_status status = problem != nullptr ? read(*problem, &attributes, error) : ATTNRT_OK;
    if (status == ATTNRT_OK) status = read_call(call, &asked, error);
    return status == ATTNRT_OK ? runtime->impl->attention(attributes, *args, asked, error) : status;
  });
}

attnrt_status attnrt_merge(attnrt_runtime* runtime, int32_t device_type, int32_t device_id,
                           const attnrt_tensor* outs, const attnrt_tensor* lses, int32_t count,
                           const attnrt_tensor* out, const attnrt_tensor* lse, void* stream,
                           attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  if (outs == nullptr) return missing(error, "outs");
  if (lses == nullptr) return missing(error, "lses");
  if (out == nullptr) return missing(error, "out");
  if (count < 1) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "merge: count is %d; expected at least 1",
                       count);
  }
  return without_exceptions(error, [&] {
    const auto partials = static_cast<size_t>(count);
    const MergeArgs args{device_id,
                         {outs, partials},
                         {lses, partials},
                         *out,
                         lse != nullptr ? *lse : attnrt_tensor{},
                         stream};
    return merge(*runtime->impl->snapshot(), device_type, args, error);
  });
}
