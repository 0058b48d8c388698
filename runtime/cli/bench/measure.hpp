// runtime/cli/bench/measure.hpp: measures backends on problems
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/bench/report.hpp"
#include "cli/command.hpp"
#include "runtime.hpp"

namespace attnrt::cli::bench {

struct Settings {
  std::vector<std::string> backends;  // their names; empty: all that have a device here
  int64_t samples = 11;               // of each backend on each problem
  std::vector<int32_t> threads = {
      0};             // every problem is measured with each; 0: the policy's number
  bool cold = false;  // each run reads q, k and v that no cache holds
};

// Opens a runtime with this number of threads.
using OpenRuntime = std::function<core::Result<std::unique_ptr<core::Runtime>>(int32_t threads)>;

// Measures every problem with every thread count, one runtime after another. Backends that do not
// support a problem, fail or compute something wrong are part of the report and not errors.
// REQUIRES: at least one problem.
core::Result<Report> measure(const OpenRuntime& open, const std::vector<GridProblem>& problems,
                             const Settings& settings, const ProgressBar& bar);

}  // namespace attnrt::cli::bench
