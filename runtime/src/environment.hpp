// runtime/src/environment.hpp: the variables ATTNRT_* into what they say of a Config
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

struct Config;

// What the environment says; empty optionals where a variable is not set, or the process is privileged.
struct Environment {
  std::optional<std::string> policy, plugin_path, backend, disable, log;
  std::vector<std::string>
      warnings;  // an ATTNRT_ variable that does not exist, with the nearest that does
};
Environment read_environment();  // secure_getenv

// Lays it over what config holds. The error names the variable.
Result<void> apply_environment(const Environment& environment, Config& config);

}  // namespace attnrt::core
