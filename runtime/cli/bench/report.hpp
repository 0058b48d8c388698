// runtime/cli/bench/report.hpp: the results of `attnrt bench` as plain data
//
//   Report                  everything that one command measured
//     Peak                  one for each device, and for the cpu one for each thread count
//     Comparison            one for each problem and thread count
//       Measurement         one for each backend
//
// measure.cpp fills a Report. table.cpp, json.cpp and page.cpp show it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/bench/work.hpp"
#include "load.hpp"

namespace attnrt::cli::bench {

// The speed limits of one device, measured in the same run as the backends. A limit that cannot be
// measured here is absent.
struct Peak {
  core::Device device;
  int32_t threads;             // for the cpu, the threads it was measured with; else 0
  std::optional<double> fma;   // FLOP/s of f32 multiply-adds on vector units
  std::optional<double> amx;   // FLOP/s of bf16 products on AMX tiles
  std::optional<double> copy;  // bytes/s of a copy in memory: bytes read plus bytes written
  std::optional<double> read;  // bytes/s of reading memory

  // Returns the limit in bytes/s of a problem that is bound by memory.
  std::optional<double> memory() const;
  // Returns the limit in FLOP/s of a problem of that dtype. AMX has no f16 products, but an f16
  // number is the sum of two bf16 numbers, so the bf16 limit bounds f16, too.
  std::optional<double> compute(attnrt_dtype dtype) const;
};

// The outcome of one backend on one problem.
enum class State {
  measured,
  unsupported,  // the backend does not support the problem, or memory does not hold it
  failed,       // a call of the backend failed
  wrong,        // the output is not the right one
};
const char* state_name(State state);

// One backend on one problem.
struct Measurement {
  std::string backend, version, kernel;
  core::Device device;
  State state = State::unsupported;
  std::string reason;           // why there is no time; empty if measured
  std::string checked;          // what the output was compared with
  std::vector<double> seconds;  // the time of one run in each sample, ascending
  int64_t runs = 0;             // runs in each sample
  bool device_clock = false;    // timed by attnrt.timing/1 rather than the host's clock

  // Returns the time that a fraction of the samples does not exceed, interpolated linearly between
  // samples. REQUIRES: state is measured.
  double quantile(double fraction) const;
  double median() const { return quantile(0.5); }
};

// All backends on one problem, with one thread count.
struct Comparison : GridProblem {
  int32_t threads = 0;
  Work work;
  std::vector<Measurement> measurements;  // in the same order of backends in every Comparison
};

struct Report {
  std::string processor;
  std::vector<int32_t> threads;  // the thread counts, in the order they were asked for
  int64_t samples = 0;
  bool cold = false;
  std::vector<Peak> peaks;
  std::vector<Comparison> comparisons;  // for each problem in turn, one for each thread count

  std::vector<std::string> groups() const;  // in the order of the problems; "" is one, too
  std::vector<GridProblem> problems_of(const std::string& group) const;  // one for each comparison
  // Returns the limits of a device with a thread count; nullptr if it was not measured.
  const Peak* peak_of(const core::Device& device, int32_t threads) const;
  // Returns how many times as fast a backend is as with the first thread count. Nothing, unless it
  // was measured with both. The arguments are indices into comparisons and its measurements.
  std::optional<double> scaling(size_t comparison, size_t measurement) const;
  int64_t count(State state) const;  // how many measurements have this state
  bool has_unserved() const;         // whether there is a problem that no backend supports
};

}  // namespace attnrt::cli::bench
