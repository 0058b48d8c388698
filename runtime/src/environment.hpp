// runtime/src/environment.hpp: reads the variables ATTNRT_* and applies them to a Config
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

struct Config;

// The values of ATTNRT_POLICY, ATTNRT_PLUGIN_PATH and so on. All are absent if the process is
// privileged (set-user-ID and the like).
struct Environment {
  std::optional<std::string> policy, plugin_path, backend, disable, log, admission, registry, stats;
  std::vector<std::string> warnings;  // one for each variable ATTNRT_* of another name
};
Environment read_environment();

// Replaces the values of config that a variable sets. Errors: INVALID_ARGUMENT that names the
// variable.
Result<void> apply_environment(const Environment& environment, Config& config);

}  // namespace attnrt::core
