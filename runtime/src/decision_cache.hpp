// runtime/src/decision_cache.hpp: the decisions that were made, by problem
//
//   key     (snapshot, CacheKey, Call). Problems of one key differ in batch, seq_q and seq_kv; a
//           decision holds for those between `least` and `most`.
//   bound   a fixed number of entries; the least recently used one goes first. Entries are in a
//           list, most recently used first, so that a hit moves a list node and allocates nothing.
//   stale   a decision is found only as long as the breaker's generation is the one it was made in.
//   reload  restart() drops everything. A call that began earlier finishes on its own snapshot, and
//           what it brings back afterwards is not kept: no later call could use it, and it would
//           keep the old snapshot's backends open.
// What is dropped is destroyed after the lock is released: destroying the last decision of a
// snapshot may close a backend.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/fork.hpp"
#include "bounds.hpp"
#include "policy.hpp"
#include "select.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

// A decision, and the bounds of the problems of its key that it holds for.
struct Choice {
  std::shared_ptr<const Decision> decision;
  Bounds least, most;
  uint64_t generation = 0;  // of the breaker, when it was made
};

// THREADS: any call from any threads at once.
class DecisionCache {
 public:
  static constexpr size_t kCapacity = 256;  // decisions

  // exactly: only the decision that was made for these very bounds.
  std::shared_ptr<const Decision> find(const Snapshot* snapshot, const CacheKey& key,
                                       const Call& call, const Bounds& bounds, uint64_t generation,
                                       bool exactly) {
    const std::lock_guard lock(mutex_);
    auto [at, end] = by_hash_.equal_range(key.hash);
    for (; at != end; ++at) {
      const Entry& entry = *at->second;
      if (entry.snapshot.get() != snapshot || entry.choice.generation != generation ||
          !holds(entry.choice, bounds, exactly) || entry.key != key || entry.call != call)
        continue;
      entries_.splice(entries_.begin(), entries_, at->second);
      ++lookups_.hits;
      return entry.choice.decision;
    }
    ++lookups_.misses;
    return nullptr;
  }

  // Returns false, and keeps nothing, if another thread was first or the snapshot is no longer the
  // current one. Replaces what an earlier generation decided for the key.
  bool insert(std::shared_ptr<const Snapshot> snapshot, const CacheKey& key, const Call& call,
              Choice choice) {
    std::list<Entry> dropped;
    const std::lock_guard lock(mutex_);
    if (snapshot.get() != current_) return false;
    auto [same, last] = by_hash_.equal_range(key.hash);
    while (same != last) {
      const auto entry = same->second;
      ++same;
      if (entry->key != key || entry->call != call) continue;
      if (entry->choice.generation != choice.generation) {
        drop(entry, dropped);
      } else if (entry->choice.least == choice.least && entry->choice.most == choice.most) {
        return false;
      }
    }
    entries_.push_front({std::move(snapshot), key, call, std::move(choice)});
    by_hash_.emplace(key.hash, entries_.begin());
    if (entries_.size() > kCapacity) drop(std::prev(entries_.end()), dropped);
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

  // How often `find` found something, since the runtime was opened.
  struct Lookups {
    int64_t hits = 0, misses = 0;
  };
  Lookups lookups() {
    const std::lock_guard lock(mutex_);
    return lookups_;
  }

 private:
  struct Entry {
    std::shared_ptr<const Snapshot> snapshot;
    CacheKey key;
    Call call;
    Choice choice;
  };

  static bool holds(const Choice& choice, const Bounds& bounds, bool exactly) {
    if (exactly) return bounds_of(choice.decision->problem) == bounds;
    return within(choice.least, bounds) && within(bounds, choice.most);
  }

  void drop(std::list<Entry>::iterator entry, std::list<Entry>& dropped) {
    auto [at, end] = by_hash_.equal_range(entry->key.hash);
    while (at != end && at->second != entry) ++at;
    if (at != end) by_hash_.erase(at);
    dropped.splice(dropped.end(), entries_, entry);
  }

  HeldMutex mutex_;
  Lookups lookups_;
  const Snapshot* current_ = nullptr;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_multimap<uint64_t, std::list<Entry>::iterator> by_hash_;
};

}  // namespace attnrt::core
