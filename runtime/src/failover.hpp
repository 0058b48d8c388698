// runtime/src/failover.hpp: makes and runs plans, and says when the next candidate is tried instead
//
// A decision lists its candidates best first. Where one fails, the next may succeed:
//
//     candidate 0:  plan --> run --> done
//                     | fails  | fails
//                     v        v
//     candidate 1:  plan --> run --> done      and so on, to the last candidate that answered yes
//
// The next candidate is tried only if
//   - the status says that another backend may succeed: UNSUPPORTED, OUT_OF_MEMORY or INTERNAL.
//     INVALID_ARGUMENT is the caller's fault, and after DEVICE_LOST nothing is retried;
//   - no backend was asked for by name, since then that one serves the call or the call fails;
//   - for a run, the stream is not capturing a graph, since another plan would allocate memory,
//     which a capture forbids.
//
// A failed run can be repeated with other backends because inputs are const, and output is
// undefined until a run succeeds (plugin.h).
#pragma once

#include <atomic>
#include <memory>

#include "cache.hpp"
#include "plan.hpp"

namespace attnrt::core {

struct PlannedCandidate {
  std::unique_ptr<Plan> plan;
  size_t candidate;  // its index in the decision's verdicts
};

// THREADS: any call from any threads at once.
class Failover {
 public:
  // idle_plans: if planning runs out of memory, they are dropped and the same candidate is planned
  // once more, before another one is tried.
  explicit Failover(PlanCache& idle_plans) : idle_plans_(idle_plans) {}

  // Plans the first candidate, from index `first` on, whose plan succeeds. Otherwise returns the
  // last one's error.
  // REQUIRES: verdicts[first] answered yes.
  Result<PlannedCandidate> plan(const Decision& decision, size_t first, const Services& services);

  // Runs the entry's plan. If that fails, plans and runs the next candidates, and leaves the plan
  // that succeeded in the entry, so that later calls begin with it. If they all fail, fills error
  // from the last one and leaves no plan in the entry, so that the next call begins with the best
  // candidate again.
  attnrt_status run(PlanCache::Entry& entry, const attnrt_args& args, bool capturing,
                    attnrt_error* error);

  int64_t plans_made() const { return plans_made_.load(std::memory_order_relaxed); }

 private:
  PlanCache& idle_plans_;
  std::atomic<int64_t> plans_made_{0};
};

}  // namespace attnrt::core
