// runtime/cli/bench_measure.cpp: problems and backends into times of outputs that were found right
//
// All backends of a problem are prepared, then sampled in turn, so that what else the machine does meets them alike.
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "bench.hpp"
#include "bench_place.hpp"
#include "run.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

using core::DeviceMemory;
using core::fail;
using core::Result;

constexpr double kWarmUpSeconds = 0.05;
constexpr double kSampleSeconds = 0.002;            // at least, so that a clock's steps do not count
constexpr int64_t kMaxRuns = 100'000;               // of one sample
constexpr int64_t kColdBytes = int64_t{512} << 20;  // of inputs that are gone through before one is read again

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The device's memory, copied within itself. Where that fails there is no such number; runs will say what is wrong.
void measure_device_peak(const std::shared_ptr<const core::Backend>& backend, Peak& peak) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  constexpr int kTries = 5, kCopies = 4;
  const auto place = Place::make(backend, peak.device);
  const auto one = DeviceMemory::allocate(backend, peak.device, DeviceMemory::Kind::device, kBytes, 256);
  const auto two = DeviceMemory::allocate(backend, peak.device, DeviceMemory::Kind::device, kBytes, 256);
  for (int n = 0; place && one && two && n <= kTries; ++n) {  // the first one warms up
    const auto seconds = (*place)->time([&]() -> Result<void> {
      Result<void> copied;
      for (int c = 0; copied && c < kCopies; ++c) copied = (*place)->copy(two->data(), one->data(), kBytes);
      return copied;
    });
    if (seconds && *seconds > 0 && n > 0)
      peak.copy = std::max(2.0 * kBytes * kCopies / *seconds, peak.copy.value_or(0));
  }
}

// A backend and the device of it that takes part.
struct Candidate {
  std::string name, version;
  core::Device device;
};

// One backend on one problem: prepared, found right, ready to be sampled.
class Contestant {
 public:
  explicit Contestant(const Candidate& candidate) {
    m.backend = candidate.name, m.version = candidate.version, m.device = candidate.device;
  }

  // A no of the backend is State::unsupported; memory that does not suffice is such a no.
  void prepare(core::Runtime& runtime, const core::Problem& problem, const Tensors& tensors, bool cold) {
    const core::Problem there = core::problem_on(m.device, problem);
    const core::Call call{.backend = m.backend};
    const auto decision = runtime.decide(there, call);
    if (decision->winner() == nullptr) return refuse(State::unsupported, reason_of(*decision));
    auto plan = runtime.plan(there, call);
    if (!plan) return refuse(plan.error());
    plan_ = std::move(*plan);
    m.version = plan_->version(), m.kernel = plan_->kernel();
    auto place = Place::make(decision->winner()->candidate.backend, m.device);
    if (!place) return refuse(place.error());
    place_ = std::move(*place);
    auto args = place_->bring(tensors);
    if (!args) return refuse(args.error());
    args_ = {*args};
    int64_t bytes = 0;
    for (int n = 0; n < 3; ++n) bytes += tensors.all[static_cast<size_t>(n)]->bytes();
    for (int64_t held = bytes; cold && held < kColdBytes; held += bytes) {
      auto more = place_->bring_inputs_again(tensors, *args);
      if (!more) return refuse(more.error());
      args_.push_back(*more);
    }
    m.device_clock = place_->has_clock();
    m.state = State::measured;
  }

  // NaN in the outputs here: what is not written is not found right.
  void poison(Tensors& tensors) {
    for (Tensor* tensor : outputs(tensors)) std::memset(tensor->data(), 0xFF, static_cast<size_t>(tensor->bytes()));
    move_outputs(tensors, true);
  }
  // The outputs as they are here, into `tensors`.
  void fetch(Tensors& tensors) { move_outputs(tensors, false); }
  void run_once() {
    if (const auto seconds = time(1); !seconds) refuse(seconds.error());
  }

  // As many runs as make a sample long enough, known once caches and threads are warm.
  void warm_up() {
    const auto start = std::chrono::steady_clock::now();
    double fastest = INFINITY;
    for (int64_t n = 0; n == 0 || seconds_since(start) < kWarmUpSeconds; ++n) {
      const auto seconds = time(1);
      if (!seconds) return refuse(seconds.error());
      fastest = std::min(fastest, *seconds);
    }
    const double runs = std::ceil(kSampleSeconds / std::max(fastest, 1e-9));
    m.runs = std::max<int64_t>(1, static_cast<int64_t>(std::min(runs, static_cast<double>(kMaxRuns))));
  }

  void sample() {
    const auto seconds = time(m.runs);
    if (!seconds) return refuse(seconds.error());
    m.seconds.push_back(*seconds / static_cast<double>(m.runs));
  }

