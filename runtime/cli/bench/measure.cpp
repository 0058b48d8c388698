// runtime/cli/bench/measure.cpp: problems and backends into times of outputs that were found right
//
// All backends of a problem are prepared, then sampled in turn, so that what else the machine does meets them alike.
#include <algorithm>
#include <fstream>

#include "cli/bench/bench.hpp"
#include "cli/bench/contestant.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

using core::DeviceMemory;
using core::fail;
using core::Result;

// The device's memory, copied within itself. Where that fails there is no such number; runs will say what is wrong.
void measure_device_peak(const std::shared_ptr<const core::Backend>& backend, Peak& peak) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  constexpr int kTries = 5, kCopies = 4;
  const auto place = Place::make(backend, peak.device);
  const auto one =
      DeviceMemory::allocate(backend, peak.device, DeviceMemory::Kind::device, kBytes, 256);
  const auto two =
      DeviceMemory::allocate(backend, peak.device, DeviceMemory::Kind::device, kBytes, 256);
  for (int n = 0; place && one && two && n <= kTries; ++n) {  // the first one warms up
    const auto seconds = (*place)->time([&]() -> Result<void> {
      Result<void> copied;
      for (int c = 0; copied && c < kCopies; ++c)
        copied = (*place)->copy(two->data(), one->data(), kBytes);
      return copied;
    });
    if (seconds && *seconds > 0 && n > 0)
      peak.copy = std::max(2.0 * kBytes * kCopies / *seconds, peak.copy.value_or(0));
  }
}

std::shared_ptr<const core::Backend> backend_on(const core::Snapshot& snapshot,
                                                const core::Device& wanted) {
  for (const auto& entry : snapshot.entries) {
    if (!entry->backend) continue;
    for (const core::Device& device : entry->backend->devices())
      if (device.type == wanted.type && device.id == wanted.id) return entry->backend;
  }
  return nullptr;
}

using Contestants = std::vector<std::unique_ptr<Contestant>>;

// Each prepared and found right, then sampled in turn, and found right again.
void compete(const Contestants& contestants, core::Runtime& runtime, const core::Problem& problem,
             Tensors& tensors, const Settings& settings, const std::function<void()>& progress) {
  Judge judge(problem, tensors);
  for (const auto& contestant : contestants) {
    contestant->prepare(runtime, problem, tensors, settings.cold);
    if (contestant->runs()) contestant->poison(tensors);
    if (contestant->runs()) contestant->run_once();
    if (contestant->runs()) contestant->fetch(tensors);
    judge.judge(*contestant, tensors);
    if (contestant->runs()) contestant->warm_up();
  }
  for (int64_t n = 0; n < settings.samples; ++n) {
    for (const auto& contestant : contestants) {
      if (contestant->runs()) contestant->sample();
      if (n + 1 < settings.samples || !contestant->runs()) continue;
      contestant->fetch(tensors);  // what the last measured run left
      judge.judge(*contestant, tensors);
    }
    progress();
  }
}

// A problem that memory does not hold is one that no backend supports here.
Result<Comparison> measure_one(core::Runtime& runtime, core::Problem problem,
                               const std::vector<Candidate>& candidates, const Settings& settings,
                               const std::function<void()>& progress) {
  Contestants contestants;
  for (const Candidate& candidate : candidates)
    contestants.push_back(std::make_unique<Contestant>(candidate));
  auto tensors = make_tensors(problem);
  if (tensors) {
    compete(contestants, runtime, problem, *tensors, settings, progress);
  } else if (tensors.error().code == ATTNRT_OUT_OF_MEMORY) {
    for (const auto& contestant : contestants) contestant->refuse(tensors.error());
    for (int64_t n = 0; n < settings.samples; ++n) progress();
  } else {
    return tl::unexpected(tensors.error());
  }
  Comparison result{problem, 0, tensors ? work_of(problem) : Work{}, {}};
  for (const auto& contestant : contestants) {
    auto& m = contestant->m;
    std::sort(m.seconds.begin(), m.seconds.end());
    if (m.state != State::measured) m.seconds.clear(), m.runs = 0;
    result.measurements.push_back(std::move(m));
  }
  return result;
}

std::string processor_name() {
  std::ifstream stream("/proc/cpuinfo");
  for (std::string line; std::getline(stream, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos && line.starts_with("model name"))
      return one_line(line.substr(colon + 2));
  }
  return "unknown processor";
}

struct Progress {
  const ProgressBar& bar;
  int64_t all, done = 0;
  void show(const std::string& what) const { bar.show(done, all, what); }
};

