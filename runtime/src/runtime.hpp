// runtime/src/runtime.hpp: the road as one object: config, policy, discover, load, select, plan, run
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plan.hpp"
#include "policy.hpp"
#include "select.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

class DecisionCache;  // cache.hpp
class PlanCache;

// One row of `attnrt list`.
struct PluginRow {
  std::shared_ptr<const FoundPlugin> plugin;
  std::string state;   // ready, no device, disabled, broken
  std::string reason;  // why it is not ready
  std::vector<Device> devices;
};

// THREADS: any call from any threads at once.
class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> open(RuntimeOptions options);
  ~Runtime();

  Result<void> reload();
  // Loads what is not loaded yet. warn: what cannot be loaded is logged too, not only a row.
  std::vector<PluginRow> plugins(bool warn = true) const;

  // Never fails: a problem that nothing supports is a Decision too. The pointer is shared with the cache.
  std::shared_ptr<const Decision> decide(const Problem& problem, const Call& call);
  // As if a device of this arch were there: by manifests alone where no backend has one. The cpu is always there.
  Decision explain(const Problem& problem, const std::string& arch, const Call& call) const;

  Result<std::unique_ptr<Plan>> plan(const Problem& problem, const Call& call);
  attnrt_status attention(const Problem& attributes, const attnrt_args& args, const Call& call,
                          attnrt_error* error);

  std::shared_ptr<const Snapshot> snapshot() const {
    const std::lock_guard lock(snapshot_mutex_);
    return snapshot_;
  }
  int64_t plans_made() const { return plans_made_.load(); }

 private:
  struct Placed {
    std::unique_ptr<Plan> plan;
    size_t candidate;  // its place in the decision
  };
  Runtime();
  void adopt(std::shared_ptr<const Snapshot> next);
  // suppose: a device that is not here is judged by the manifests that name it.
  Decision decide_uncached(const Snapshot& snapshot, const Problem& problem,
                           const std::string& arch, const Call& call, bool suppose) const;
  // Prepares the first candidate, from `first` on, whose plan succeeds. Idle plans give way where memory runs out.
  Result<Placed> plan_from(const Decision& decision, size_t first);
  static bool may_fail_over(attnrt_status status, const Decision& decision, size_t at);

  RuntimeOptions options_;
  std::filesystem::path
      folder_;  // relative paths mean what they meant at open, wherever the process goes
  std::mutex reload_mutex_;
  mutable std::mutex
      snapshot_mutex_;  // std::atomic<std::shared_ptr> unlocks its readers relaxed, up to GCC 13: a race
  std::shared_ptr<const Snapshot> snapshot_;
  std::atomic<int64_t> plans_made_{0};
  const std::unique_ptr<DecisionCache> decisions_;
  const std::unique_ptr<PlanCache> plans_;
};

}  // namespace attnrt::core
