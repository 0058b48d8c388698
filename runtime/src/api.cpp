// runtime/src/api.cpp: attnrt.h, the only symbols of libattnrt.so, onto the road; no exception leaves here
#include <attnrt/attnrt.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <nlohmann/json.hpp>

#include "run.hpp"
#include "runtime.hpp"
#include "trace.hpp"

using namespace attnrt::core;

struct attnrt_runtime {
  std::unique_ptr<Runtime> road;
};

struct attnrt_plan {
  std::unique_ptr<Plan> road;
};

namespace {

attnrt_status put(attnrt_error* error, const Error& found) {
  return attnrt_fail(error, found.code, "%s", found.message.c_str());
}

attnrt_status missing(attnrt_error* error, const char* what) {
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "%s is NULL; expected a pointer", what);
}

// Memory that runs out inside a library ends as a status, and so does everything else that is thrown.
template <class Function>
attnrt_status guarded(attnrt_error* error, Function&& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return attnrt_fail(error, ATTNRT_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception& exception) {
    return attnrt_fail(error, ATTNRT_INTERNAL, "%s", exception.what());
  }
}

// A caller's struct of any size into ours; what it does not reach is zero.
template <class Struct>
Struct copy_of(const Struct* given) {
  Struct copy{};
  if (given != nullptr && given->struct_size > 0) {
    std::memcpy(&copy, given, std::min(static_cast<size_t>(given->struct_size), sizeof copy));
  }
  return copy;
}

Call call_of(const attnrt_call* given) {
  const attnrt_call call = copy_of(given);
  return {call.backend != nullptr ? call.backend : ""};
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
  (void)attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "format is %d; expected ATTNRT_TEXT or ATTNRT_JSON", format);
  return false;
}

RuntimeOptions options_of(const attnrt_runtime_options* given) {
  const attnrt_runtime_options options = copy_of(given);
  RuntimeOptions road;
  road.thread_count = options.thread_count;
  if (options.policy_path != nullptr) road.policy_path = options.policy_path;
  if (options.policy_text != nullptr) road.policy_text = options.policy_text;
  if (options.plugin_path != nullptr) road.plugin_path = options.plugin_path;
  if (options.log != nullptr) {
    road.log = [log = options.log, self = options.log_self](int32_t severity, const std::string& text) {
      log(self, severity, text.c_str());
    };
  }
  road.parallel_for = options.parallel_for;
  road.parallel_self = options.parallel_self;
  return road;
}

}  // namespace

const char* attnrt_version(void) { return ATTNRT_VERSION; }

attnrt_status attnrt_runtime_open(const attnrt_runtime_options* options, attnrt_runtime** runtime, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return guarded(error, [&] {
    auto opened = Runtime::open(options_of(options));
    if (!opened) return put(error, opened.error());
    *runtime = new attnrt_runtime{std::move(*opened)};
    return attnrt_status{ATTNRT_OK};
  });
}

void attnrt_runtime_close(attnrt_runtime* runtime) { delete runtime; }

attnrt_status attnrt_runtime_reload(attnrt_runtime* runtime, attnrt_error* error) {
  if (runtime == nullptr) return missing(error, "runtime");
  return guarded(error, [&] {
    const auto reloaded = runtime->road->reload();
    return reloaded ? attnrt_status{ATTNRT_OK} : put(error, reloaded.error());
  });
}

attnrt_status attnrt_problem_infer(attnrt_problem* problem, const attnrt_args* args, attnrt_error* error) {
  if (problem == nullptr || args == nullptr) return missing(error, problem == nullptr ? "problem" : "args");
  return guarded(error, [&] {
    Problem inferred = copy_of(problem);
    inferred.struct_size = sizeof inferred;
    attnrt_args copy{};
    attnrt_status status = copy_args(args, &copy, error);
    if (status == ATTNRT_OK) status = infer_problem(copy, &inferred, error);
    if (status != ATTNRT_OK) return status;
    inferred.struct_size = problem->struct_size;
    std::memcpy(problem, &inferred, std::min(static_cast<size_t>(problem->struct_size), sizeof inferred));
    return status;
  });
}

