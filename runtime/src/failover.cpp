// runtime/src/failover.cpp: makes and runs plans, and says when the next candidate is tried instead
#include "failover.hpp"

#include <utility>

#include "capture.hpp"
#include "rollout.hpp"
#include "run.hpp"
#include "shadow.hpp"

namespace attnrt::core {
namespace {

bool another_may_succeed(attnrt_status status) {
  return status == ATTNRT_UNSUPPORTED || status == ATTNRT_OUT_OF_MEMORY ||
         status == ATTNRT_INTERNAL;
}

void log_plan(const Services& services, const Plan& plan) {
  services.log(ATTNRT_LOG_INFO,
               fmt::format("plan: {} {} on {}: kernel {}, workspace {} bytes; for {}",
                           plan.backend_name(), plan.version(), device_text(plan.device()),
                           plan.kernel(), plan.workspace_bytes(), describe(plan.problem())));
}

// Whether the plan's runs are enqueued on the caller's stream.
bool is_enqueued(const Plan& plan) {
  return plan.device().type != ATTNRT_DEVICE_CPU && plan.staging() == nullptr;
}

// Asks the decision's winner whether a graph is being captured on the stream. Staged tensors are on
// the host, and their copies on a stream of the plan's own.
Result<void> find_capture_for(const Request& request, Capture* capture) {
  const Verdict& winner = *request.decision->winner();
  if (!request.stream || winner.staged) return {};
  attnrt_error error = ATTNRT_ERROR_INIT;
  const attnrt_status status = find_capture(*winner.candidate.backend, winner.candidate.device,
                                            *request.stream, capture, &error);
  if (status != ATTNRT_OK) return fail(status, "{}", error.message);
  return {};
}

std::string text_of(const Candidate& candidate) {
  return plugin_label(*candidate.plugin) + " on " + device_text(candidate.device);
}

// What failures are told apart by in the log.
std::string cause_of(Breaker::Stage stage, attnrt_status status) {
  return fmt::format("{} {}", stage == Breaker::Stage::plan ? "plan" : "run", status);
}

void log_once(const Services& services, const Error& failure) {
  services.log(ATTNRT_LOG_WARNING, fmt::format("{} ({}); this is said once, and counted each time",
                                               failure.message, status_name(failure.code)));
}

// A plan that goes back to the cache at the end, also if an exception passes.
class Returned {
 public:
  Returned(PlanCache& plans, PlanCache::Taken taken) : plans_(plans), taken_(std::move(taken)) {}
  Returned(const Returned&) = delete;
  Returned& operator=(const Returned&) = delete;
  ~Returned() { plans_.put_back(std::move(taken_)); }
  PlanCache::Entry& entry() { return taken_.front(); }

