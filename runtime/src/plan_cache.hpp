// runtime/src/plan_cache.hpp: the plans of one-shot calls, between their runs
//
//     take --> run --> put_back --> idle --> take ...
//                                    |  beyond the limit, trimmed, outdated
//                                    v
//                                 retired --> destroyed, when its last run has passed
//
//   key      (CacheKey, Call, backend, device). Not the stream: stream handles are used again for
//            other streams, and one handle may mean another stream to each thread.
//   order    each run of a device's plan records an event. A plan is taken when its event has
//            passed, or the next stream waits for the event; it is destroyed, and its workspace
//            freed, only when the event has passed.
//   limit    bytes that idle plans hold (the policy's plan_cache), and kCapacity plans; the least
//            recently used one goes first. What is retired counts no more, although it is held
//            until its run has passed.
//   capture  what a captured graph uses is never used by another call, and kept until close: the
//            graph may be launched at any time. The calls of one capture, stream and thread share
//            their plans.
//   reload   restart() retires everything.
// Plans are destroyed after the lock is released, since that calls the plugin.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/fork.hpp"
#include "bounds.hpp"
#include "capture.hpp"
#include "plan.hpp"
#include "policy.hpp"
#include "run_event.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

// THREADS: any call from any threads at once.
class PlanCache {
 public:
  static constexpr size_t kCapacity = 256;  // idle plans
  // If so many plans of one key are idle, and all of them still run, the next call waits for one of
  // them (on its stream) instead of making another.
  static constexpr size_t kPlansOfAKey = 4;

  struct Entry {
    CacheKey key;
    Call call;
    std::shared_ptr<const Snapshot> snapshot;
    std::unique_ptr<Plan> plan;
    RunEvent event{};               // passes with the plan's last run; destroyed before the plan
    void* stream = nullptr;         // of the last run
    int64_t bytes = 0;              // that the plan held when it was put back
    Capture capture{};              // that it belongs to
    std::thread::id captured_by{};  // the thread of that capture's calls
  };
  using Taken = std::list<Entry>;  // empty, or one entry

  // What a call needs.
  struct Wanted {
    const CacheKey& key;
    const Call& call;
    const Backend* backend;
    const Device& device;
    const Snapshot* snapshot;
    Bounds bounds;  // of its tensors; the plan's are at least these
    void* stream;
    Capture capture;
  };

  PlanCache() = default;
  PlanCache(const PlanCache&) = delete;
  PlanCache& operator=(const PlanCache&) = delete;
  // Waits for the runs of all plans. REQUIRES: all launches of graphs that use one have completed.
  ~PlanCache();

  // Takes a plan out, so that it never has two runs at once. If its event has not passed, the
  // caller makes its stream wait for it. Empty: the caller makes a plan.
  Taken take(const Wanted& wanted);

  // Takes back what take gave, or a new plan.
  void put_back(Taken taken);

  // Retires everything. From now on only plans of this snapshot are kept, up to so many bytes.
  void restart(const Snapshot* current, int64_t most_bytes);

  // Retires idle plans, the least recently used first, until the others hold at most so many bytes.
  // Waits for the runs of all that are retired, and destroys them. Returns whether there were any.
  bool trim(int64_t most_bytes);

  size_t size();    // idle plans
  int64_t bytes();  // that they hold

  struct Report {
    int64_t hits = 0, misses = 0;  // of take, since the cache was made
    int64_t evictions = 0;         // plans that were retired because of the limit
    // The idle plans' counters, and the bytes that each plan holds.
    std::vector<std::pair<const CandidateStats*, int64_t>> idle;
  };
  Report report();

 private:
  static bool fits(const Entry& entry, const Wanted& wanted);
  Taken take_captured(const Wanted& wanted);
  void retire_oldest();
  Taken passed(size_t most);

  HeldMutex mutex_;
  const Snapshot* current_ = nullptr;
  int64_t most_bytes_ = INT64_MAX;
  int64_t idle_bytes_ = 0;
  int64_t hits_ = 0, misses_ = 0, evictions_ = 0;
  Taken idle_;      // most recently used first
  Taken retired_;   // oldest first
  Taken captured_;  // of all captures, for ever
};

}  // namespace attnrt::core
