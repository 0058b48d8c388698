// runtime/src/failover.cpp: makes and runs plans, and says when the next candidate is tried instead
#include "failover.hpp"

#include "run.hpp"

namespace attnrt::core {
namespace {

// Whether the candidate after this one is tried. The one place that decides it, for plans and runs.
bool may_try_next(attnrt_status status, const Decision& decision, size_t candidate) {
  const bool another_may_succeed =
      status == ATTNRT_UNSUPPORTED || status == ATTNRT_OUT_OF_MEMORY || status == ATTNRT_INTERNAL;
  return another_may_succeed && !decision.forced && candidate + 1 < decision.verdicts.size() &&
         decision.verdicts[candidate + 1].answer == Answer::yes;
}

void log_plan(const Services& services, const Plan& plan) {
  services.log(ATTNRT_LOG_INFO,
               fmt::format("plan: {} {} on {}: kernel {}, workspace {} bytes; for {}",
                           plan.backend_name(), plan.version(), device_text(plan.device()),
                           plan.kernel(), plan.workspace_bytes(), describe(plan.problem())));
}

}  // namespace

Result<PlannedCandidate> Failover::plan(const Decision& decision, size_t first,
                                        const Services& services) {
  for (size_t candidate = first;; ++candidate) {
    auto plan = make_plan(decision, decision.verdicts[candidate]);
    if (!plan && plan.error().code == ATTNRT_OUT_OF_MEMORY && idle_plans_.drop_idle())
      plan = make_plan(decision, decision.verdicts[candidate]);
    if (plan) {
      plans_made_.fetch_add(1, std::memory_order_relaxed);
      if (services.logs_info()) log_plan(services, **plan);
      return PlannedCandidate{std::move(*plan), candidate};
    }
    if (!may_try_next(plan.error().code, decision, candidate)) return tl::unexpected(plan.error());
    services.log(ATTNRT_LOG_WARNING, plan.error().message + "; the next candidate is tried");
  }
}

attnrt_status Failover::run(PlanCache::Entry& entry, const attnrt_args& args, bool capturing,
                            attnrt_error* error) {
  const Services& services = *entry.snapshot->services;
  for (bool failed_over = false;; failed_over = true) {
    attnrt_error run_error = ATTNRT_ERROR_INIT;
    const attnrt_status status = core::run(*entry.plan, args, &run_error);
    if (status == ATTNRT_OK) return status;
    if (capturing || !may_try_next(status, *entry.decision, entry.candidate)) {
      if (failed_over) entry.plan.reset();
      return attnrt_fail(error, status, "%s", run_error.message);
    }
    services.log(ATTNRT_LOG_WARNING, fmt::format("{} ({}); the next candidate is tried",
                                                 run_error.message, status_name(status)));
    auto next = plan(*entry.decision, entry.candidate + 1, services);
    if (!next) {
      entry.plan.reset();
      return fill_error(error, next.error());
    }
    entry.plan = std::move(next->plan);
    entry.candidate = next->candidate;
  }
}

}  // namespace attnrt::core