attnrt_status attnrt_problem_parse(const char* words, attnrt_problem* problem, char* arch, int32_t capacity,
                                   attnrt_error* error) {
  if (words == nullptr || problem == nullptr) return missing(error, words == nullptr ? "words" : "problem");
  return guarded(error, [&] {
    Problem parsed = copy_of(problem);
    std::string parsed_arch;
    if (const auto result = parse_problem(words, parsed, parsed_arch); !result) return put(error, result.error());
    if (arch == nullptr ? !parsed_arch.empty() : parsed_arch.size() >= static_cast<size_t>(std::max(capacity, 0))) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "problem: arch=%s is not expected here", parsed_arch.c_str());
    }
    if (arch != nullptr) std::memcpy(arch, parsed_arch.c_str(), parsed_arch.size() + 1);
    parsed.struct_size = problem->struct_size;
    std::memcpy(problem, &parsed, std::min(static_cast<size_t>(problem->struct_size), sizeof parsed));
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_explain(attnrt_runtime* runtime, const attnrt_problem* problem, const char* arch,
                             const attnrt_call* call, int32_t format, char** text, attnrt_error* error) {
  if (runtime == nullptr || text == nullptr) return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return guarded(error, [&] {
    const auto checked = check_problem(problem);
    if (!checked) return put(error, checked.error());
    const Decision decision = runtime->road->explain(*checked, arch != nullptr ? arch : "", call_of(call));
    return give_text(format == ATTNRT_JSON ? decision_json(decision).dump(2) : decision_text(decision), text, error);
  });
}

attnrt_status attnrt_plugins(attnrt_runtime* runtime, int32_t format, char** text, attnrt_error* error) {
  if (runtime == nullptr || text == nullptr) return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return guarded(error, [&] {
    const auto snapshot = runtime->road->snapshot();
    const auto rows = runtime->road->plugins();
    return give_text(format == ATTNRT_JSON ? plugins_json(*snapshot, rows).dump(2) : plugins_text(*snapshot, rows), text,
                     error);
  });
}

attnrt_status attnrt_policy(attnrt_runtime* runtime, int32_t format, char** text, attnrt_error* error) {
  if (runtime == nullptr || text == nullptr) return missing(error, runtime == nullptr ? "runtime" : "text");
  if (!known_format(format, error)) return ATTNRT_INVALID_ARGUMENT;
  return guarded(error, [&] {
    const auto snapshot = runtime->road->snapshot();
    return give_text(format == ATTNRT_JSON ? policy_json(*snapshot).dump(2) : policy_text(*snapshot), text, error);
  });
}

void attnrt_text_free(char* text) { std::free(text); }

attnrt_status attnrt_plan_create(attnrt_runtime* runtime, const attnrt_problem* problem, const attnrt_call* call,
                                 attnrt_plan** plan, attnrt_error* error) {
  if (runtime == nullptr || plan == nullptr) return missing(error, runtime == nullptr ? "runtime" : "plan");
  return guarded(error, [&] {
    const auto checked = check_problem(problem);
    if (!checked) return put(error, checked.error());
    auto made = runtime->road->plan(*checked, call_of(call));
    if (!made) return put(error, made.error());
    *plan = new attnrt_plan{std::move(*made)};
    return attnrt_status{ATTNRT_OK};
  });
}

attnrt_status attnrt_plan_run(attnrt_plan* plan, const attnrt_args* args, attnrt_error* error) {
  if (plan == nullptr || args == nullptr) return missing(error, plan == nullptr ? "plan" : "args");
  return guarded(error, [&] { return run(*plan->road, *args, error); });
}

void attnrt_plan_destroy(attnrt_plan* plan) { delete plan; }

const char* attnrt_plan_backend(const attnrt_plan* plan) { return plan->road->backend_name().c_str(); }
const char* attnrt_plan_version(const attnrt_plan* plan) { return plan->road->version().c_str(); }
const char* attnrt_plan_kernel(const attnrt_plan* plan) { return plan->road->kernel().c_str(); }
int64_t attnrt_plan_workspace_bytes(const attnrt_plan* plan) { return plan->road->workspace_bytes(); }

attnrt_status attnrt_attention(attnrt_runtime* runtime, const attnrt_problem* problem, const attnrt_args* args,
                               const attnrt_call* call, attnrt_error* error) {
  if (runtime == nullptr || args == nullptr) return missing(error, runtime == nullptr ? "runtime" : "args");
  return guarded(error, [&] {
    const Problem attributes = problem != nullptr ? copy_of(problem) : default_problem();
    return runtime->road->attention(attributes, *args, call_of(call), error);
  });
}
