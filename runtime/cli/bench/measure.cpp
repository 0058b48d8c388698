// runtime/cli/bench/measure.cpp: measures every backend on every problem, with every thread count
//
//   for each thread count
//     peaks
//     for each problem
//       for each backend: plan, run once into poisoned outputs, check, warm up
//       for each sample:  for each backend: time one sample
//       for each backend: check what the last sample left in the outputs
//     peaks again
//
// A sample is so many runs in a row that it takes a few milliseconds; its value is the time of one
// run. The backends take turns, one sample each, so other work on the machine slows all of them
// alike. A report shows the median of a backend's samples, which single slow samples do not move,
// and their quartiles as the spread. Only a backend whose outputs are right gets a time.
#include "cli/bench/measure.hpp"

#include <algorithm>

#include "cli/bench/backend_run.hpp"
#include "cli/bench/memory.hpp"
#include "cli/bench/peak.hpp"
#include "cli/bench/table.hpp"
#include "cli/bench/tensors.hpp"
#include "cli/doctor/machine.hpp"

namespace attnrt::cli::bench {
namespace {

using core::fail;
using core::Result;

using BackendRuns = std::vector<std::unique_ptr<BackendRun>>;

// The bar's state. A step is one sample of all backends.
struct Progress {
  const ProgressBar& bar;
  int64_t total_steps, done_steps = 0;
  void show(const std::string& what) const { bar.show(done_steps, total_steps, what); }
};

// Prepares and checks all backends, then times them in turn and checks them again. Calls `step`
// after each round of samples.
void measure_runs(const BackendRuns& runs, core::Runtime& runtime, const core::Problem& problem,
                  Tensors& tensors, const Settings& settings, const std::function<void()>& step) {
  OutputCheck outputs(problem, tensors);
  for (const auto& run : runs) {
    run->prepare(runtime, problem, tensors, settings.cold);
    run->poison_outputs(tensors);
    run->run_once();
    run->fetch_outputs(tensors);
    outputs.check(*run, tensors);
    run->warm_up();
  }
  for (int64_t sample = 0; sample < settings.samples; ++sample) {
    const bool last = sample + 1 == settings.samples;
    for (const auto& run : runs) {
      run->sample();
      if (!last) continue;
      run->fetch_outputs(tensors);
      outputs.check(*run, tensors);
    }
    step();
  }
}

// Warns if the copies of q, k and v that --cold makes are so small that a cache may hold them all.
void warn_of_warm_runs(const core::Problem& problem, const Tensors& tensors) {
  const int64_t bytes = cold_bytes(tensors);
  const ColdCopies copies = cold_copies(bytes);
  if (copies.enough) return;
  warn(
      fmt::format("{}: --cold makes {} copies of q, k and v, {} KiB in all, which a cache may hold",
                  core::describe(problem), copies.count, copies.count * bytes / 1024));
}

// Measures one problem. If its tensors do not fit in memory, every backend is unsupported.
Result<Comparison> measure_problem(core::Runtime& runtime, GridProblem grid_problem,
                                   const std::vector<BackendDevice>& backends,
                                   const Settings& settings, const std::function<void()>& step) {
  BackendRuns runs;
  for (const BackendDevice& backend : backends)
    runs.push_back(std::make_unique<BackendRun>(backend));
  const auto fits = check_memory(grid_problem, bytes_available());
  auto tensors = fits ? make_tensors(grid_problem) : tl::unexpected(fits.error());
  const core::Problem& problem = grid_problem.problem;
  Comparison comparison{grid_problem};
  if (tensors) {
    if (settings.cold) warn_of_warm_runs(problem, *tensors);
    measure_runs(runs, runtime, problem, *tensors, settings, step);
    comparison.work = work_of(grid_problem);
  } else if (tensors.error().code == ATTNRT_OUT_OF_MEMORY) {
    for (const auto& run : runs) run->stop(tensors.error());
    for (int64_t n = 0; n < settings.samples; ++n) step();
  } else {
    return fail(tensors.error().code, "{}: {}", core::describe(problem), tensors.error().message);
  }
  for (const auto& run : runs) {
    Measurement& m = run->measurement;
    std::sort(m.seconds.begin(), m.seconds.end());
    if (m.state != State::measured) m.seconds.clear(), m.runs = 0;
    comparison.measurements.push_back(std::move(m));
  }
  return comparison;
}

std::shared_ptr<const core::Backend> backend_of(const core::Snapshot& snapshot,
                                                const core::Device& wanted) {
  for (const auto& entry : snapshot.entries) {
    const auto backend = entry->backend();
    if (!backend) continue;
    for (const core::Device& device : backend->devices())
      if (device.type == wanted.type && device.id == wanted.id) return backend;
  }
  return nullptr;
}

// Measures the limits of one runtime's devices, and keeps them as the report's peaks.
class Peaks {
 public:
  Peaks(const core::Snapshot& snapshot, Report& report)
      : snapshot_(snapshot), threads_(*snapshot.services->threads), report_(report) {}