  void refuse(const core::Error& error) {
    const bool no = error.code == ATTNRT_UNSUPPORTED || error.code == ATTNRT_OUT_OF_MEMORY;
    std::string message = error.message;  // the table's row names the backend
    for (const char* step : {"plan: ", "run: "})
      if (const std::string prefix = step + m.backend + ": "; message.starts_with(prefix))
        message.erase(0, prefix.size());
    refuse(no ? State::unsupported : State::failed, message);
  }
  void refuse(State state, const std::string& reason) { m.state = state, m.reason = one_line(reason); }
  bool runs() const { return m.state == State::measured; }

  Measurement m;

 private:
  void move_outputs(Tensors& tensors, bool to_here) {
    for (Tensor* tensor : outputs(tensors)) {
      void* here = tensor == &tensors.out() ? args_[0].out.data : args_[0].lse.data;
      const auto moved = place_->move(tensor->data(), here, tensor->bytes(), to_here);
      if (!moved && runs()) refuse(moved.error());
    }
  }
  // This backend's own reasons; where it is no candidate, what the decision says.
  std::string reason_of(const core::Decision& decision) const {
    for (const core::Verdict& verdict : decision.verdicts) {
      const bool own = verdict.candidate.plugin->manifest->name == m.backend && !verdict.reasons.empty();
      if (own) return fmt::format("{}", fmt::join(verdict.reasons, ", "));
    }
    return decision.message;
  }
  static std::vector<Tensor*> outputs(Tensors& tensors) {
    std::vector<Tensor*> list = {&tensors.out()};
    if (tensors.lse()) list.push_back(&*tensors.lse());
    return list;
  }
  Result<double> time(int64_t runs) {
    return place_->time([&]() -> Result<void> {
      attnrt_error error = ATTNRT_ERROR_INIT;
      for (int64_t n = 0; n < runs; ++n)
        if (const auto status = core::run(*plan_, args_[next_++ % args_.size()], &error); status != ATTNRT_OK)
          return fail(ATTNRT_INTERNAL, "{}", error.message);  // after its plan, no is no answer
      return {};
    });
  }

  std::unique_ptr<core::Plan> plan_;
  std::unique_ptr<Place> place_;
  std::vector<attnrt_args> args_;  // several: cold, each run takes the next one's q, k and v
  size_t next_ = 0;
};

// Each backend once, on its first device of a kind, in the order of the directories; or those that were asked for.
Result<std::vector<Candidate>> find_candidates(core::Runtime& runtime, const std::vector<std::string>& wanted) {
  std::vector<Candidate> ready;
  std::vector<std::string_view> names;
  std::string absent;
  const auto rows = runtime.plugins(wanted.empty());
  for (const core::PluginRow& row : rows) {
    if (!row.plugin->manifest) continue;
    const auto& manifest = *row.plugin->manifest;
    names.push_back(manifest.name);
    if (row.devices.empty()) absent += fmt::format("{}{} ({})", absent.empty() ? "" : "; ", manifest.name, row.reason);
    std::vector<core::Device> devices = row.devices;
    std::sort(devices.begin(), devices.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    for (const core::Device& device : devices) {
      const bool known = std::any_of(ready.begin(), ready.end(), [&](const Candidate& c) {
        return c.name == manifest.name && c.device.type == device.type;
      });
      if (!known) ready.push_back({manifest.name, manifest.version_text, device});
    }
  }
  if (wanted.empty()) {
    if (ready.empty()) return fail(ATTNRT_NOT_FOUND, "no backend has a device{}{}", absent.empty() ? "" : ": ", absent);
    return ready;
  }
  std::vector<Candidate> chosen;
  for (const std::string& name : wanted) {
    const size_t before = chosen.size();
    for (const Candidate& candidate : ready)
      if (candidate.name == name) chosen.push_back(candidate);
    if (chosen.size() > before) continue;
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) {
      return r.plugin->manifest && r.plugin->manifest->name == name;
    });
    if (row != rows.end()) return fail(ATTNRT_NOT_FOUND, "backend {}: {}: {}", name, row->state, row->reason);
    const std::string_view near = core::nearest(name, names);
    return fail(ATTNRT_NOT_FOUND, "there is no backend {}{}", core::shown(name),
                near.empty() ? fmt::format(", expected one of {}", fmt::join(names, ", "))
                             : fmt::format("; did you mean {}?", near));
  }
  return chosen;
}

std::shared_ptr<const core::Backend> backend_on(const core::Snapshot& snapshot, const core::Device& wanted) {
  for (const auto& entry : snapshot.entries) {
    if (!entry->backend) continue;
    for (const core::Device& device : entry->backend->devices())
      if (device.type == wanted.type && device.id == wanted.id) return entry->backend;
  }
  return nullptr;
}

