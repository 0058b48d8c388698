// runtime/src/cache.hpp: caches decisions by problem, and idle plans of one-shot calls
//
// Both caches have the same key and the same bound:
//   key     (snapshot, Problem, Call), and for plans the stream. A Problem has no padding, and
//           check_problem gives equal problems equal bytes, so it is hashed and compared as bytes.
//   bound   a fixed number of entries; the least recently used one goes first. Entries are in a
//           list, most recently used first, so that a hit moves a list node and allocates nothing.
//   reload  restart() drops everything. A call that began earlier finishes on its own snapshot, and
//           what it brings back afterwards is not kept: no later call could use it, and it would
//           keep the old snapshot's backends open.
// What restart, put_back and drop_idle drop is destroyed after the lock is released: destroying the
// last decision of a snapshot may close a backend, and destroying a plan gives device memory back,
// which waits for the device.
#pragma once

#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "plan.hpp"
#include "policy.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

// FxHash, which compilers use for their tables: a rotation, an xor and a multiplication for each
// word.
inline uint64_t hash_of(const Problem& problem) {
  static_assert(sizeof(Problem) % sizeof(uint64_t) == 0);
  uint64_t words[sizeof(Problem) / sizeof(uint64_t)];
  std::memcpy(words, &problem, sizeof problem);
  uint64_t hash = 0x9E3779B97F4A7C15;
  for (const uint64_t word : words) hash = ((hash << 5 | hash >> 59) ^ word) * 0x517CC1B727220A95;
  return hash;
}

// THREADS: any call from any threads at once.
class DecisionCache {
 public:
  static constexpr size_t kCapacity = 256;  // decisions

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

  // Returns false, and keeps nothing, if another thread was first or the snapshot is no longer the
  // current one.
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
    if (entries_.size() > kCapacity) drop_oldest();
    return true;
  }

  // Drops everything. From now on only decisions of this snapshot are kept.
  void restart(const Snapshot* current) {
    std::list<Entry> dropped;
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
    std::shared_ptr<const Snapshot> snapshot;
    Problem problem;
    Call call;
    std::shared_ptr<const Decision> decision;
  };

  void drop_oldest() {
    auto [at, end] = by_hash_.equal_range(entries_.back().hash);
    while (at != end && at->second != std::prev(entries_.end())) ++at;
    if (at != end) by_hash_.erase(at);
    entries_.pop_back();
  }

  std::mutex mutex_;
  const Snapshot* current_ = nullptr;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_multimap<uint64_t, std::list<Entry>::iterator> by_hash_;
};

// A call takes a plan out, runs it and puts it back, so that a plan never has two runs at once.
// THREADS: any call from any threads at once.
class PlanCache {
 public:
  static constexpr size_t kCapacity = 64;  // idle plans
  struct Entry {
    uint64_t hash;  // of the problem
    std::shared_ptr<const Snapshot> snapshot;
    Problem problem;
    Call call;
    void* stream;  // a plan stays in the order of one stream
    std::shared_ptr<const Decision> decision;
    std::unique_ptr<Plan> plan;
    size_t candidate;  // its index in the decision's verdicts; failover goes on from there
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

  // keep_all: drops no plan, not even an outdated one or one beyond the capacity. For a stream that
  // is capturing, when no device memory may be given back.
  void put_back(Taken taken, bool keep_all) {
    Taken dropped;
    const std::lock_guard lock(mutex_);
    const bool outdated = !taken.empty() && taken.front().snapshot.get() != current_;
    Taken& target = outdated && !keep_all ? dropped : idle_;
    target.splice(target.begin(), taken);
    while (!keep_all && idle_.size() > kCapacity)
      dropped.splice(dropped.begin(), idle_, std::prev(idle_.end()));
  }

  // Drops everything. From now on only plans of this snapshot are kept.
  void restart(const Snapshot* current) {
    Taken dropped;
    const std::lock_guard lock(mutex_);
    current_ = current;
    dropped.swap(idle_);
  }

  // Drops all idle plans, to give their memory back. Returns false if there were none.
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
