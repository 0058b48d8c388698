// runtime/src/plan_cache.cpp: the plans of one-shot calls, between their runs
#include "plan_cache.hpp"

#include <utility>

namespace attnrt::core {

PlanCache::~PlanCache() {
  for (Taken* list : {&idle_, &retired_}) {
    for (Entry& entry : *list) entry.event.wait();
  }
}

// Whether the entry's plan can serve the call, if it is in the right order.
bool PlanCache::fits(const Entry& entry, const Wanted& wanted) {
  if (entry.key != wanted.key || entry.snapshot.get() != wanted.snapshot ||
      entry.call != wanted.call)
    return false;
  if (entry.plan == nullptr) return true;  // in a test of the cache alone
  const Plan& plan = *entry.plan;
  return &plan.backend() == wanted.backend && plan.device().type == wanted.device.type &&
         plan.device().id == wanted.device.id && within(wanted.bounds, bounds_of(plan.problem()));
}

PlanCache::Taken PlanCache::take_captured(const Wanted& wanted) {
  Taken taken;
  const std::lock_guard lock(mutex_);
  for (auto entry = captured_.begin(); entry != captured_.end(); ++entry) {
    if (entry->capture.id != wanted.capture.id || entry->stream != wanted.stream ||
        entry->captured_by != std::this_thread::get_id() || !fits(*entry, wanted))
      continue;
    taken.splice(taken.begin(), captured_, entry);
    break;
  }
  ++(taken.empty() ? misses_ : hits_);
  return taken;
}

PlanCache::Taken PlanCache::take(const Wanted& wanted) {
  if (wanted.capture.active) return take_captured(wanted);
  Taken taken;
  bool same_stream = false;
  size_t plans = 0;
  {
    const std::lock_guard lock(mutex_);
    auto found = idle_.end();
    for (auto entry = idle_.begin(); entry != idle_.end() && !same_stream; ++entry) {
      if (!fits(*entry, wanted)) continue;
      ++plans;
      found = entry;  // so the least recently used one, unless one was last used on this stream
      same_stream = entry->stream == wanted.stream;
    }
    ++(found == idle_.end() ? misses_ : hits_);
    if (found == idle_.end()) return taken;
    idle_bytes_ -= found->bytes;
    taken.splice(taken.begin(), idle_, found);
  }
  if (same_stream || plans >= kPlansOfAKey || taken.front().event.passed()) return taken;
  put_back(std::move(taken));
  const std::lock_guard lock(mutex_);
  --hits_;
  ++misses_;
  return {};
}

void PlanCache::retire_oldest() {
  idle_bytes_ -= idle_.back().bytes;
  retired_.splice(retired_.end(), idle_, std::prev(idle_.end()));
}

// Takes retired plans out whose runs have passed, of the first `most`. Asks for them without the
// lock, since that calls the plugin.
PlanCache::Taken PlanCache::passed(size_t most) {
  Taken looked_at, done;
  {
    const std::lock_guard lock(mutex_);
    for (; most > 0 && !retired_.empty(); --most)
      looked_at.splice(looked_at.end(), retired_, retired_.begin());
  }
  for (auto entry = looked_at.begin(); entry != looked_at.end();) {
    const auto next = std::next(entry);
    if (entry->event.passed()) done.splice(done.end(), looked_at, entry);
    entry = next;
  }
  const std::lock_guard lock(mutex_);
  retired_.splice(retired_.end(), looked_at);
  return done;
}

void PlanCache::put_back(Taken taken) {
  if (taken.empty()) return;
  Entry& entry = taken.front();
  entry.bytes = entry.plan != nullptr ? entry.plan->held_bytes() : entry.bytes;
  {
    const std::lock_guard lock(mutex_);
    if (entry.capture.active) {
      captured_.splice(captured_.end(), taken);
      return;
    }
    if (entry.snapshot.get() != current_) {
      retired_.splice(retired_.end(), taken);
    } else {
      idle_bytes_ += entry.bytes;
      idle_.splice(idle_.begin(), taken);
      for (; !idle_.empty() && (idle_.size() > kCapacity || idle_bytes_ > most_bytes_);
           ++evictions_)
        retire_oldest();
    }
    if (retired_.empty()) return;
  }
  constexpr size_t kLookedAt = 8;  // so that a call costs no more if many runs are in flight
  passed(kLookedAt);
}

void PlanCache::restart(const Snapshot* current, int64_t most_bytes) {
  size_t retired = 0;
  {
    const std::lock_guard lock(mutex_);
    current_ = current;
    most_bytes_ = most_bytes;
    idle_bytes_ = 0;
    retired_.splice(retired_.end(), idle_);
    retired = retired_.size();
  }
  passed(retired);
}

bool PlanCache::trim(int64_t most_bytes) {
  Taken dropped;
  {
    const std::lock_guard lock(mutex_);
    while (!idle_.empty() && idle_bytes_ > most_bytes) retire_oldest();
    dropped.swap(retired_);
  }
  for (Entry& entry : dropped) entry.event.wait();
  return !dropped.empty();
}

size_t PlanCache::size() {
  const std::lock_guard lock(mutex_);
  return idle_.size();
}

int64_t PlanCache::bytes() {
  const std::lock_guard lock(mutex_);
  return idle_bytes_;
}

PlanCache::Report PlanCache::report() {
  Report report;
  const std::lock_guard lock(mutex_);
  report.hits = hits_;
  report.misses = misses_;
  report.evictions = evictions_;
  for (const Entry& entry : idle_)
    report.idle.emplace_back(entry.plan != nullptr ? entry.plan->stats() : nullptr, entry.bytes);
  return report;
}

}  // namespace attnrt::core
