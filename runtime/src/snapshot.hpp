// runtime/src/snapshot.hpp: config and discover into what selections look at until the next reload
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "config.hpp"
#include "discover.hpp"
#include "load.hpp"

namespace attnrt::core {

struct RuntimeOptions {
  int32_t thread_count = 0;                // 0: the policy's
  std::optional<std::string> policy_path;  // absent: $ATTNRT_POLICY, else built-in
  std::optional<std::string> policy_text;
  std::optional<std::string> plugin_path;  // directories separated by ':'
  std::function<void(int32_t severity, const std::string& text)>
      log;  // empty: stderr, ATTNRT_LOG (warning) and worse
  attnrt_parallel_for parallel_for = nullptr;
  void* parallel_self = nullptr;
};

// Everything that a selection looks at, as of one open or reload. Immutable but for backends, which are loaded when a
// problem first asks for their kind of device.
class Snapshot {
 public:
  struct Entry {
    std::shared_ptr<const FoundPlugin> plugin;
    Options options;
    std::once_flag once;
    std::shared_ptr<const Backend> backend;  // after once: absent if it could not be loaded
    std::string fault;                       // after once: why
    std::atomic<bool> failed = false;        // after once: a reload tries again
  };
  std::shared_ptr<const Config> config;
  std::string policy_file;  // "" : built-in
  std::vector<std::string> directories;
  std::string directories_origin;
  std::vector<std::shared_ptr<Entry>> entries;
  std::shared_ptr<Services> services;

  void load(Entry& entry,
            bool warn = true) const;  // once, from any thread; warn: log why it could not be loaded
};

// From the options, the environment and the files as they are now; relative paths start at `folder`. What `previous` holds
// and is the same still stays open. Warnings go to the log.
Result<std::shared_ptr<Snapshot>> take_snapshot(const RuntimeOptions& options,
                                                const std::filesystem::path& folder,
                                                const Snapshot* previous);

}  // namespace attnrt::core