  void add_devices_of(const std::vector<BackendDevice>& backends) {
    for (const BackendDevice& backend : backends) {
      if (report_.peak_of(backend.device, threads_.count()) != nullptr) continue;
      const bool cpu = backend.device.type == ATTNRT_DEVICE_CPU;
      report_.peaks.push_back({backend.device, cpu ? threads_.count() : 0, {}, {}, {}, {}});
    }
  }

  void measure() {
    for (Peak& peak : report_.peaks) {
      if (peak.threads == threads_.count()) {
        if (!cpu_) cpu_.emplace(threads_);
        cpu_->measure(peak);
      } else if (peak.threads == 0) {
        if (const auto backend = backend_of(snapshot_, peak.device))
          measure_device_peak(backend, peak);
      }
    }
  }

 private:
  const core::Snapshot& snapshot_;
  core::Threads& threads_;
  Report& report_;
  std::optional<CpuPeak> cpu_;
};

// Measures every problem with one runtime, and appends the results to the report.
Result<void> measure_all(core::Runtime& runtime, const std::vector<GridProblem>& problems,
                         const Settings& settings, Report& report, Progress& progress) {
  const auto backends = find_backends(runtime, settings.backends);
  if (!backends) return tl::unexpected(backends.error());
  const auto snapshot = runtime.snapshot();
  const int32_t threads = snapshot->services->threads->count();
  report.threads.push_back(threads);
  const std::string prefix = settings.threads.size() > 1 ? threads_text(threads) + ": " : "";

  Peaks peaks(*snapshot, report);
  peaks.add_devices_of(*backends);
  progress.show(prefix + "peaks");
  peaks.measure();
  const Columns columns = columns_of(problems);
  for (const GridProblem& problem : problems) {
    const std::string what = prefix + columns.text(problem);
    progress.show(what);
    auto comparison = measure_problem(runtime, problem, *backends, settings,
                                      [&] { ++progress.done_steps, progress.show(what); });
    if (!comparison) return tl::unexpected(comparison.error());
    comparison->threads = threads;
    report.comparisons.push_back(std::move(*comparison));
  }
  progress.show(prefix + "peaks");
  peaks.measure();
  return {};
}

// Reorders comparisons from "for each thread count, all problems" to "for each problem, all thread
// counts".
std::vector<Comparison> grouped_by_problem(std::vector<Comparison> comparisons, size_t problems) {
  std::vector<Comparison> grouped;
  for (size_t problem = 0; problem < problems; ++problem)
    for (size_t n = problem; n < comparisons.size(); n += problems)
      grouped.push_back(std::move(comparisons[n]));
  return grouped;
}

}  // namespace

Result<Report> measure(const OpenRuntime& open, const std::vector<GridProblem>& problems,
                       const Settings& settings, const ProgressBar& bar) {
  Report report;
  report.processor = doctor::read_machine().processor;
  report.samples = settings.samples;
  report.cold = settings.cold;
  const auto rounds = static_cast<int64_t>(problems.size() * settings.threads.size());
  Progress progress{bar, rounds * settings.samples};
  for (const int32_t threads : settings.threads) {
    const auto runtime = open(threads);
    if (!runtime) return tl::unexpected(runtime.error());
    const auto measured = measure_all(**runtime, problems, settings, report, progress);
    if (!measured) return tl::unexpected(measured.error());
  }
  report.comparisons = grouped_by_problem(std::move(report.comparisons), problems.size());
  return report;
}

}  // namespace attnrt::cli::bench
