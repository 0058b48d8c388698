// runtime/src/rollout.hpp: tries new versions of a backend on a part of the calls
//
// The policy's `backends.NAME.rollout` says which versions. Each of their files has a Rollout:
//
//              `after` runs compared       `after` runs served
//     shadow ----------------------> canary ------------------> promoted
//       |                              |                           |
//       +------------------------------+---------------------------+---> rolled back
//          a wrong result, INTERNAL, DEVICE_LOST, or roll_back()
//
//   shadow       it serves no call. One in so many one-shot calls on host tensors is run on it,
//                too, and its result compared with the one that was given (shadow.hpp)
//   canary       one in so many calls goes to it
//   promoted     it is ranked as if there was no rollout. A failure no longer rolls it back
//   rolled back  it serves nothing, as if `version` excluded it
//
// The first phase is that of `shadow` if it is given. Without `canary`, its end promotes. promote()
// leads to promoted from any phase, roll_back() to rolled back.
// While a version is in rollout (shadow or canary), the other calls are decided as if it was not
// there; but it serves what nothing else can (select.hpp).
// A rollout belongs to the file's hash and the settings: it begins again when `rollout` changes in
// the policy, and when the process starts. Otherwise it goes on after reloads, also if its file was
// gone meanwhile.
//
// Calls are counted, no dice: with 1/20, every 20th call gets it. A graph that is being captured
// never does, since it would repeat the choice.
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

// What `attnrt stats`, `attnrt list` and `attnrt explain` tell of a rollout.
struct RolloutReport {
  std::string name, version, sha256;
  std::string settings, origin;  // "version >=1.3, canary 1/20", "policy.yaml:4:14"
  Phase phase = Phase::canary;
  std::string share;  // of the phase: "1/20"; "" where there is none
  std::string since;  // when the phase began
  // Of the phase; if it counts nothing, of the one before.
  int64_t calls = 0;         // that the version could have served
  int64_t taken = 0;         // those that it served or was compared on
  int64_t clean = 0;         // runs that succeeded or agreed
  int64_t after = 0;         // how many of them end the phase; 0: none do
  std::string reason;        // why it is promoted or rolled back
  std::string text() const;  // "canary 1/20 (policy.yaml:4:14): 17 of 1000 clean runs"
};

// THREADS: any call from any threads at once. takes_call and ran neither wait nor allocate, except
// for the run that ends a phase.
class Rollout {
 public:
  using Changed = std::function<void(int32_t severity, const std::string& text)>;
  // changed: called after each change of the phase, with a line for the log.
  Rollout(const FoundPlugin& plugin, RolloutSettings settings, std::string origin, Changed changed);

  Phase phase() const { return phase_.load(std::memory_order_acquire); }
  bool is_open() const { return phase() == Phase::shadow || phase() == Phase::canary; }

  // Counts a call that the version could serve. RETURNS whether the phase gives it the call.
  bool takes_call();
  void served();    // a run of it succeeded for a caller
  void compared();  // a run of it agreed
  // A run or plan failed, or a result was wrong. message: one line.
  void failed(attnrt_status status, std::string_view message);
  void mismatched(std::string_view message);

  // The policy no longer asks for it: nothing changes its phase any more.
  void end() { ended_.store(true, std::memory_order_release); }

  void promote(const std::string& reason);
  void roll_back(const std::string& reason);

  bool is_ended() const { return ended_.load(std::memory_order_acquire); }
  bool is_of(std::string_view name) const { return name_ == name; }
  bool is_of(const FoundPlugin& plugin, const RolloutSettings& settings) const {
    return sha256_ == plugin.hash && name_ == plugin.manifest->name && settings_ == settings;
  }
  const std::string& sha256() const { return sha256_; }
  void set_origin(std::string origin);  // the settings are at another place of the policy now
  RolloutReport report() const;

 private:
  void clean_run(Phase phase);
  bool enter(Phase from, Phase to, const std::string& reason);
  void enter_any(Phase to, const std::string& reason);
  const Share* share(Phase phase) const;

  const std::string name_, version_, sha256_;
  const RolloutSettings settings_;
  const Changed changed_;
  std::atomic<Phase> phase_;
  std::atomic<bool> ended_{false};
  std::atomic<int64_t> calls_{0}, taken_{0}, clean_{0};
  mutable HeldMutex mutex_;  // of what follows, and of changes of the phase
  std::string origin_;
  std::chrono::system_clock::time_point since_;
  std::string reason_;
};

// The rollouts of one runtime. THREADS: any call from any threads at once.
class Rollouts {
 public:
  // log: gets a line for each change of a phase.
  void set_log(Rollout::Changed log) { log_ = std::move(log); }  // REQUIRES: before any other call

  // A reload: the rollouts that go on, and those that the policy asks for and that begin.
  struct Next {
    std::vector<std::shared_ptr<Rollout>> rollouts;
    std::vector<std::string> begun;  // a line for the log for each that begins
  };
  Next next(const Config& config, const Discovery& found) const;
  void restart(std::vector<std::shared_ptr<Rollout>> rollouts);

  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }
  std::shared_ptr<Rollout> find(std::string_view sha256) const;  // nullptr: there is none
  // The versions that are held back: those that are open or rolled back.
  std::vector<Quarantine::InRollout> held() const;
  std::vector<RolloutReport> reports() const;

  // Promotes or rolls back all versions of the backend that have a rollout. NOT_FOUND if none has.
  Result<void> promote(const std::string& backend);
  Result<void> roll_back(const std::string& backend);

  // Changes with everything that held() answers, and so with decisions.
  uint64_t generation() const { return generation_->load(std::memory_order_acquire); }

 private:
  static constexpr size_t kMostRollouts = 64;
  Result<std::vector<std::shared_ptr<Rollout>>> of_backend(const std::string& backend) const;

  Rollout::Changed log_;
  mutable HeldMutex mutex_;
  std::vector<std::shared_ptr<Rollout>> rollouts_;  // in the order in which they began
  std::atomic<size_t> count_{0};
  // Shared with the rollouts, which plans may keep for longer.
  std::shared_ptr<std::atomic<uint64_t>> generation_ = std::make_shared<std::atomic<uint64_t>>(0);
};

}  // namespace attnrt::core
