// runtime/cli/bench/backend_run.hpp: plans, checks and times one backend on one problem
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/bench/backends.hpp"
#include "cli/bench/check.hpp"
#include "cli/bench/device_memory.hpp"
#include "cli/bench/report.hpp"
#include "cli/bench/tensors.hpp"

namespace attnrt::cli::bench {

// The steps of one backend on one problem, which measure.cpp calls in this order: prepare, the
// outputs' check, warm_up, samples, the outputs' check again. A step that fails ends the
// measurement: it sets the state and the reason. From then on ok() is false and steps do nothing.
class BackendRun {
 public:
  explicit BackendRun(const BackendDevice& backend);

  // Makes the plan and copies the tensors to the device. With `cold`, also makes copies of q, k and
  // v, so many that no cache holds an input when its turn comes again.
  void prepare(core::Runtime& runtime, const core::Problem& problem, const Tensors& tensors,
               bool cold);
  // Fills out and lse with NaN, so that an element that is never written counts as wrong.
  void poison_outputs(Tensors& tensors);
  // Copies out and lse from the device into `tensors`.
  void fetch_outputs(Tensors& tensors);
  void run_once();
  // Runs until caches and threads are warm, then chooses how many runs make one sample.
  void warm_up();
  // Times one sample.
  void sample();

  // End the measurement. An error that means "not supported" or "no memory" gives the state
  // unsupported, any other error the state failed.
  void stop(const core::Error& error);
  void stop(State state, const std::string& reason);
  bool ok() const { return measurement.state == State::measured; }

  Measurement measurement;

 private:
  core::Result<double> time(int64_t runs);

  std::unique_ptr<core::Plan> plan_;
  std::unique_ptr<BenchMemory> memory_;
  std::vector<attnrt_args> args_;  // one; with `cold` several, which the runs use in turn
  size_t next_args_ = 0;
};

// Compares the backends' outputs with the reference, and with the first output that was right.
class OutputCheck {
 public:
  OutputCheck(const core::Problem& problem, const Tensors& tensors)
      : reference_(problem, tensors) {}
  // Checks the outputs in `tensors`, which `run` made. Stops the run if they are wrong.
  void check(BackendRun& run, const Tensors& tensors);

 private:
  ReferenceCheck reference_;
  const BackendRun* first_ = nullptr;  // the first run that was right; nullptr: none so far
  Tensor first_out_;                   // its output
};

}  // namespace attnrt::cli::bench