 private:
  PlanCache& plans_;
  PlanCache::Taken taken_;
};

}  // namespace

void Failover::restart() {
  breaker_.forget_lost_devices();
  warned_.forget();
  events_.forget();
}

// Whether that event of the candidate has not been seen since the last reload.
bool Failover::is_first(const CandidateId& candidate, std::string_view event) {
  const std::string_view hash(candidate.hash.data(), candidate.hash.size());
  const std::string text =
      fmt::format("{} {} {} {}", hash, candidate.device_type, candidate.device_id, event);
  return events_.note(std::hash<std::string>()(text)) != Warned::Answer::again;
}

bool Failover::note_failure(const Snapshot& snapshot, const Candidate& candidate,
                            const Problem& rounded, Breaker::Stage stage, const Error& failure,
                            bool told) {
  const CandidateId id = id_of(candidate);
  const Breaker::Opened opened = breaker_.failed(id, rounded, stage, failure.code, now());
  if (opened) stats_.of(candidate)->opened(opened.count());
  const Services& services = *snapshot.services;
  if (!told && is_first(id, cause_of(stage, failure.code))) log_once(services, failure);
  if (opened.every_problem && is_first(id, "every problem")) {
    services.log(ATTNRT_LOG_WARNING,
                 fmt::format("select: {} is in quarantine for every problem, since it failed at "
                             "several; the last failure: {}",
                             text_of(candidate), failure.message));
  }
  return bool{opened};
}

bool Failover::begin_trial(const Snapshot& snapshot, const Candidate& candidate,
                           const Problem& rounded) {
  const CandidateId id = id_of(candidate);
  if (!breaker_.begin_trial(id, rounded, now())) return false;
  stats_.of(candidate)->began_trial();
  if (is_first(id, "trial")) {
    snapshot.services->log(
        ATTNRT_LOG_INFO,
        fmt::format("select: {} is tried again, after its quarantine", text_of(candidate)));
  }
  return true;
}

bool Failover::warn(const Snapshot& snapshot, const CacheKey& key, const std::string& subject,
                    const std::string& text) {
  if (snapshot.config->on_fallback.value == OnFallback::allow) return false;
  const auto answer = warned_.note(key.hash ^ std::hash<std::string>()(subject));
  if (answer == Warned::Answer::again) return false;
  snapshot.services->log(ATTNRT_LOG_WARNING, text);
  if (answer == Warned::Answer::first) return true;
  snapshot.services->log(
      ATTNRT_LOG_WARNING,
      fmt::format("select: {} warnings of a fallback were given; further ones are left out until "
                  "the next reload",
                  Warned::kMost));
  return true;
}

// Plans the decision's winner. If that runs out of memory, gives back what idle plans hold and
// plans it once more, but not while a graph is being captured.
Result<std::unique_ptr<Plan>> Failover::make(const Request& request, const Problem& problem,
                                             const Capture& capture) {
  const std::optional<void*> stream = capture.active ? std::nullopt : request.stream;
  auto stats = stats_.of(request.decision->winner()->candidate);
  auto plan = make_plan(request.decision, problem, stream);
  if (!plan && plan.error().code == ATTNRT_OUT_OF_MEMORY && !capture.active && !request.is_shadow &&
      plans_.trim(-1))
    plan = make_plan(request.decision, problem, stream);
  if (!plan) {
    const Error& failure = plan.error();
    stats->failed(Breaker::Stage::plan, failure.code, failure.message.c_str());
    if (Rollout* rollout = request.decision->rollout())
      rollout->failed(failure.code, failure.message);
    return plan;
  }
  stats->made_plan();
  (*plan)->count_in(std::move(stats));
  const Services& services = *request.snapshot->services;
  if (services.logs_info()) log_plan(services, **plan);
  return plan;
}

// Tells the breaker of the failure, and makes the next candidate the decision's winner. Returns
// false if it is not tried.
bool Failover::advance(Request& request, Breaker::Stage stage, Error& failure) {
  const Candidate failed = request.decision->winner()->candidate;
  const std::shared_ptr<const Snapshot> snapshot = request.snapshot;
  const Error first = failure;  // without what replace_winner adds
  note_failure(*snapshot, failed, request.rounded(), stage, failure, true);
  bool told = false;
  const bool continues = replace_winner(request, failure, &told);
  if (continues) stats_.of(failed)->failed_over();
  const bool callers_fault = failure.code == ATTNRT_INVALID_ARGUMENT;
  if (!callers_fault && is_first(id_of(failed), cause_of(stage, failure.code)) && !told)
    log_once(*snapshot->services, first);
  return continues;
}

// The second half of advance. told: gets whether a warning was written.
bool Failover::replace_winner(Request& request, Error& failure, bool* told) {
  const Candidate failed = request.decision->winner()->candidate;
  if (!another_may_succeed(failure.code)) return false;
  const Policy policy(request.snapshot->config, request.call);
  Decision next = without_winner(policy, *request.decision, failure.message);
  if (next.status != ATTNRT_OK) {
    const auto& on_fallback = request.snapshot->config->on_fallback;
    if (!next.fallback.empty() && on_fallback.value == OnFallback::error) {
      failure.message += fmt::format("; on_fallback is error ({}), so no other backend is tried",
                                     on_fallback.origin);
    }
    return false;
  }
  request.decision = std::make_shared<const Decision>(std::move(next));
  decision_log_.add(*request.decision, *request.snapshot->services);
  *told = warn(*request.snapshot, request.key, plugin_label(*failed.plugin),
               fmt::format("{} ({}); the next candidate is tried", failure.message,
                           status_name(failure.code)));
  return true;
}

void Failover::note_success(const Request& request, Breaker::Stage stage) {
  if (breaker_.empty()) return;
  const Candidate& candidate = request.decision->winner()->candidate;
  const CandidateId id = id_of(candidate);
  const size_t closed = breaker_.succeeded(id, request.rounded(), stage);
  if (closed == 0) return;
  stats_.of(candidate)->closed(static_cast<int64_t>(closed));
  if (is_first(id, "closed")) {
    request.snapshot->services->log(
        ATTNRT_LOG_INFO,
        fmt::format("select: {} is out of quarantine: it succeeded", text_of(candidate)));
  }
}

// Whether the version in rollout gets this call.
bool Failover::takes_challenge(const Request& request) {
  const auto& challenge = request.decision->challenge;
  return challenge != nullptr && challenge->rollout()->phase() == Phase::canary &&
         challenge->rollout()->takes_call();
}

// Runs a call that was served on the version in rollout, too, if that takes it. Never throws.
void Failover::shadow(const Request& request, const attnrt_args& args) {
  const auto& challenge = request.decision->challenge;
  if (challenge == nullptr || request.decision->problem.device_type != ATTNRT_DEVICE_CPU) return;
  Rollout& rollout = *challenge->rollout();
  if (rollout.phase() != Phase::shadow || !rollout.takes_call()) return;
  try {
    const Shadow shadow(request.exact(), args);
    const Request compared{request.snapshot, challenge,      request.call, request.key,
                           request.bounds,   request.stream, true};
    Breaker::Stage stage = Breaker::Stage::plan;
    attnrt_error error = ATTNRT_ERROR_INIT;
    const attnrt_status status = attempt(compared, {}, shadow.args(), &stage, &error);
    if (status == ATTNRT_INVALID_ARGUMENT) return rollout.refused(error.message);
    // A device that is lost shows at the next call that is served: none is, here.
    if (status != ATTNRT_OK && status != ATTNRT_DEVICE_LOST) {
      note_failure(*request.snapshot, challenge->winner()->candidate, request.rounded(), stage,
                   {status, error.message}, !rollout.is_open());
    }
    if (status != ATTNRT_OK) return;
    const auto difference = shadow.difference();
    if (!difference) return;
    if (!difference->empty()) return rollout.mismatched(*difference);
    rollout.compared();
  } catch (const std::exception&) {
    return;  // the call itself was served
  }
}

// A version in rollout failed: makes the decision without it the call's. RETURNS false if that
// cannot succeed, either. refused: gets what it refused, which another candidate may serve.
bool Failover::go_back(Request& request, std::shared_ptr<const Decision> base, Breaker::Stage stage,
                       const Error& failure) {
  const Verdict failed = *request.decision->winner();
  const bool on_host = failed.candidate.device.type == ATTNRT_DEVICE_CPU;
  const bool is_lost = failure.code == ATTNRT_DEVICE_LOST;
  if (failure.code != ATTNRT_INVALID_ARGUMENT && !(is_lost && on_host)) {
    note_failure(*request.snapshot, failed.candidate, request.rounded(), stage, failure,
                 !failed.rollout->is_open());
  }
  if (is_lost && !on_host) return false;
  stats_.of(failed.candidate)->failed_over();
  request.decision = std::move(base);
  return true;
}

// Calls attempt(capture, &stage) for the decision's winner, and for the next candidate as long as
// one fails and another may succeed. asked_at: the stage of a candidate that cannot tell whether a
// graph is being captured.
template <class Attempt>
Result<void> Failover::serve(Request& request, Breaker::Stage asked_at, Attempt&& attempt) {
  std::optional<Error> untold;  // of a candidate that could not tell
  bool may_challenge = true;
  std::shared_ptr<const Decision> base;  // while its challenge is tried
  // A version in rollout that refused the caller's arguments, and what it said.
  std::shared_ptr<Rollout> refusing;
  std::string refusal;
  for (;;) {
    Capture capture;
    Breaker::Stage stage = asked_at;
    Result<void> done = find_capture_for(request, &capture);
    const bool takes =
        done && !untold && !capture.active && may_challenge && takes_challenge(request);
    may_challenge = false;
    if (takes) {
      base = std::exchange(request.decision, request.decision->challenge);
      continue;
    }
    if (!done) {
      untold = done.error();
      const Verdict& winner = *request.decision->winner();
      stats_.of(winner.candidate)->failed(stage, untold->code, untold->message.c_str());
      if (winner.rollout != nullptr) winner.rollout->failed(untold->code, untold->message);
    } else if (capture.active && untold) {
      return tl::unexpected(*std::move(untold));
    } else {
      done = attempt(capture, &stage);
    }
    if (done && !capture.active) note_success(request, stage);
    if (done && refusing != nullptr) refusing->refused(refusal);
    if (done || capture.active) return done;
    if (base != nullptr) {
      if (done.error().code == ATTNRT_INVALID_ARGUMENT) {
        refusing = request.decision->winner()->rollout;
        refusal = done.error().message;
      }
      if (!go_back(request, std::exchange(base, nullptr), stage, done.error())) return done;
    } else if (!advance(request, stage, done.error())) {
      return done;
    }
  }
}

Result<std::unique_ptr<Plan>> Failover::plan(Request request) {
  std::unique_ptr<Plan> plan;
  const auto done = serve(request, Breaker::Stage::plan,
                          [&](const Capture& capture, Breaker::Stage*) -> Result<void> {
                            auto made = make(request, request.exact(), capture);
                            if (!made) return tl::unexpected(made.error());
                            plan = *std::move(made);
                            return {};
                          });
  if (!done) return tl::unexpected(done.error());
  return plan;
}

// Runs the decision's winner once: takes its plan out of the cache or makes one, runs it and puts
// it back. What may have been enqueued by a run that failed is waited for like any other.
attnrt_status Failover::attempt(const Request& request, const Capture& capture,
                                const attnrt_args& args, Breaker::Stage* stage,
                                attnrt_error* error) {
  const Candidate& candidate = request.decision->winner()->candidate;
  if (capture.active && capture.id == 0) {
    return attnrt_fail(error, ATTNRT_UNSUPPORTED,
                       "run: %s: work on this stream would invalidate another stream's capture; "
                       "use the stream that is being captured",
                       candidate.plugin->manifest->name.c_str());
  }
  *stage = Breaker::Stage::plan;
  PlanCache::Taken taken =
      plans_.take({request.key, request.call, candidate.backend.get(), candidate.device,
                   request.snapshot.get(), request.bounds, args.stream, capture});
  if (taken.empty()) {
    const Problem widest = widest_accepted(candidate, request.exact(), request.rounded());
    auto made = make(request, widest, capture);
    if (!made) return fill_error(error, made.error());
    taken.push_back({request.key, request.call, request.snapshot, std::move(*made)});
  }
  Returned returned(plans_, std::move(taken));
  PlanCache::Entry& entry = returned.entry();
  entry.stream = args.stream;
  // A plan that cannot be captured is refused before it enqueues anything, and stays a usual one.
  if (capture.active && entry.plan->capturable()) {
    entry.capture = capture;
    entry.captured_by = std::this_thread::get_id();
  }
  *stage = Breaker::Stage::run;
  attnrt_error found = ATTNRT_ERROR_INIT;
  attnrt_status status = entry.event.order(args.stream, &found);
  bool event_failed = status != ATTNRT_OK;
  if (!event_failed) {
    status = core::run(*entry.plan, args, error);
    if (is_enqueued(*entry.plan) && !capture.active) {
      const attnrt_status recorded =
          entry.event.record(candidate.backend, candidate.device.id, args.stream, &found);
      // If the run failed as well, its failure is the one to tell.
      event_failed = status == ATTNRT_OK && recorded != ATTNRT_OK;
      if (event_failed) status = recorded;
    }
  }
  if (event_failed) {
    const char* message = found.message[0] != '\0' ? found.message : status_name(status);
    entry.plan->stats()->failed(Breaker::Stage::run, status, message);
    if (Rollout* rollout = entry.plan->decision().rollout()) rollout->failed(status, message);
    (void)attnrt_fail(error, status, "run: %s: %s", entry.plan->backend_name().c_str(), message);
  }
  return status;
}

attnrt_status Failover::attend(Request request, const attnrt_args& args, attnrt_error* error) {
  const auto done = serve(request, Breaker::Stage::run,
                          [&](const Capture& capture, Breaker::Stage* stage) -> Result<void> {
                            attnrt_error found = ATTNRT_ERROR_INIT;
                            const attnrt_status status =
                                attempt(request, capture, args, stage, &found);
                            if (status != ATTNRT_OK) return fail(status, "{}", found.message);
                            return {};
                          });
  if (!done) return fill_error(error, done.error());
  shadow(request, args);
  return ATTNRT_OK;
}

}  // namespace attnrt::core
