// runtime/cli/bench/bench.hpp: what the parts of `attnrt bench` share: problems in, measurements out
//
//     flags or a YAML file -> bench_grid -> problems -> bench_measure -> measurements -> bench_text, bench_page -> report
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.hpp"
#include "cli/io/safetensors.hpp"
#include "load.hpp"
#include "problem/problem.hpp"
#include "runtime.hpp"

namespace attnrt::cli::bench {

// ---- bench_grid.cpp: flags or a YAML file into problems ----

// A word of the vocabulary, or seq or heads (both sides' word at once), and the values that it takes.
struct Axis {
  std::string word;
  std::vector<std::string> values;
};

// The words that a grid may name: seq, heads, and the vocabulary but for device and arch, which the backends bring along.
std::vector<std::string_view> grid_words();

// One flag's "512,2048" or "both" into an Axis. The error names what was found and expected, not where.
core::Result<Axis> parse_axis(std::string_view word, std::string_view values);

// Every combination, the last axis fastest. What no axis names: one batch, 8 heads, seq 2048, head_dim 64, and the
// vocabulary's defaults; seq_kv and heads_kv are as seq_q and heads_q where only one side is named.
core::Result<std::vector<core::Problem>> problems_of(const std::vector<Axis>& axes);

// The same for each map in a file's list `problems`; errors begin with file:line:column.
core::Result<std::vector<core::Problem>> read_grid(std::string_view text, const std::string& file);

// ---- bench_tensors.cpp: a problem into its tensors, and what it costs at least ----

// In the order of attnrt_args; what the problem does not use is absent.
struct Tensors {
  static constexpr int kCount = 12;
  std::array<std::optional<Tensor>, kCount> all;
  attnrt_args args() const;
  Tensor& out() { return *all[3]; }
  std::optional<Tensor>& lse() { return all[5]; }
};
attnrt_tensor& tensor_of(attnrt_args& args, int n);  // its n-th tensor

// Dense tensors of random numbers, the same for the same problem. problem: gets the alignment that they have.
core::Result<Tensors> make_tensors(core::Problem& problem);

// What no backend can save: FLOP of the scores that causal and windows leave visible (2 for each multiply-add of q k and
// of weights v; a mask tensor saves nothing), and bytes of each tensor moved once (keys that no query can see are not).
struct Work {
  double flop = 0, bytes = 0;
};
Work work_of(const core::Problem& problem);

// ---- bench_check.cpp: an output into right or wrong ----

class Checker {
 public:
  // Evaluates as many of the last rows (top_left: the first) as the reference can in about a second.
  Checker(const core::Problem& problem, const Tensors& tensors);
  // "" or what is wrong: a value that is no number, a row that is far from the reference, or from `other`.
  std::string check(const Tensor& out, const Tensor* lse, const Tensor* other,
                    std::string_view other_name) const;
  std::string extent() const;  // "64 of 2048 rows"

 private:
  struct Row {
    int64_t index;      // of out's rows
    int64_t lse_index;  // of lse's elements
    std::vector<double> exact;
    double lse;
  };
  void evaluate(const Tensors& tensors, int64_t sequence, int64_t rows);
  double allowed(double keys) const;
  core::Problem problem_;
  std::vector<Row> rows_;
  double norms_ = 0;  // scale |q||k|, at most
  double rms_ = 0;    // of the exact values
};

// ---- bench_peak.cpp: what this machine can do at most ----

// FLOP/s and bytes/s; absent: nothing here can measure it.
struct Peak {
  core::Device device;
  int32_t threads;             // of the cpu; 0: of another device, whatever the cpu's threads
  std::optional<double> fma;   // f32 multiply-adds by vector units
  std::optional<double> amx;   // bf16 products by the processor's matrix units
  std::optional<double> copy;  // memory, read and written
  std::optional<double> read;  // memory, read

