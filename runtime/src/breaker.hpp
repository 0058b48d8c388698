// runtime/src/breaker.hpp: holds failing candidates back from the problems that they failed at
//
// For each (file's hash, device, Problem) there is one state, and a Problem is here what the caches
// look a call up by: its bounds are rounded up to powers of two.
//
//                  a failure                      its time is over
//     closed ----------------------->  open  ------------------------->  due
//       ^                               ^                                 |  the next call that
//       |  success of a trial           |  failure: the time doubles,     |  it would serve
//       |                               |  up to the longest              v
//       +-------------------------------+------------------------------ trial
//
//     failure                    first time   longest   counts for the whole candidate
//     OUT_OF_MEMORY              1 s          60 s      yes
//     INTERNAL                   30 s         1 h       yes
//     UNSUPPORTED, after a yes   30 s         1 h       no: what a run's strides ask for
//     DEVICE_LOST                until a reload looks for the device again; all of the device
//
// If three problems of one (hash, device) are open, it is opened for all problems, with a time of
// its own. A trial that reports nothing is due again when its time is over.
//
// A state machine without a clock: each call gets the time. It remembers at most kMostStates
// states (about 100 kB), and forgets the one that is over first.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fork.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

// What the breaker knows a candidate by. Making one allocates nothing.
struct CandidateId {
  CandidateId(std::string_view hash_text, int32_t type, int32_t id)
      : device_type(type), device_id(id) {
    hash_text.copy(hash.data(), hash.size());
  }
  std::array<char, 64> hash{};  // of its file: SHA-256 in hexadecimal
  int32_t device_type, device_id;
  bool operator==(const CandidateId&) const = default;
};

// What is held back from one problem, at one moment. Immutable, so that select stays pure.
struct Quarantine {
  struct Held {
    CandidateId candidate;
    std::string reason;  // "quarantined for 0.8 s more: it ran out of memory"
    bool due = false;    // its time is over: it may serve, and that call is its trial
  };
  struct LostDevice {
    int32_t type, id;
    std::string reason;
  };
  // A version that a rollout holds back (rollout.hpp).
  struct HeldBack {
    std::string sha256;  // of its file
    std::string reason;
    bool is_open = true;  // in shadow or canary; else it was rolled back
    bool never = false;   // it may not even serve what nothing else can
  };
  std::vector<Held> held;
  std::vector<LostDevice> lost;
  std::vector<HeldBack> held_back;

  const Held* find(const CandidateId& candidate) const;
  const LostDevice* find_lost(const CandidateId& candidate) const;
  const HeldBack* find_held_back(std::string_view sha256) const;
};

// THREADS: any call from any threads at once.
class Breaker {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  enum class Stage { plan, run };
  static constexpr size_t kMostStates = 256;

  // What a failure opened: nothing (it says nothing new, or is no failure of the candidate), the
  // problem, the candidate for every problem, or its device.
  struct Opened {
    bool problem = false, every_problem = false, device = false;
    explicit operator bool() const { return problem || every_problem || device; }
    int64_t count() const { return int64_t{problem} + int64_t{every_problem} + int64_t{device}; }
  };

  // Notes a failure. RETURNS what that opened; if anything, another generation began.
  Opened failed(const CandidateId& candidate, const Problem& problem, Stage stage,
                attnrt_status status, Time now);
  // Closes what is open for the candidate and the problem. A plan that was made says nothing about
  // runs that failed. RETURNS how many states that closed.
  size_t succeeded(const CandidateId& candidate, const Problem& problem, Stage stage);

  // Whether nothing failed that has not succeeded since, apart from lost devices.
  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }

  Quarantine quarantine(const Problem& problem, Time now) const;
  // Begins the trial of a candidate that is due. RETURNS false if another call was first.
  bool begin_trial(const CandidateId& candidate, const Problem& problem, Time now);

  // Forgets which devices were lost, since a reload looks for them again.
  void forget_lost_devices();

  // Changes with everything that quarantine() answers, and so with every decision. RETURNS at once,
  // without asking the clock, if no time is running.
  template <class Now>
  uint64_t generation(Now&& now) {
    if (next_due_.load(std::memory_order_acquire) != kNever) note_due(now());
    return generation_.load(std::memory_order_acquire);
  }

 private:
  using Duration = Clock::duration;
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct State {
    CandidateId candidate{"", 0, 0};
    bool every_problem = false;
    Problem problem{};
    attnrt_status because = ATTNRT_OK;
    Stage stage = Stage::plan;
    Duration time{};  // how long it is open
    Time until{};     // when it is due
    bool due = false, trial = false;

    bool concerns(const CandidateId& id, const Problem& of) const;
  };
  State* find(const CandidateId& candidate, const Problem* problem);
  bool open(const CandidateId& candidate, const Problem* problem, Stage stage, attnrt_status status,
            Time now);
  bool has_many_open(const CandidateId& candidate, Time now) const;
  void note_due(Time now);
  void changed();

  mutable HeldMutex mutex_;
  std::vector<State> states_;
  std::set<std::pair<int32_t, int32_t>> lost_;  // device_type, device_id
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> next_due_{kNever};  // since the clock's epoch; kNever: no time is running
  std::atomic<size_t> count_{0};           // of states_
};

}  // namespace attnrt::core
