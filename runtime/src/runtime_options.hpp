// runtime/src/runtime_options.hpp: what an application asks for when it opens a runtime
#pragma once

#include <attnrt/plugin.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace attnrt::core {

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
};

}  // namespace attnrt::core
