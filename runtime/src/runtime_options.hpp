// runtime/src/runtime_options.hpp: what an application asks for when it opens a runtime
#pragma once

#include <attnrt/plugin.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "admit.hpp"

namespace attnrt::core {

// The application's device memory, in place of the backends' own; attnrt.h has the contract.
// allocate is null: it has none.
struct Allocator {
  attnrt_status (*allocate)(void* self, int32_t device_type, int32_t device_id, int64_t bytes,
                            void* stream, void** pointer, attnrt_error* error) = nullptr;
  void (*free)(void* self, int32_t device_type, int32_t device_id, void* pointer,
               void* stream) = nullptr;
  void* self = nullptr;
};

// How long after changes of watched files a reload is due.
struct WatchTimes {
  std::chrono::milliseconds quiet{500};  // after the last change
  std::chrono::milliseconds most{5000};  // after the first one, if changes never cease
};

struct RuntimeOptions {
  int32_t thread_count = 0;                // 0: as the policy says
  std::optional<std::string> policy_path;  // absent: ATTNRT_POLICY, or else the built-in policy
  std::optional<std::string> policy_text;  // instead of a file
  std::optional<std::string> plugin_path;  // directories, separated by ':'
  // Gets every line of the log. Empty: lines from ATTNRT_LOG's level on (default: warning) go to
  // stderr.
  std::function<void(int32_t severity, const std::string& text)> log;
  attnrt_parallel_for parallel_for = nullptr;  // the application's threads instead of a pool
  void* parallel_self = nullptr;
  Allocator allocator;  // of workspaces and staging buffers
  // For tests: instead of the policy's level, and instead of the attnrt-probe that is installed.
  std::optional<AdmissionLevel> admission_level;
  std::string probe_program;
  // The clock of the breaker, for tests. Empty: std::chrono::steady_clock.
  std::function<std::chrono::steady_clock::time_point()> clock;
  bool never_watch = false;  // whatever the policy says: for a command, which soon ends
  WatchTimes watch_times;    // other ones are for tests
};

}  // namespace attnrt::core
