// runtime/cli/bench/backends.hpp: the backends that a benchmark measures, each with one device
#pragma once

#include <string>
#include <vector>

#include "runtime.hpp"

namespace attnrt::cli::bench {

struct BackendDevice {
  std::string name, version;
  core::Device device;
};

// Finds each backend once for each kind of device that it has, with its first device of that kind,
// in the order of the plugin directories. If `wanted` is not empty, only the backends that it
// names, in its order. Errors: NOT_FOUND.
core::Result<std::vector<BackendDevice>> find_backends(core::Runtime& runtime,
                                                       const std::vector<std::string>& wanted);

}  // namespace attnrt::cli::bench
