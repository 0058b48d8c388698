// runtime/cli/bench/backend_run.cpp: plans, checks and times one backend on one problem
#include "cli/bench/backend_run.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "cli/bench/memory.hpp"
#include "cli/command.hpp"
#include "run.hpp"

namespace attnrt::cli::bench {
namespace {

using core::fail;
using core::Result;

constexpr double kWarmUpSeconds = 0.05;   // of runs before the first sample
constexpr double kSampleSeconds = 0.002;  // at least, for each sample: many ticks of any clock
// Runs in one sample at most, for a backend whose single run is too short to be timed.
constexpr int64_t kMaxRuns = 100'000;
constexpr double kShortestRun = 1e-9;  // seconds: stands for a run that seems to take none

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void fill_with_nan(Tensor& tensor) {
  std::memset(tensor.data(), 0xFF, static_cast<size_t>(tensor.bytes()));
}

// Returns why the backend does not support the problem: its own reasons if the decision has some,
// else the decision's message.
std::string reason_for(const std::string& backend, const core::Decision& decision) {
  for (const core::Verdict& verdict : decision.verdicts) {
    const bool own = verdict.candidate.plugin->manifest->name == backend;
    if (own && !verdict.reasons.empty()) return fmt::format("{}", fmt::join(verdict.reasons, ", "));
  }
  return decision.message;
}

}  // namespace

BackendRun::BackendRun(const BackendDevice& backend) {
  measurement.backend = backend.name;
  measurement.version = backend.version;
  measurement.device = backend.device;
}

void BackendRun::prepare(core::Runtime& runtime, const core::Problem& problem,
                         const Tensors& tensors, bool cold) {
  const core::Problem device_problem = core::problem_on(measurement.device, problem);
  const core::Call call{.backend = measurement.backend};
  const auto decision = runtime.decide(device_problem, call);
  if (decision->winner() == nullptr)
    return stop(State::unsupported, reason_for(measurement.backend, *decision));
  auto plan = runtime.plan(device_problem, call);
  if (!plan) return stop(plan.error());
  plan_ = std::move(*plan);
  measurement.version = plan_->version();
  measurement.kernel = plan_->kernel();

  auto memory = BenchMemory::open(decision->winner()->candidate.backend, measurement.device);
  if (!memory) return stop(memory.error());
  memory_ = std::move(*memory);
  const auto args = memory_->place(tensors);
  if (!args) return stop(args.error());
  args_ = {*args};
  const int64_t copies = cold ? cold_copies(cold_bytes(tensors)).count : 1;
  for (int64_t n = 1; n < copies; ++n) {
    const auto more = memory_->copy_inputs(tensors, *args);
    if (!more) return stop(more.error());
    args_.push_back(*more);
  }
  measurement.device_clock = memory_->has_device_clock();
  measurement.state = State::measured;
}

void BackendRun::poison_outputs(Tensors& tensors) {
  if (!ok()) return;
  fill_with_nan(*tensors.out);
  auto copied =
      memory_->copy_to_device(args_[0].out.data, tensors.out->data(), tensors.out->bytes());
  if (copied && tensors.lse) {
    fill_with_nan(*tensors.lse);
    copied = memory_->copy_to_device(args_[0].lse.data, tensors.lse->data(), tensors.lse->bytes());
  }
  if (!copied) stop(copied.error());
}

void BackendRun::fetch_outputs(Tensors& tensors) {
  if (!ok()) return;
  auto copied = memory_->copy_to_host(tensors.out->data(), args_[0].out.data, tensors.out->bytes());
  if (copied && tensors.lse)
    copied = memory_->copy_to_host(tensors.lse->data(), args_[0].lse.data, tensors.lse->bytes());
  if (!copied) stop(copied.error());
}

void BackendRun::run_once() {
  if (!ok()) return;
  if (const auto seconds = time(1); !seconds) stop(seconds.error());
}

void BackendRun::warm_up() {
  if (!ok()) return;
  const auto start = std::chrono::steady_clock::now();
  double fastest = INFINITY;
  for (int64_t n = 0; n == 0 || seconds_since(start) < kWarmUpSeconds; ++n) {
    const auto seconds = time(1);
    if (!seconds) return stop(seconds.error());
    fastest = std::min(fastest, *seconds);
  }
  const double runs = std::ceil(kSampleSeconds / std::max(fastest, kShortestRun));
  measurement.runs = static_cast<int64_t>(std::clamp(runs, 1.0, static_cast<double>(kMaxRuns)));
}

void BackendRun::sample() {
  if (!ok()) return;
  const auto seconds = time(measurement.runs);
  if (!seconds) return stop(seconds.error());
  measurement.seconds.push_back(*seconds / static_cast<double>(measurement.runs));
}

void BackendRun::stop(const core::Error& error) {
  const bool unsupported = error.code == ATTNRT_UNSUPPORTED || error.code == ATTNRT_OUT_OF_MEMORY;
  std::string message = error.message;
  for (const char* step : {"plan: ", "run: "}) {  // the table's row names the backend already
    const std::string prefix = step + measurement.backend + ": ";
    if (message.starts_with(prefix)) message.erase(0, prefix.size());
  }
  stop(unsupported ? State::unsupported : State::failed, message);
}

void BackendRun::stop(State state, const std::string& reason) {
  measurement.state = state;
  measurement.reason = one_line(reason);
}

// Returns the seconds of so many runs, one after another.
Result<double> BackendRun::time(int64_t runs) {
  return memory_->time([&]() -> Result<void> {
    attnrt_error error = ATTNRT_ERROR_INIT;
    for (int64_t n = 0; n < runs; ++n) {
      const attnrt_args& args = args_[next_args_++ % args_.size()];
      // A backend that made a plan has to run it, so any status but OK is a failure.
      if (core::run(*plan_, args, &error) != ATTNRT_OK)
        return fail(ATTNRT_INTERNAL, "{}", error.message);
    }
    return {};
  });
}

void OutputCheck::check(BackendRun& run, const Tensors& tensors) {
  if (!run.ok()) return;
  const Tensor* lse = tensors.lse ? &*tensors.lse : nullptr;
  const bool is_first = first_ == nullptr || first_ == &run;
  const std::string wrong =
      is_first ? reference_.check(*tensors.out, lse, nullptr, "")
               : reference_.check(*tensors.out, lse, &first_out_, first_->measurement.backend);
  if (!wrong.empty()) return run.stop(State::wrong, wrong);
  run.measurement.checked = "the reference in " + reference_.extent();
  if (!is_first) run.measurement.checked += fmt::format(", {} in all", first_->measurement.backend);
  if (first_ != nullptr) return;
  auto copy = Tensor::allocate(tensors.out->dtype(), tensors.out->shape());
  if (!copy) return;  // without memory for a copy, the reference alone decides
  first_ = &run;
  first_out_ = *std::move(copy);
  std::memcpy(first_out_.data(), tensors.out->data(), static_cast<size_t>(tensors.out->bytes()));
}

}  // namespace attnrt::cli::bench
