// runtime/src/stats.cpp: counts what each candidate did, and what the runtime did
#include "stats.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/utc.hpp"

namespace attnrt::core {
namespace {

constexpr std::array<const char*, CandidateStats::kStages> kStages{"plan", "run"};  // of Breaker
// What a failure may be, in the order of the reports. Any other status counts as INTERNAL.
constexpr std::array<attnrt_status, CandidateStats::kClasses> kStatuses{
    ATTNRT_UNSUPPORTED, ATTNRT_OUT_OF_MEMORY, ATTNRT_INVALID_ARGUMENT, ATTNRT_INTERNAL,
    ATTNRT_DEVICE_LOST};

size_t class_of(attnrt_status status) {
  auto found = std::find(kStatuses.begin(), kStatuses.end(), status);
  if (found == kStatuses.end())
    found = std::find(kStatuses.begin(), kStatuses.end(), ATTNRT_INTERNAL);
  return static_cast<size_t>(found - kStatuses.begin());
}

// The failures have no times and messages.
CandidateCounts counts_of(const CandidateStats::Sums& sums) {
  CandidateCounts counts{sums.plans,  sums.runs, sums.failovers, sums.opened, sums.trials,
                         sums.closed, {}};
  for (size_t stage = 0; stage < kStages.size(); ++stage) {
    for (size_t i = 0; i < kStatuses.size(); ++i) {
      const int64_t count = sums.failures.at(stage).at(i);
      if (count == 0) continue;
      counts.failures.push_back({kStages.at(stage), status_name(kStatuses.at(i)), count, "", ""});
    }
  }
  return counts;
}

}  // namespace

CandidateStats::CandidateStats(const Candidate& candidate)
    : name_(candidate.plugin->manifest->name),
      version_(candidate.plugin->manifest->version_text),
      sha256_(candidate.plugin->hash),
      device_(candidate.device) {}

// Threads differ in the address of their stack, which pthread_self is close to. The low bits are
// the same for all; the multiplication spreads the others over the highest four.
size_t CandidateStats::shard() {
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;
  constexpr int kUnusedBits = 64 - 4;
  static_assert(kShards == size_t{1} << (64 - kUnusedBits));
  return (static_cast<uint64_t>(pthread_self()) >> 12) * kGoldenRatio >> kUnusedBits;
}

void CandidateStats::failed(Breaker::Stage stage, attnrt_status status, const char* message) {
  Failures& failures = failures_.at(static_cast<size_t>(stage)).at(class_of(status));
  count(failures.count);
  const auto now = std::chrono::system_clock::now();
  const std::lock_guard lock(mutex_);
  failures.time = now;
  const size_t bytes = strnlen(message, failures.message.size() - 1);
  std::memcpy(failures.message.data(), message, bytes);
  failures.message.at(bytes) = '\0';
}

void CandidateStats::add_to(Sums& sums) const {
  const auto value = [](const std::atomic<int64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  sums.plans += value(plans_);
  for (const Shard& shard : runs_) sums.runs += value(shard.count);
  sums.failovers += value(failovers_);
  sums.opened += value(opened_);
  sums.trials += value(trials_);
  sums.closed += value(closed_);
  for (size_t stage = 0; stage < failures_.size(); ++stage) {
    for (size_t i = 0; i < failures_.at(stage).size(); ++i)
      sums.failures.at(stage).at(i) += value(failures_.at(stage).at(i).count);
  }
}

CandidateReport CandidateStats::report() const {
  CandidateReport report;
  report.name = name_;
  report.version = version_;
  report.sha256 = sha256_;
  report.device = device_name(device_.type);
  report.arch = device_.arch;
  report.device_id = device_.id;
  report.held_bytes = held_bytes_.load(std::memory_order_relaxed);
  Sums sums;
  add_to(sums);
  report.counts = counts_of(sums);
  auto each = report.counts.failures.begin();
  for (size_t stage = 0; stage < failures_.size(); ++stage) {
    for (size_t i = 0; i < failures_.at(stage).size(); ++i) {
      if (sums.failures.at(stage).at(i) == 0) continue;
      const Failures& last = failures_.at(stage).at(i);
      std::chrono::system_clock::time_point time;
      std::array<char, 256> message{};
      {
        const std::lock_guard lock(mutex_);
        time = last.time;
        message = last.message;
      }
      if (time != std::chrono::system_clock::time_point()) each->last_time = utc_text(time);
      each->message = message.data();
      ++each;
    }
  }
  return report;
}

bool Stats::is_present(const CandidateId& id) const {
  return std::binary_search(present_.begin(), present_.end(),
                            std::string_view(id.hash.data(), id.hash.size()));
}

std::shared_ptr<CandidateStats> Stats::find(const CandidateId& id) const {
  for (const Row& row : rows_) {
    if (row.id == id) return row.stats;
  }
  return nullptr;
}

std::shared_ptr<CandidateStats> Stats::of(const Candidate& candidate) {
  const CandidateId id(candidate.plugin->hash, candidate.device.type, candidate.device.id);
  {
    const std::lock_guard lock(mutex_);
    if (auto known = find(id)) return known;
  }
  auto made = std::make_shared<CandidateStats>(candidate);  // not under the lock: it has one, too
  const std::lock_guard lock(mutex_);
  if (auto known = find(id)) return known;
  rows_.push_back({id, made, is_present(id) ? 0 : restarts_});
  return made;
}

void Stats::restart(std::vector<std::string> hashes) {
  std::sort(hashes.begin(), hashes.end());
  std::vector<std::shared_ptr<CandidateStats>> dropped;  // destroyed after the lock is released
  const std::lock_guard lock(mutex_);
  dropped.reserve(rows_.size());
  ++restarts_;
  present_.swap(hashes);
  size_t gone = 0;
  for (Row& row : rows_) {
    if (is_present(row.id)) {
      row.gone_since = 0;
    } else {
      if (row.gone_since == 0) row.gone_since = restarts_;
      ++gone;
    }
  }
  // Rows of candidates that came first are first, and so are those that have been gone for longest
  // of those that went at once.
  for (; gone > kMostGone; --gone) {
    auto oldest = rows_.end();
    for (auto row = rows_.begin(); row != rows_.end(); ++row) {
      if (row->gone_since == 0 || row->stats.use_count() > 1) continue;
      if (oldest == rows_.end() || row->gone_since < oldest->gone_since) oldest = row;
    }
    if (oldest == rows_.end()) return;
    // Letting go of another reference acquires what the last plan counted before it let go of the
    // row. (ThreadSanitizer knows no fences.)
    { const auto reference = oldest->stats; }
    oldest->stats->add_to(earlier_);
    dropped.push_back(std::move(oldest->stats));
    ++earlier_candidates_;
    rows_.erase(oldest);
  }
}

int64_t Stats::plans() const {
  const std::lock_guard lock(mutex_);
  CandidateStats::Sums sums = earlier_;
  for (const Row& row : rows_) row.stats->add_to(sums);
  return sums.plans;
}

void Stats::report(const Idle& idle, StatsReport& report) const {
  std::vector<Row> rows;
  {
    const std::lock_guard lock(mutex_);
    rows = rows_;
    report.earlier_candidates = earlier_candidates_;
    report.earlier = counts_of(earlier_);
  }
  for (const Row& row : rows) {
    CandidateReport candidate = row.stats->report();
    candidate.present = row.gone_since == 0;
    for (const auto& [stats, bytes] : idle) {
      if (stats == row.stats.get()) candidate.idle_bytes += bytes;
    }
    report.candidates.push_back(std::move(candidate));
  }
  report.reloads = reloads.load(std::memory_order_relaxed);
  report.failed_reloads = failed_reloads.load(std::memory_order_relaxed);
}

}  // namespace attnrt::core
