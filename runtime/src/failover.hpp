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
// A failed run can be repeated with other backends because inputs are const, and output is
// undefined until a run succeeds (plugin.h).
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "breaker.hpp"
#include "plan.hpp"
#include "plan_cache.hpp"
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

  Problem exact() const { return with_bounds(decision->problem, bounds); }
  // What the breaker knows the problem by.
  Problem rounded() const { return with_bounds(decision->problem, bounds_of(key.problem)); }
};

// THREADS: any call from any threads at once.
class Failover {
 public:
  explicit Failover(PlanCache& plans) : plans_(plans) {}

  // Plans the first candidate whose plan succeeds. Otherwise returns the last one's error.
  Result<std::unique_ptr<Plan>> plan(Request request);

  // Runs a plan of the cache, or a new one, for the first candidate with which that succeeds.
  // Otherwise fills error from the last one.
  attnrt_status attend(Request request, const attnrt_args& args, attnrt_error* error);

  // Writes a warning of a fallback, if the policy wants it, once for each problem and text.
  void warn(const Snapshot& snapshot, const CacheKey& key, const std::string& subject,
            const std::string& text);

  Breaker& breaker() { return breaker_; }
  const Breaker& breaker() const { return breaker_; }
  // A reload: lost devices are looked for again, and warnings are given again.
  void restart();
  void set_clock(std::function<Breaker::Time()> clock) { clock_ = std::move(clock); }
  Breaker::Time now() const { return clock_ ? clock_() : Breaker::Clock::now(); }

  int64_t plans_made() const { return plans_made_.load(std::memory_order_relaxed); }

 private:
  Result<std::unique_ptr<Plan>> make(const Request& request, const Problem& problem,
                                     const Capture& capture);
  attnrt_status attempt(const Request& request, const Capture& capture, const attnrt_args& args,
                        Breaker::Stage* stage, attnrt_error* error);
  template <class Attempt>
  Result<void> serve(Request& request, Breaker::Stage asked_at, Attempt&& attempt);
  void note_success(const Request& request, Breaker::Stage stage);
  bool advance(Request& request, Breaker::Stage stage, Error& failure);

  PlanCache& plans_;
  Breaker breaker_;
  Warned warned_;
  std::function<Breaker::Time()> clock_;
  std::atomic<int64_t> plans_made_{0};
};

}  // namespace attnrt::core
