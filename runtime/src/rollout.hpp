// runtime/src/rollout.hpp: gives new versions of a backend a part of the calls first
//
// The policy's `backends.NAME.rollout` says which versions. Each file of such a version has a
// Rollout:
//
//             `after` comparisons agree      `after` runs served
//     shadow ------------------------> canary -----------------> promoted
//       |                                |                          |
//       |  wrong result, INTERNAL,       |  INTERNAL,               |  roll_back(), or a wrong
//       |  DEVICE_LOST, roll_back()      |  DEVICE_LOST, roll_back()|  result that was found late
//       +--------------------------------+--------------------------+---> rolled back
//
//   shadow       it serves no call. One of N one-shot calls on host tensors is repeated on it, and
//                the results are compared (shadow.hpp)
//   canary       one of N calls goes to it
//   promoted     it is ranked as if there were no rollout. A failure no longer rolls it back
//   rolled back  it gets no call that anything else can serve
//
// The first phase is that of `shadow` if it is given. Without `canary`, the end of shadow promotes.
// promote() leads to promoted from any phase, roll_back() to rolled back.
// While a version is held back (in shadow and canary, and rolled back after a failure), calls are
// decided as if it were not there; but it serves what nothing else can (select.hpp). One whose
// result was wrong, or that roll_back() rolled back, does not even serve that.
// A rollout belongs to a runtime, the file's hash and the settings: it begins again when `rollout`
// changes in the policy. Otherwise it goes on after reloads, also if its file was gone meanwhile.
//
// Which calls it gets is fixed by their number, evenly spread, and in no step with a pattern of
// calls: the n-th one if the fraction of n times the golden ratio is below the part. A graph that
// is being captured never gets it, since it would repeat the choice.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fork.hpp"
#include "breaker.hpp"
#include "config_rollout.hpp"
#include "discover.hpp"

namespace attnrt::core {

struct Config;

enum class Phase { shadow, canary, promoted, rolled_back };
const char* name_of(Phase phase);  // "shadow", "canary", "promoted", "rolled back"

// What `attnrt stats`, `attnrt list` and `attnrt explain` report about a rollout.
struct RolloutReport {
  std::string name, version, sha256;
  std::string settings, origin;  // "version >=1.3, canary 1/20", "policy.yaml:4:14"
  Phase phase = Phase::canary;
  std::string share;  // of the phase: "1/20"; "" where there is none
  std::string since;  // when the phase began
  // Counted in this phase or, if it counts nothing, in the one before.
  int64_t calls = 0;          // that the version would have won
  int64_t taken = 0;          // those that it served or was compared on
  int64_t clean = 0;          // runs that succeeded or agreed
  int64_t after = 0;          // how many of them end the phase; 0: none do
  std::string reason;         // why it is promoted or rolled back
  bool never = false;         // rolled back for good: it does not even serve what nothing else can
  std::string text() const;   // "canary 1/20 (policy.yaml:4:14)", "rolled back (...): REASON"
  std::string count() const;  // "17 of 1000 clean runs"; "" once it has ended
};

// THREADS: any call from any threads at once. takes_call, served and compared neither wait nor
// allocate, except where that ends a phase.
class Rollout {
 public:
  using Changed = std::function<void(int32_t severity, const std::string& text)>;
  // changed: called after each change of the phase, with a line for the log. generation: changes
  // with the phase.
  Rollout(const FoundPlugin& plugin, RolloutSettings settings, std::string origin, Changed changed,
          std::shared_ptr<std::atomic<uint64_t>> generation);

  Phase phase() const { return phase_.load(std::memory_order_acquire); }
  bool is_open() const { return phase() == Phase::shadow || phase() == Phase::canary; }

  // Counts a call that the version could serve. RETURNS whether the phase gives it the call.
  bool takes_call();
  void served();    // a caller's run on it succeeded
  void compared();  // a comparison agreed
  // A plan or run of it failed, it refused what was served, or a result was wrong. message: one
  // line.
  void failed(attnrt_status status, std::string_view message);
  void refused(std::string_view message);
  void mismatched(std::string_view message);

  // Freezes the phase, because the policy no longer asks for this rollout.
  void end() { ended_.store(true, std::memory_order_release); }

  void promote(const std::string& reason);
  void roll_back(const std::string& reason);

  bool is_ended() const { return ended_.load(std::memory_order_acquire); }
  bool is_of(std::string_view name) const { return name_ == name; }
  bool is_of(const FoundPlugin& plugin, const RolloutSettings& settings) const {
    return sha256_ == plugin.hash && name_ == plugin.manifest->name && settings_ == settings;
  }
  const std::string& sha256() const { return sha256_; }
  void set_origin(std::string origin);  // where the settings stand in the policy now
  RolloutReport report() const;

 private:
  void clean_run(Phase phase);
  bool enter(Phase from, Phase to, const std::string& reason, bool never = false);
  void enter_any(Phase to, const std::string& reason, bool never = false);
  const Share* share(Phase phase) const;

  const std::string name_, version_, sha256_;
  const RolloutSettings settings_;
  const Changed changed_;
  const std::shared_ptr<std::atomic<uint64_t>> generation_;
  std::atomic<Phase> phase_;
  std::atomic<bool> ended_{false};
  std::atomic<int64_t> calls_{0}, taken_{0}, clean_{0};
  mutable HeldMutex mutex_;  // of what follows, and of changes of the phase
  std::string origin_;
  std::chrono::system_clock::time_point since_;
  std::string reason_;
  bool never_ = false;
};

// Returns the rollout of the file, or nullptr.
std::shared_ptr<Rollout> find_rollout(const std::vector<std::shared_ptr<Rollout>>& rollouts,
                                      std::string_view sha256);
// Returns the versions that are held back: those in shadow and canary, and those rolled back.
std::vector<Quarantine::HeldBack> held_back(const std::vector<std::shared_ptr<Rollout>>& rollouts);

// The rollouts of one runtime. Calls look at those of their snapshot, which has the policy that
// they belong to. THREADS: any call from any threads at once.
class Rollouts {
 public:
  // log: gets a line for each change of a phase.
  void set_log(Rollout::Changed log) { log_ = std::move(log); }  // REQUIRES: before any other call

  // A reload: the rollouts that go on and those that begin, and lines for the log about those that
  // begin or end.
  struct Next {
    std::vector<std::shared_ptr<Rollout>> rollouts;
    std::vector<std::pair<int32_t, std::string>> log;  // severity and text
  };
  Next next(const Config& config, const Discovery& found) const;
  void restart(std::vector<std::shared_ptr<Rollout>> rollouts);

  std::vector<RolloutReport> reports() const;

  // Promotes or rolls back those versions of the backend that are in shadow or canary; if none is,
  // all that have a rollout. NOT_FOUND if none has.
  Result<void> promote(const std::string& backend);
  Result<void> roll_back(const std::string& backend);

  // Changes whenever held_back() does. Decisions of before are stale then.
  uint64_t generation() const { return generation_->load(std::memory_order_acquire); }

 private:
  // Beyond that, the oldest ones whose file is gone are forgotten.
  static constexpr size_t kMostRollouts = 64;
  Result<std::vector<std::shared_ptr<Rollout>>> of_backend(const std::string& backend) const;

  Rollout::Changed log_;
  mutable HeldMutex mutex_;
  std::vector<std::shared_ptr<Rollout>> rollouts_;  // in the order in which they began
  // Shared with the rollouts, which plans may keep for longer.
  std::shared_ptr<std::atomic<uint64_t>> generation_ = std::make_shared<std::atomic<uint64_t>>(0);
};

}  // namespace attnrt::core
