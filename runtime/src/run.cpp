// runtime/src/run.cpp: the run step: calls a Plan's backend on one run's tensors
#include "run.hpp"

#include "capture.hpp"
#include "problem/check_args.hpp"
#include "rollout.hpp"
#include "schedule.hpp"
#include "staging.hpp"
#include "stats.hpp"

namespace attnrt::core {
namespace {

attnrt_status check_workspace(const Plan& plan, const attnrt_args& args, attnrt_error* error) {
  if (args.workspace == nullptr) return ATTNRT_OK;
  if (args.workspace_bytes < plan.workspace_bytes()) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: workspace has %lld bytes; the plan needs %lld",
                       static_cast<long long>(args.workspace_bytes),
                       static_cast<long long>(plan.workspace_bytes()));
  }
  const auto alignment = static_cast<uintptr_t>(plan.workspace_alignment());
  if (reinterpret_cast<uintptr_t>(args.workspace) % alignment == 0) return ATTNRT_OK;
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                     "run: workspace does not start at a multiple of %zu bytes",
                     static_cast<size_t>(alignment));
}

}  // namespace

attnrt_status check_capture(const Plan& plan, void* stream, attnrt_error* error,
                            const char* where) {
  if (plan.capturable() || plan.staging() != nullptr) return ATTNRT_OK;
  Capture capture;
  const attnrt_status status = find_capture(plan.backend(), plan.device(), stream, &capture, error);
  if (status != ATTNRT_OK && plan.stats() != nullptr)
    plan.stats()->failed(Breaker::Stage::run, status, "it cannot tell whether a graph is captured");
  if (Rollout* rollout = plan.decision().rollout(); status != ATTNRT_OK && rollout != nullptr)
    rollout->failed(status, "it cannot tell whether a graph is captured");
  if (status != ATTNRT_OK || !capture.active) return status;
  return attnrt_fail(error, ATTNRT_UNSUPPORTED,
                     "%s: %s: kernel %s cannot be captured into a graph; run it on a stream that "
                     "is not being captured",
                     where, plan.backend_name().c_str(), plan.kernel().c_str());
}

attnrt_status run(const Plan& plan, const attnrt_args& given, attnrt_error* error,
                  const Schedule* schedule) {
  attnrt_args args{};
  if (const auto read = read_args(given, &args); !read) return fill_error(error, read.error());
  Extents extents;
  if (const attnrt_status status = check_args(plan.problem(), args, &extents, error);
      status != ATTNRT_OK)
    return status;
  if (const attnrt_status status = check_workspace(plan, args, error); status != ATTNRT_OK)
    return status;
  if (schedule != nullptr) {
    if (const attnrt_status status = schedule->give(plan, extents, args, error);
        status != ATTNRT_OK)
      return status;
  }
  if (extents.is_empty()) return ATTNRT_OK;
  if (const auto status = check_capture(plan, args.stream, error, "run"); status != ATTNRT_OK)
    return status;
  if (args.workspace == nullptr) {
    args.workspace = plan.workspace();
    args.workspace_bytes = plan.workspace_bytes();
  }
  attnrt_error found = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      plan.staging() != nullptr
          ? plan.staging()->run(plan, args, &found)
          : plan.backend().run(plan.plugin_plan(), plan.device_problem(), args, &found);
  if (plan.staging() != nullptr) plan.count_held_bytes();  // its buffers may have grown
  CandidateStats* const stats = plan.stats();
  Rollout* const rollout = plan.decision().rollout();
  if (status == ATTNRT_OK) {
    if (stats != nullptr) stats->ran();
    if (rollout != nullptr) rollout->served();
    return status;
  }
  attnrt_error told = ATTNRT_ERROR_INIT;
  (void)attnrt_fail(&told, status, "run: %s: %s", plan.backend_name().c_str(),
                    found.message[0] != '\0' ? found.message : status_name(status));
  if (stats != nullptr) stats->failed(Breaker::Stage::run, status, told.message);
  if (rollout != nullptr) rollout->failed(status, told.message);
  return attnrt_fail(error, status, "%s", told.message);
}

}  // namespace attnrt::core