  std::optional<double> memory() const { return read ? std::max(*read, copy.value_or(0)) : copy; }
  // What bounds a problem of that dtype, where it is known. f16 is the sum of two bf16, so that bf16's peak bounds it, too.
  std::optional<double> compute(attnrt_dtype dtype) const {
    return amx && dtype.bits == 16 ? amx : fma;
  }
};

// The processor's, on these threads. Each measured number is the best of a few tries, and of those of earlier calls.
class CpuPeak {
 public:
  explicit CpuPeak(core::Threads& threads);
  void measure(Peak& peak);

 private:
  core::Threads& threads_;
  int64_t pieces_;  // of the memory that is read and copied; 0: there was none
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  using Memory = std::unique_ptr<float, Free>;
  Memory from_, to_;
};

// ---- bench_measure.cpp: problems and backends into measurements ----

enum class State { measured, unsupported, failed, wrong };
const char* state_name(State state);

struct Measurement {
  std::string backend, version, kernel;
  core::Device device;
  State state = State::unsupported;
  std::string reason;           // of a state other than measured
  std::string checked;          // what its output was compared with
  std::vector<double> seconds;  // of one run, one for each sample, sorted
  int64_t runs = 0;             // in each sample
  bool device_clock = false;    // attnrt.timing/1 instead of the host's clock

  double quantile(double part) const;  // between two samples on the line through them
  double median() const { return quantile(0.5); }
};

struct Comparison {
  core::Problem problem{};
  int32_t threads = 0;
  Work work;
  std::vector<Measurement> measurements;  // one for each backend
};

struct Settings {
  std::vector<std::string> backends;  // empty: all that are ready
  int64_t samples = 11;
  std::vector<int32_t> threads = {0};  // every problem is measured with each; 0: the policy's
  bool cold = false;                   // each run on inputs that no cache holds
};

struct Report {
  std::string processor;
  std::vector<int32_t> threads;  // in the order asked for
  int64_t samples = 0;
  bool cold = false;
  std::vector<Peak> peaks;  // of the devices that were measured; the cpu's with each thread count
  std::vector<Comparison> comparisons;  // of each problem one for each thread count

  std::vector<core::Problem> problems() const;
  const Peak* peak_of(const core::Device& device, int32_t threads) const;
  // Speed of a comparison's n-th measurement relative to the first thread count's, where both were measured.
  std::optional<double> scaling(size_t comparison, size_t n) const;
  int64_t count(State state) const;
  bool has_unserved() const;  // a problem that no backend supports
};

// Opens one runtime for each thread count, one after the other.
using OpenRuntime = std::function<core::Result<std::unique_ptr<core::Runtime>>(int32_t threads)>;
core::Result<Report> measure(const OpenRuntime& open, const std::vector<core::Problem>& problems,
                             const Settings& settings, const ProgressBar& bar);

// ---- bench_text.cpp, bench_page.cpp: a report for people and scripts ----

// The words in which the problems differ, and those that all share as "dtype=f32 batch=1".
struct Columns {
  std::vector<const core::Word*> words;
  std::vector<std::string>
      names;  // seq where seq_q and seq_kv are always alike; then one column for both
  std::string shared;
  std::vector<std::string> cells(const core::Problem& problem) const;
  std::string text(const core::Problem& problem) const;  // "seq=512 causal=true"
};
Columns columns_of(const std::vector<core::Problem>& problems);

// What a measurement reached of the device's peaks, where they are known; 1 is all.
struct Shares {
  std::optional<double> compute, memory;
};
Shares shares_of(const Measurement& measurement, const Comparison& result, const Peak* peak);

std::string time_text(double seconds);
std::string rate_text(double per_second);  // 68.1 G, 1.23 T: three digits

// The measurements as cells: words that vary, threads if they do, backend, numbers. A row that is shorter ends with a sentence.
struct Table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  size_t left;  // so many columns are words
};
Table table_of(const Report& report);
std::string conditions_text(const Report& report);  // processor, threads, samples, caches
std::string threads_text(int32_t threads);          // 1 thread, 2 threads
std::string peak_text(const Peak& peak, const Report& report);

std::string to_text(const Report& report);
nlohmann::json to_json(const Report& report);
std::string to_page(const Report& report);

}  // namespace attnrt::cli::bench
