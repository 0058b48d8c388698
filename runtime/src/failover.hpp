// runtime/src/failover.hpp: makes and runs plans, and says when the next candidate is tried instead
//
// A decision lists its candidates best first. Where one fails, the next may succeed:
//
//     first candidate:  plan --> run --> done
//                         | fails  | fails
//                         v        v
//     next candidate:   plan --> run --> done      and so on, to the last that answered yes
//
// The next candidate is tried only if
//   - the status says that another backend may succeed: UNSUPPORTED, OUT_OF_MEMORY or INTERNAL.
//     INVALID_ARGUMENT is the caller's fault, and after DEVICE_LOST nothing is retried;
//   - no backend was asked for by name, since then that one serves the call or the call fails;
//   - the policy's on_fallback is not error, or the next is another version of the same backend;
//   - no graph is being captured on the call's stream.
// The breaker hears of each failure and success, except while a graph is being captured. So later
// calls begin with the candidate that succeeded, until the one before it is due for a trial.
//
// Each candidate is asked whether a graph is being captured. One that cannot tell has failed, and
// has enqueued nothing. If the next one says that a graph is being captured, the call fails with
// the first one's error.
//
// Versions in rollout (rollout.hpp) get their calls here. A call that the canary takes begins with
// the decision's challenge, unless a graph is being captured; if that fails, it goes back to the
// decision, as if it had not been taken. A one-shot call on host tensors that a shadow takes is run
// on its candidate, too, after it was served.
//
// Each failure is counted. If no warning of a fallback tells of it, it is logged, once for each
// candidate, stage and status until the next reload.
//
// A failed run can be repeated with other backends because inputs are const, and output is
// undefined until a run succeeds (plugin.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "breaker.hpp"
#include "decision_log.hpp"
#include "plan.hpp"
#include "plan_cache.hpp"
#include "stats.hpp"
#include "warned.hpp"

namespace attnrt::core {

// What a call wants to be planned, and run if it is a one-shot call.
struct Request {
  std::shared_ptr<const Snapshot> snapshot;
  // Has a winner. For this problem or, in a one-shot call, for one with other bounds.
  std::shared_ptr<const Decision> decision;
  const Call& call;
  const CacheKey& key;
  Bounds bounds;                // exactly as they are asked
  std::optional<void*> stream;  // that its workspace follows
  bool is_shadow = false;       // of a call that was served: it takes no memory from others

  Problem exact() const { return with_bounds(decision->problem, bounds); }
  // What the breaker knows the problem by.
  Problem rounded() const { return with_bounds(decision->problem, bounds_of(key.problem)); }
};

// THREADS: any call from any threads at once.
class Failover {
 public:
  Failover(PlanCache& plans, Stats& stats, DecisionLog& log)
      : plans_(plans), stats_(stats), decision_log_(log) {}

  // Plans the first candidate whose plan succeeds. Otherwise returns the last one's error.
  Result<std::unique_ptr<Plan>> plan(Request request);

  // Runs a plan of the cache, or a new one, for the first candidate with which that succeeds.
  // Otherwise fills error from the last one.
  attnrt_status attend(Request request, const attnrt_args& args, attnrt_error* error);

  // Tells the breaker, and counts what it opens. Logs the failure, unless a warning of a fallback
  // has told of it. rounded: the problem as the breaker knows it. RETURNS whether it opened any.
  bool note_failure(const Snapshot& snapshot, const Candidate& candidate, const Problem& rounded,
                    Breaker::Stage stage, const Error& failure, bool told = false);
  // Begins the trial of a candidate that is due. RETURNS false if another call was first.
  bool begin_trial(const Snapshot& snapshot, const Candidate& candidate, const Problem& rounded);

  // Writes a warning of a fallback, if the policy wants it, once for each problem and text. RETURNS
  // whether it wrote it now.
  bool warn(const Snapshot& snapshot, const CacheKey& key, const std::string& subject,
            const std::string& text);

  Breaker& breaker() { return breaker_; }
  const Breaker& breaker() const { return breaker_; }
  // A reload: lost devices are looked for again, and warnings are given again.
  void restart();
  void set_clock(std::function<Breaker::Time()> clock) { clock_ = std::move(clock); }
  Breaker::Time now() const { return clock_ ? clock_() : Breaker::Clock::now(); }

 private:
  Result<std::unique_ptr<Plan>> make(const Request& request, const Problem& problem,
                                     const Capture& capture);
  attnrt_status attempt(const Request& request, const Capture& capture, const attnrt_args& args,
                        Breaker::Stage* stage, attnrt_error* error);
  template <class Attempt>
  Result<void> serve(Request& request, Breaker::Stage asked_at, Attempt&& attempt);
  void note_success(const Request& request, Breaker::Stage stage);
  static bool takes_challenge(const Request& request);
  bool go_back(Request& request, std::shared_ptr<const Decision> base, Breaker::Stage stage,
               const Error& failure);
  void shadow(const Request& request, const attnrt_args& args);
  bool advance(Request& request, Breaker::Stage stage, Error& failure);
  bool replace_winner(Request& request, Error& failure, bool* told);
  bool is_first(const CandidateId& candidate, std::string_view event);

  PlanCache& plans_;
  Stats& stats_;
  DecisionLog& decision_log_;
  Breaker breaker_;
  Warned warned_;  // of fallbacks
  Warned events_;  // of failures and of the breaker
  std::function<Breaker::Time()> clock_;
};

}  // namespace attnrt::core
