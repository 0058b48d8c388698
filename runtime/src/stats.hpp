// runtime/src/stats.hpp: counts what each candidate did, and what the runtime did
//
// A candidate is (file's hash, device). Its counters begin with its first plan or failure. They go
// on after reloads, also if its file was gone meanwhile. Those of candidates that are gone are
// bounded: beyond kMostGone, the ones that have been gone for longest are added up as "earlier".
//
// Counting neither waits nor allocates: runs are counted in shards, so that threads which run the
// same candidate seldom share a cache line; everything else is rare. Counters are read one by one
// while calls go on, so that two of them may be of slightly different moments.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fork.hpp"
#include "breaker.hpp"
#include "candidates.hpp"
#include "rollout.hpp"

namespace attnrt::core {

// Failures of one class, at one stage.
struct FailureReport {
  std::string stage;   // "plan" or "run"
  std::string status;  // status_name of the class
  int64_t count = 0;
  std::string last_time;  // of the last one; "" if it is not known
  std::string message;    // of the last one, as its caller got it
};

struct CandidateCounts {
  int64_t plans = 0;                           // that were made
  int64_t runs = 0;                            // that succeeded; for a device: that were enqueued
  int64_t failovers = 0;                       // to the next candidate, after this one failed
  int64_t opened = 0, trials = 0, closed = 0;  // quarantine: what the breaker did
  std::vector<FailureReport> failures;         // those that happened
};

struct CandidateReport {
  std::string name, version, sha256;
  std::string device, arch;
  int64_t device_id = 0;
  bool present = false;  // its file is among those of the last reload
  CandidateCounts counts;
  int64_t held_bytes = 0;  // by all its plans now: idle, in use, and the application's
  int64_t idle_bytes = 0;  // the part of it that idle plans of the plan cache hold
};

// What docs/json.md calls a document of kind "stats".
struct StatsReport {
  std::string version;  // attnrt's
  int64_t pid = 0;
  std::string opened, written;  // when the runtime was opened, and the counters were read
  int64_t reloads = 0, failed_reloads = 0;
  int64_t decisions = 0;       // that were made; not those that a cache gave
  int64_t mapped_plugins = 0;  // libraries in this process now
  int64_t decision_hits = 0, decision_misses = 0;
  int64_t plan_hits = 0, plan_misses = 0, plan_evictions = 0;
  int64_t idle_plans = 0, idle_bytes = 0;
  std::vector<CandidateReport> candidates;  // in the order in which they first planned or failed
  std::vector<RolloutReport> rollouts;      // rollout.hpp
  int64_t earlier_candidates = 0;           // how many `earlier` adds up
  CandidateCounts earlier;
};

// The counters of one candidate. THREADS: any call from any threads at once. None but
// report throws.
class CandidateStats {
 public:
  explicit CandidateStats(const Candidate& candidate);

  void made_plan() { count(plans_); }
  void ran() { runs_[shard()].count.fetch_add(1, std::memory_order_relaxed); }
  // status: a failure. message: one line, of which 255 bytes are kept.
  void failed(Breaker::Stage stage, attnrt_status status, const char* message);
  void failed_over() { count(failovers_); }
  void opened(int64_t states) { opened_.fetch_add(states, std::memory_order_relaxed); }
  void began_trial() { count(trials_); }
  void closed(int64_t states) { closed_.fetch_add(states, std::memory_order_relaxed); }
  // What its plans hold has changed by so many bytes.
  void holds(int64_t change) { held_bytes_.fetch_add(change, std::memory_order_relaxed); }

  CandidateReport report() const;

  static constexpr size_t kStages = 2, kClasses = 5;
  // All that is counted, as numbers.
  struct Sums {
    int64_t plans = 0, runs = 0, failovers = 0, opened = 0, trials = 0, closed = 0;
    std::array<std::array<int64_t, kClasses>, kStages> failures{};
  };
  void add_to(Sums& sums) const;

 private:
  static constexpr size_t kShards = 16;  // of 64 bytes
  struct alignas(64) Shard {
    std::atomic<int64_t> count{0};
  };
  struct Failures {
    std::atomic<int64_t> count{0};
    // Of the last one, under mutex_.
    std::chrono::system_clock::time_point time{};
    std::array<char, 256> message{};
  };
  static void count(std::atomic<int64_t>& counter) {
    counter.fetch_add(1, std::memory_order_relaxed);
  }
  static size_t shard();

  const std::string name_, version_, sha256_;
  const Device device_;
  std::atomic<int64_t> plans_{0}, failovers_{0}, opened_{0}, trials_{0}, closed_{0};
  std::atomic<int64_t> held_bytes_{0};
  std::array<Shard, kShards> runs_;
  std::array<std::array<Failures, kClasses>, kStages> failures_;
  mutable HeldMutex mutex_;
};

// THREADS: any call from any threads at once.
class Stats {
 public:
  static constexpr size_t kMostGone = 64;  // candidates, about 4 kB each

  // Returns the candidate's counters, which the first call makes.
  std::shared_ptr<CandidateStats> of(const Candidate& candidate);

  // A reload: from now on the candidates of these hashes are present. Adds those up that have been
  // gone for longest, except for candidates that still have plans.
  void restart(std::vector<std::string> hashes);

  // Fills in the candidates and what is counted here. idle: what idle plans hold, for each of them.
  using Idle = std::vector<std::pair<const CandidateStats*, int64_t>>;
  void report(const Idle& idle, StatsReport& report) const;

  int64_t plans() const;  // that all candidates made

  std::atomic<int64_t> reloads{0}, failed_reloads{0};

 private:
  struct Row {
    CandidateId id;
    std::shared_ptr<CandidateStats> stats;
    int64_t gone_since = 0;  // the number of the reload that no longer found it; 0: it is present
  };
  bool is_present(const CandidateId& id) const;
  std::shared_ptr<CandidateStats> find(const CandidateId& id) const;

  mutable HeldMutex mutex_;
  std::vector<Row> rows_;
  std::vector<std::string> present_;  // hashes, sorted
  int64_t restarts_ = 0;
  int64_t earlier_candidates_ = 0;
  CandidateStats::Sums earlier_;
};

}  // namespace attnrt::core
