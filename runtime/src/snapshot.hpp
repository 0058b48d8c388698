// runtime/src/snapshot.hpp: the policy and the plugins as one open or reload found them
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "config.hpp"
#include "load.hpp"
#include "runtime_options.hpp"

namespace attnrt::core {

// Everything that selection looks at. Immutable, except that each backend is loaded when a problem
// first asks for its kind of device.
//
// OWNERSHIP: shared by the runtime, its caches and the calls that work on it. A reload makes the
// next snapshot; calls that have begun finish on theirs.
class Snapshot {
 public:
  struct Entry {
    std::shared_ptr<const FoundPlugin> plugin;
    Options options;
    std::once_flag once;
    // Set by Snapshot::load:
    std::shared_ptr<const Backend> backend;  // absent if it could not be loaded
    std::string load_error;                  // why not
    std::atomic<bool> failed = false;        // it could not be loaded; a reload tries again
    std::atomic<bool> loaded = false;        // backend is set
  };
  std::shared_ptr<const Config> config;
  std::string policy_file;  // empty: the built-in policy
  std::vector<std::string> directories;
  std::string directories_origin;  // who named them: "call", ATTNRT_PLUGIN_PATH, "policy.yaml:2:16"
  Discovery found;
  std::vector<std::shared_ptr<Entry>> entries;  // one for each plugin of `found`, in its order
  std::shared_ptr<Services> services;

  // Loads the entry's backend, the first time only. If that fails and log_failure is set, logs why
  // as a warning.
  // THREADS: from any thread.
  void load(Entry& entry, bool log_failure = true) const;
};

// Reads the policy and the environment, and finds the plugins. Relative paths start at `folder`.
// Backends of `previous` (nullptr at open) whose file and options are the same stay open. A file
// whose new bytes cannot be used keeps its last good ones; where those are in service, the new
// bytes are loaded at once to find that out. Warnings go to the log.
// Errors: a policy that is wrong, and what kept this process from looking (discover). Nothing has
// changed then.
Result<std::shared_ptr<Snapshot>> take_snapshot(const RuntimeOptions& options,
                                                const std::filesystem::path& folder,
                                                const Snapshot* previous);

}  // namespace attnrt::core