// Checks what the tensors hold against the reference, and against the first backend that was right.
class Judge {
 public:
  Judge(const core::Problem& problem, const Tensors& tensors) : checker_(problem, tensors) {}

  void judge(Contestant& contestant, Tensors& tensors) {
    if (!contestant.runs()) return;
    const Tensor* lse = tensors.lse() ? &*tensors.lse() : nullptr;
    const Tensor* other = first_ != nullptr && first_ != &contestant ? &first_out_ : nullptr;
    const std::string wrong =
        checker_.check(tensors.out(), lse, other, first_ != nullptr ? first_->m.backend : std::string());
    if (!wrong.empty()) return contestant.refuse(State::wrong, wrong);
    contestant.m.checked = "the reference in " + checker_.extent();
    if (other != nullptr) contestant.m.checked += fmt::format(", {} in all", first_->m.backend);
    if (first_ != nullptr) return;
    first_ = &contestant;
    first_out_ = std::move(*Tensor::allocate(tensors.out().dtype(), tensors.out().shape()));
    std::memcpy(first_out_.data(), tensors.out().data(), static_cast<size_t>(tensors.out().bytes()));
  }

 private:
  Checker checker_;
  const Contestant* first_ = nullptr;
  Tensor first_out_;
};

Result<Comparison> measure_one(core::Runtime& runtime, core::Problem problem, const std::vector<Candidate>& candidates,
                               const Settings& settings, const std::function<void()>& progress) {
  auto tensors = make_tensors(problem);
  if (!tensors) return tl::unexpected(tensors.error());
  Judge judge(problem, *tensors);
  std::vector<std::unique_ptr<Contestant>> contestants;
  for (const Candidate& candidate : candidates) {
    auto& contestant = *contestants.emplace_back(std::make_unique<Contestant>(candidate));
    contestant.prepare(runtime, problem, *tensors, settings.cold);
    if (contestant.runs()) contestant.poison(*tensors);
    if (contestant.runs()) contestant.run_once();
    if (contestant.runs()) contestant.fetch(*tensors);
    judge.judge(contestant, *tensors);
    if (contestant.runs()) contestant.warm_up();
  }
  for (int64_t n = 0; n < settings.samples; ++n) {
    for (const auto& contestant : contestants) {
      if (contestant->runs()) contestant->sample();
      if (n + 1 < settings.samples || !contestant->runs()) continue;
      contestant->fetch(*tensors);  // what the last measured run left
      judge.judge(*contestant, *tensors);
    }
    progress();
  }
  Comparison result{problem, 0, work_of(problem), {}};
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
    if (colon != std::string::npos && line.starts_with("model name")) return one_line(line.substr(colon + 2));
  }
  return "unknown processor";
}

struct Progress {
  const ProgressBar& bar;
  int64_t all, done = 0;
  void show(const std::string& what) const { bar.show(done, all, what); }
};

// Every problem with one runtime's threads, to the end of the report.
Result<void> measure_all(core::Runtime& runtime, const std::vector<core::Problem>& problems, const Settings& settings,
                         Report& report, Progress& progress) {
  const auto candidates = find_candidates(runtime, settings.backends);
  if (!candidates) return tl::unexpected(candidates.error());
  const auto snapshot = runtime.snapshot();
  core::Threads& threads = *snapshot->services->threads;
  const int32_t count = threads.count();
  report.threads.push_back(count);
  for (const Candidate& candidate : *candidates) {
    if (report.peak_of(candidate.device, count) != nullptr) continue;
    report.peaks.push_back({candidate.device, candidate.device.type == ATTNRT_DEVICE_CPU ? count : 0, {}, {}, {}, {}});
  }
  std::optional<CpuPeak> cpu;
  const auto measure_peaks = [&] {
    for (Peak& peak : report.peaks) {
      if (peak.threads == count) {
        if (!cpu) cpu.emplace(threads);
        cpu->measure(peak);
      } else if (const auto backend = peak.threads == 0 ? backend_on(*snapshot, peak.device) : nullptr) {
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
    auto result = measure_one(runtime, problem, *candidates, settings, [&] { ++progress.done, progress.show(what); });
    if (!result) return fail(result.error().code, "{}: {}", core::describe(problem), result.error().message);
    result->threads = count;
    report.comparisons.push_back(std::move(*result));
  }
  progress.show(with + "what this machine can do");
  measure_peaks();
  return {};
}

}  // namespace

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
    for (size_t c = 0; c < counts; ++c) by_problem.push_back(std::move(report.comparisons[c * problems.size() + p]));
  report.comparisons = std::move(by_problem);
  return report;
}

}  // namespace attnrt::cli::bench
