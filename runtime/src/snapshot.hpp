// runtime/src/snapshot.hpp: the policy and the plugins as one open or reload found them
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/fork.hpp"
#include "config.hpp"
#include "environment.hpp"
#include "load.hpp"
#include "probes.hpp"
#include "runtime_options.hpp"

namespace attnrt::core {

class Rollout;  // rollout.hpp

// Everything that selection looks at. Immutable, except that each backend is loaded when a problem
// first asks for its kind of device.
//
// OWNERSHIP: shared by the runtime, its caches and the calls that work on it. A reload makes the
// next snapshot; calls that have begun finish on theirs.
class Snapshot {
 public:
  using Loaded = Result<std::shared_ptr<const Backend>>;
  struct Entry {
    std::shared_ptr<const FoundPlugin> plugin;
    Options options;

    // The backend, if it is loaded already.
    std::shared_ptr<const Backend> backend() const {
      return is_loaded.load(std::memory_order_acquire) && loaded ? *loaded : nullptr;
    }
    // Whether a reload or retry opens another instance: this one could not be loaded, has no device
    // or has lost one, and what prevented it may be gone by now.
    bool may_improve() const {
      if (!is_loaded.load(std::memory_order_acquire)) return false;
      return !loaded || (*loaded)->devices().empty() || (*loaded)->lost_device();
    }

    // Another version of the backend was in service when this one was found: no call waits for the
    // probe of this one.
    std::atomic<bool> is_spare = false;

    // Set by Snapshot::load, under the mutex; `loaded` does not change any more once is_loaded.
    ResetMutex mutex;
    std::atomic<bool> is_loaded = false;
    Loaded loaded = nullptr;
    Admission admission;
  };
  // A file whose new bytes are being probed, or were refused, while its last good ones serve.
  struct Replacement {
    size_t entry = 0;  // of the last good ones
    std::shared_ptr<const FoundPlugin> plugin;
  };
  std::shared_ptr<const Config> config;
  std::string policy_file;       // empty: the built-in policy
  bool policy_is_empty = false;  // the file
  std::vector<std::string> directories;
  std::string directories_origin;  // who named them: "call", ATTNRT_PLUGIN_PATH, "policy.yaml:2:16"
  Discovery found;
  std::vector<std::shared_ptr<Entry>> entries;  // one for each plugin of `found`, in its order
  std::vector<Replacement> replacements;
  std::shared_ptr<Services> services;
  std::vector<std::shared_ptr<Rollout>>
      rollouts;              // of plugins of `found`, and of some that are gone
  Probes* probes = nullptr;  // the runtime's; nullptr: every plugin is loaded without a probe
  std::vector<std::string> warnings;  // that were found when this snapshot was taken

  // Returns what is known of the plugin's behaviour in a process of its own. wait: how long a probe
  // of it may take if nothing is known; Wait::never: one is started all the same.
  Result<Admission> admit(const Entry& entry, Probes::Wait wait) const;

  // Loads the entry's backend, unless an earlier call did or found why it cannot be loaded. Before,
  // the plugin is probed, if the policy asks for that and its result is not known. The call waits
  // for that (Probes::kMostWait), except for a spare. If the
  // backend is found not to be loadable now and log_failure is set, logs it as a warning. What is
  // not kept, so that the next call tries again: OUT_OF_MEMORY, also where it is thrown as
  // std::bad_alloc; and that a probe is still running.
  // THREADS: from any thread.
  Loaded load(Entry& entry, bool log_failure = true) const;

  // Returns what the last load of the entry learned of its admission. Waits for one at work.
  static Admission admission_of(Entry& entry);
};

// Reads the policy and finds the plugins. Relative paths start at `folder`. Backends of `previous`
// (nullptr at open) whose file and options are the same stay open, unless they may improve. A file
// whose new bytes cannot be used keeps its last good ones; where those are in service, the new
// bytes are loaded at once to find that out. Warnings go to the log.
// by_watch: nobody asked for it but the watch. Warnings that `previous` has are not repeated, and a
// policy file that has become empty is an error.
// Errors: a policy that is wrong, and what kept this process from looking (discover). Nothing has
// changed then.
Result<std::shared_ptr<Snapshot>> take_snapshot(const RuntimeOptions& options,
                                                const Environment& environment,
                                                const std::filesystem::path& folder,
                                                const Snapshot* previous, Probes* probes,
                                                bool by_watch = false);

// Returns the same snapshot, except that replacements whose probe has ended take their place, or
// leave the last good ones in service and say why.
std::shared_ptr<Snapshot> take_replacements(const Snapshot& previous);

// Returns the same snapshot, except that backends which may improve are loaded again when they are
// asked for: as a second instance of the library that is mapped already. Plans keep the first.
// nullptr: there are none.
std::shared_ptr<Snapshot> look_again(const Snapshot& previous);

}  // namespace attnrt::core
