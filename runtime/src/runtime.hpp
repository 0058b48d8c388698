// runtime/src/runtime.hpp: the pipeline as one object, for the C API, the command and the tests
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "decision_cache.hpp"
#include "decision_log.hpp"
#include "failover.hpp"
#include "plan_cache.hpp"
#include "rollout.hpp"
#include "select.hpp"
#include "snapshot.hpp"
#include "stats.hpp"
#include "watcher.hpp"

namespace attnrt::core {

// One row of `attnrt list`.
struct PluginRow {
  std::shared_ptr<const FoundPlugin> plugin;
  std::string state;   // ready, no device, disabled, broken, refused, waiting, rolled back
  std::string reason;  // why it is not ready
  std::vector<Device> devices;
  std::vector<std::string> notes;  // on its manifest, and what it says of its devices
  Admission admission{};
};

// THREADS: any call from any threads at once.
class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> open(RuntimeOptions options);
  // Writes the counters to the file that ATTNRT_STATS names, if a decision was made.
  ~Runtime();

  // Reads the policy and looks for plugins again. If that fails, everything stays as it was.
  Result<void> reload();

  // Returns a descriptor that is readable when handle_events has something to do. From then on the
  // runtime watches its files, whatever the policy says, and has no thread that does so.
  Result<int> watch();
  // Reloads if watched files have changed and it has been quiet for a while. Else returns at once.
  Result<void> handle_events();

  // Looks again for devices that were missing or were lost, and for what prevented a plugin from
  // being loaded, and probes refused plugins again. New decisions and plans ask a new instance of
  // each such backend.
  void retry();

  // Loads the plugins that are not loaded yet, and returns a row for each. If log_failures is set,
  // also logs a warning for each that cannot be loaded. wait: for the probes of those whose
  // admission is not known.
  std::vector<PluginRow> plugins(bool log_failures = true,
                                 Probes::Wait wait = Probes::Wait::some_time) const;

  // Decides which backend serves the problem. Always returns a decision: "no backend supports the
  // problem" is one too.
  std::shared_ptr<const Decision> decide(const Problem& problem, const Call& call);

  // Decides as if this machine had the problem's device, with this arch. If no backend has such a
  // device, the manifests decide. The cpu is always there.
  Decision explain(const Problem& problem, const std::string& arch, const Call& call) const;

  // stream: the plan's first run is on it, or on one that waits for it; absent: on any stream.
  Result<std::unique_ptr<Plan>> plan(const Problem& problem, const Call& call,
                                     std::optional<void*> stream = std::nullopt);

  // Runs attention on the tensors. Derives the problem's dimensions from them; attributes gives
  // what tensors cannot say.
  attnrt_status attention(const Problem& attributes, const attnrt_args& args, const Call& call,
                          attnrt_error* error);

  // Gives back what idle plans hold, the least recently used first, until the others hold at most
  // so many bytes; 0: all. Waits for their last runs.
  void trim(int64_t bytes);

  std::shared_ptr<const Snapshot> snapshot() const {
    const std::lock_guard lock(snapshot_mutex_);
    return snapshot_;
  }

  // Ends the rollouts of a backend's versions (rollout.hpp): they serve everything, or nothing,
  // from now on. Plans that exist keep their backend. NOT_FOUND if no version of it has a rollout.
  Result<void> promote(const std::string& backend) { return rollouts_.promote(backend); }
  Result<void> roll_back(const std::string& backend) { return rollouts_.roll_back(backend); }
  std::vector<RolloutReport> rollouts() const { return rollouts_.reports(); }

  // What was counted since the runtime was opened.
  StatsReport stats();
  int64_t plans_made() const { return stats_.plans(); }
  // The last decisions after number `after`, as lines of JSON (decision_log.hpp).
  std::string decisions(int64_t after) const { return decision_log_.lines(after); }

 private:
  Runtime() = default;
  Result<void> reload(bool by_watch);
  void adopt(std::shared_ptr<Snapshot> next);
  void take_probed();
  void write_stats();
  void watch_files();
  uint64_t generation() {
    return failover_.breaker().generation([this] { return failover_.now(); }) +
           rollouts_.generation();
  }
  std::shared_ptr<const Decision> decide(const std::shared_ptr<const Snapshot>& snapshot,
                                         const CacheKey& key, const Problem& problem,
                                         const Call& call);
  Quarantine quarantine_of(const Snapshot& snapshot, const Problem& rounded) const;
  std::shared_ptr<const Decision> decide_anew(const std::shared_ptr<const Snapshot>& snapshot,
                                              const CacheKey& key, const Problem& problem,
                                              const Call& call);

  RuntimeOptions options_;
  // As open found them; a reload must not read the environment beside other threads' setenv.
  Environment environment_;
  std::filesystem::path folder_;  // the current directory; relative paths start there
  ResetMutex reload_mutex_;
  // Instead of std::atomic<std::shared_ptr>, whose readers unlock with relaxed order up to GCC 13,
  // which is a data race.
  mutable HeldMutex snapshot_mutex_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::chrono::system_clock::time_point opened_;
  Stats stats_;
  DecisionLog decision_log_;
  Rollouts rollouts_;
  DecisionCache decisions_;
  PlanCache plans_;
  Failover failover_{plans_, stats_, decision_log_};
  // The last members: their threads end before all else does. The watcher's reloads, and the one
  // that probes calls take_probed.
  std::unique_ptr<Probes> probes_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace attnrt::core
