// runtime/src/cache.hpp: a problem seen before into the decision or the idle plan that it already has
#pragma once

#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "plan.hpp"
#include "policy.hpp"
#include "runtime.hpp"

namespace attnrt::core {

inline bool same_problem(const Problem& a, const Problem& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

inline uint64_t hash_of(const Problem& problem) {
  static_assert(sizeof(Problem) % sizeof(uint64_t) == 0);
  uint64_t words[sizeof(Problem) / sizeof(uint64_t)];
  std::memcpy(words, &problem, sizeof problem);
  uint64_t hash = 0x9E3779B97F4A7C15;
  for (const uint64_t word :
       words) {  // a multiply and a rotation for each word: FxHash, as compilers use it
    hash = ((hash << 5 | hash >> 59) ^ word) * 0x517CC1B727220A95;
  }
  return hash;
}

// Decisions by problem and call of the current snapshot, the least recently used dropped first. THREADS: any.
class DecisionCache {
 public:
  static constexpr size_t kCapacity = 256;

  std::shared_ptr<const Decision> find(const Snapshot* snapshot, const Problem& problem,
                                       const Call& call) {
    const uint64_t hash = hash_of(problem);
    const std::lock_guard lock(mutex_);
    auto [at, end] = by_hash_.equal_range(hash);
    for (; at != end; ++at) {
      const Entry& entry = *at->second;
      if (entry.snapshot.get() != snapshot || !same_problem(entry.problem, problem) ||
          entry.call != call)
        continue;
      entries_.splice(entries_.begin(), entries_, at->second);
      return entry.decision;
    }
    return nullptr;
  }

  // False: another thread was first, or the snapshot is no longer the current one.
  bool insert(std::shared_ptr<const Snapshot> snapshot, const Problem& problem, const Call& call,
              std::shared_ptr<const Decision> decision) {
    const uint64_t hash = hash_of(problem);
    const std::lock_guard lock(mutex_);
    if (snapshot.get() != current_) return false;
    for (auto [same, last] = by_hash_.equal_range(hash); same != last; ++same) {
      if (same_problem(same->second->problem, problem) && same->second->call == call) return false;
    }
    entries_.push_front({hash, std::move(snapshot), problem, call, std::move(decision)});
    by_hash_.emplace(hash, entries_.begin());
    if (entries_.size() <= kCapacity) return true;
    auto [at, end] = by_hash_.equal_range(entries_.back().hash);
    while (at != end && at->second != std::prev(entries_.end())) ++at;
    if (at != end) by_hash_.erase(at);
    entries_.pop_back();
    return true;
  }

  // From now on only decisions of this snapshot are kept.
  void restart(const Snapshot* current) {
    std::list<Entry>
        dropped;  // destroyed after the lock: a backend may be closed with its last decision
    const std::lock_guard lock(mutex_);
    current_ = current;
    by_hash_.clear();
    dropped.swap(entries_);
  }

  size_t size() {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  struct Entry {
    uint64_t hash;
    std::shared_ptr<const Snapshot> snapshot;  // the entry counts only for this one
    Problem problem;
    Call call;
    std::shared_ptr<const Decision> decision;
  };
  std::mutex mutex_;
  const Snapshot* current_ = nullptr;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_multimap<uint64_t, std::list<Entry>::iterator> by_hash_;
};

// Idle plans of one-shot calls. A call takes one out, runs it and puts it back, so a plan never has two runs at once, and
// a hit moves a list node and allocates nothing. THREADS: any.
class PlanCache {
 public:
  static constexpr size_t kCapacity = 64;
  struct Entry {
    uint64_t hash;
    std::shared_ptr<const Snapshot> snapshot;
    Problem problem;
    Call call;
    void* stream;  // a plan stays in the order of one stream
    std::shared_ptr<const Decision> decision;
    std::unique_ptr<Plan> plan;
    size_t candidate;  // its place in the decision: failing over goes on from there
  };
  using Taken = std::list<Entry>;  // empty, or one entry

  Taken take(const Snapshot* snapshot, const Problem& problem, const Call& call, void* stream) {
    const uint64_t hash = hash_of(problem);
    Taken taken;
    const std::lock_guard lock(mutex_);
    for (auto entry = idle_.begin(); entry != idle_.end(); ++entry) {
      if (entry->hash != hash || entry->stream != stream || entry->snapshot.get() != snapshot)
        continue;
      if (!same_problem(entry->problem, problem) || entry->call != call) continue;
      taken.splice(taken.begin(), idle_, entry);
      break;
    }
    return taken;
  }

  // keep_all: nothing is given back now (a stream is capturing). Else a plan of an earlier snapshot is not kept: nobody
  // would find it, and it would hold its backend.
  void put_back(Taken taken, bool keep_all) {
    Taken dropped;  // destroyed after the lock: giving device memory back waits for the device
    const std::lock_guard lock(mutex_);
    const bool stale = !taken.empty() && taken.front().snapshot.get() != current_;
    Taken& place = stale && !keep_all ? dropped : idle_;
    place.splice(place.begin(), taken);
    while (!keep_all && idle_.size() > kCapacity)
      dropped.splice(dropped.begin(), idle_, std::prev(idle_.end()));
  }

  // From now on only plans of this snapshot are kept.
  void restart(const Snapshot* current) {
    Taken dropped;
    const std::lock_guard lock(mutex_);
    current_ = current;
    dropped.swap(idle_);
  }

  // Gives back the memory of all idle plans; false: there were none.
  bool drop_idle() {
    Taken dropped;
    const std::lock_guard lock(mutex_);
    dropped.swap(idle_);
    return !dropped.empty();
  }

  size_t size() {
    const std::lock_guard lock(mutex_);
    return idle_.size();
  }

 private:
  std::mutex mutex_;
  const Snapshot* current_ = nullptr;
  Taken idle_;  // most recently used first
};

}  // namespace attnrt::core