// Every problem with one runtime's threads, to the end of the report.
Result<void> measure_all(core::Runtime& runtime, const std::vector<core::Problem>& problems,
                         const Settings& settings, Report& report, Progress& progress) {
  const auto candidates = find_candidates(runtime, settings.backends);
  if (!candidates) return tl::unexpected(candidates.error());
  const auto snapshot = runtime.snapshot();
  core::Threads& threads = *snapshot->services->threads;
  const int32_t count = threads.count();
  report.threads.push_back(count);
  for (const Candidate& candidate : *candidates) {
    if (report.peak_of(candidate.device, count) != nullptr) continue;
    report.peaks.push_back(
        {candidate.device, candidate.device.type == ATTNRT_DEVICE_CPU ? count : 0, {}, {}, {}, {}});
  }
  std::optional<CpuPeak> cpu;
  const auto measure_peaks = [&] {
    for (Peak& peak : report.peaks) {
      if (peak.threads == count) {
        if (!cpu) cpu.emplace(threads);
        cpu->measure(peak);
      } else if (const auto backend =
                     peak.threads == 0 ? backend_on(*snapshot, peak.device) : nullptr) {
        measure_device_peak(backend, peak);
      }
    }
  };

  // The peaks come first and last, and the better ones count: other work on the machine is not to raise a percentage.
  const std::string with = settings.threads.size() > 1 ? threads_text(count) + ": " : "";
  progress.show(with + "what this machine can do");
  measure_peaks();
  const Columns columns = columns_of(problems);
  for (const core::Problem& problem : problems) {
    const std::string what = with + columns.text(problem);
    progress.show(what);
    auto result = measure_one(runtime, problem, *candidates, settings,
                              [&] { ++progress.done, progress.show(what); });
    if (!result)
      return fail(result.error().code, "{}: {}", core::describe(problem), result.error().message);
    result->threads = count;
    report.comparisons.push_back(std::move(*result));
  }
  progress.show(with + "what this machine can do");
  measure_peaks();
  return {};
}

}  // namespace

double Measurement::quantile(double part) const {
  const double at = part * static_cast<double>(seconds.size() - 1);
  const size_t low = static_cast<size_t>(at), high = std::min(low + 1, seconds.size() - 1);
  return seconds[low] + (at - static_cast<double>(low)) * (seconds[high] - seconds[low]);
}

const char* state_name(State state) {
  constexpr std::array kNames = {"measured", "unsupported", "failed", "wrong"};
  return kNames[static_cast<size_t>(state)];
}

std::vector<core::Problem> Report::problems() const {
  std::vector<core::Problem> problems;
  for (const Comparison& comparison : comparisons) problems.push_back(comparison.problem);
  return problems;
}

const Peak* Report::peak_of(const core::Device& device, int32_t count) const {
  const auto found = std::find_if(peaks.begin(), peaks.end(), [&](const Peak& peak) {
    return peak.device.type == device.type && peak.device.id == device.id &&
           (peak.threads == 0 || peak.threads == count);
  });
  return found != peaks.end() ? &*found : nullptr;
}

std::optional<double> Report::scaling(size_t comparison, size_t n) const {
  const Measurement& first = comparisons[comparison - comparison % threads.size()].measurements[n];
  const Measurement& here = comparisons[comparison].measurements[n];
  if (first.state != State::measured || here.state != State::measured) return std::nullopt;
  return first.median() / here.median();
}

int64_t Report::count(State state) const {
  int64_t sum = 0;
  for (const Comparison& result : comparisons)
    sum += std::count_if(result.measurements.begin(), result.measurements.end(),
                         [&](const Measurement& m) { return m.state == state; });
  return sum;
}

bool Report::has_unserved() const {
  return std::any_of(comparisons.begin(), comparisons.end(), [](const Comparison& result) {
    return std::all_of(result.measurements.begin(), result.measurements.end(),
                       [](const Measurement& m) { return m.state == State::unsupported; });
  });
}

core::Result<Report> measure(const OpenRuntime& open, const std::vector<core::Problem>& problems,
                             const Settings& settings, const ProgressBar& bar) {
  Report report{processor_name(), {}, settings.samples, settings.cold, {}, {}};
  const size_t counts = settings.threads.size();
  Progress progress{bar, static_cast<int64_t>(problems.size() * counts) * settings.samples};
  for (const int32_t count : settings.threads) {
    const auto runtime = open(count);
    if (!runtime) return tl::unexpected(runtime.error());
    const auto measured = measure_all(**runtime, problems, settings, report, progress);
    if (!measured) return tl::unexpected(measured.error());
  }
  std::vector<Comparison> by_problem;
  for (size_t p = 0; p < problems.size(); ++p)
    for (size_t c = 0; c < counts; ++c)
      by_problem.push_back(std::move(report.comparisons[c * problems.size() + p]));
  report.comparisons = std::move(by_problem);
  return report;
}

}  // namespace attnrt::cli::bench
