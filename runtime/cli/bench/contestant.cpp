// runtime/cli/bench/contestant.cpp: see bench_contestant.hpp
#include "cli/bench/contestant.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/nearest.hpp"
#include "run.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

using core::fail;
using core::Result;

constexpr double kWarmUpSeconds = 0.05;
constexpr double kSampleSeconds = 0.002;  // at least, so that a clock's steps do not count
constexpr int64_t kMaxRuns = 100'000;     // of one sample
constexpr int64_t kColdBytes = int64_t{512}
                               << 20;  // of inputs that are gone through before one is read again

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<Tensor*> outputs(Tensors& tensors) {
  std::vector<Tensor*> list = {&tensors.out()};
  if (tensors.lse()) list.push_back(&*tensors.lse());
  return list;
}

}  // namespace

Result<std::vector<Candidate>> find_candidates(core::Runtime& runtime,
                                               const std::vector<std::string>& wanted) {
  std::vector<Candidate> ready;
  std::vector<std::string_view> names;
  std::string absent;
  const auto rows = runtime.plugins(wanted.empty());
  for (const core::PluginRow& row : rows) {
    if (!row.plugin->manifest) continue;
    const auto& manifest = *row.plugin->manifest;
    names.push_back(manifest.name);
    if (row.devices.empty())
      absent += fmt::format("{}{} ({})", absent.empty() ? "" : "; ", manifest.name, row.reason);
    std::vector<core::Device> devices = row.devices;
    std::sort(devices.begin(), devices.end(),
              [](const auto& a, const auto& b) { return a.id < b.id; });
    for (const core::Device& device : devices) {
      const bool known = std::any_of(ready.begin(), ready.end(), [&](const Candidate& c) {
        return c.name == manifest.name && c.device.type == device.type;
      });
      if (!known) ready.push_back({manifest.name, manifest.version_text, device});
    }
  }
  if (wanted.empty()) {
    if (ready.empty())
      return fail(ATTNRT_NOT_FOUND, "no backend has a device{}{}", absent.empty() ? "" : ": ",
                  absent);
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
    if (row != rows.end())
      return fail(ATTNRT_NOT_FOUND, "backend {}: {}: {}", name, row->state, row->reason);
    return fail(ATTNRT_NOT_FOUND, "there is no backend {}{}", core::shown(name),
                core::expected_one_of(name, names));
  }
  return chosen;
}

void Contestant::prepare(core::Runtime& runtime, const core::Problem& problem,
                         const Tensors& tensors, bool cold) {
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

void Contestant::poison(Tensors& tensors) {
  for (Tensor* tensor : outputs(tensors))
    std::memset(tensor->data(), 0xFF, static_cast<size_t>(tensor->bytes()));
  move_outputs(tensors, true);
}

void Contestant::fetch(Tensors& tensors) { move_outputs(tensors, false); }

void Contestant::run_once() {
  if (const auto seconds = time(1); !seconds) refuse(seconds.error());
}

void Contestant::warm_up() {
  const auto start = std::chrono::steady_clock::now();
  double fastest = INFINITY;
  for (int64_t n = 0; n == 0 || seconds_since(start) < kWarmUpSeconds; ++n) {
    const auto seconds = time(1);
    if (!seconds) return refuse(seconds.error());
    fastest = std::min(fastest, *seconds);
  }
  const double runs = std::ceil(kSampleSeconds / std::max(fastest, 1e-9));
  m.runs =
      std::max<int64_t>(1, static_cast<int64_t>(std::min(runs, static_cast<double>(kMaxRuns))));
}

void Contestant::sample() {
  const auto seconds = time(m.runs);
  if (!seconds) return refuse(seconds.error());
  m.seconds.push_back(*seconds / static_cast<double>(m.runs));
}

void Contestant::refuse(const core::Error& error) {
  const bool no = error.code == ATTNRT_UNSUPPORTED || error.code == ATTNRT_OUT_OF_MEMORY;
  std::string message = error.message;  // the table's row names the backend
  for (const char* step : {"plan: ", "run: "})
    if (const std::string prefix = step + m.backend + ": "; message.starts_with(prefix))
      message.erase(0, prefix.size());
  refuse(no ? State::unsupported : State::failed, message);
}

void Contestant::refuse(State state, const std::string& reason) {
  m.state = state, m.reason = one_line(reason);
}

void Contestant::move_outputs(Tensors& tensors, bool to_here) {
  for (Tensor* tensor : outputs(tensors)) {
    void* here = tensor == &tensors.out() ? args_[0].out.data : args_[0].lse.data;
    const auto moved = place_->move(tensor->data(), here, tensor->bytes(), to_here);
    if (!moved && runs()) refuse(moved.error());
  }
}

// This backend's own reasons; where it is no candidate, what the decision says.
std::string Contestant::reason_of(const core::Decision& decision) const {
  for (const core::Verdict& verdict : decision.verdicts) {
    const bool own =
        verdict.candidate.plugin->manifest->name == m.backend && !verdict.reasons.empty();
    if (own) return fmt::format("{}", fmt::join(verdict.reasons, ", "));
  }
  return decision.message;
}

Result<double> Contestant::time(int64_t runs) {
  return place_->time([&]() -> Result<void> {
    attnrt_error error = ATTNRT_ERROR_INIT;
    for (int64_t n = 0; n < runs; ++n)
      if (const auto status = core::run(*plan_, args_[next_++ % args_.size()], &error);
          status != ATTNRT_OK)
        return fail(ATTNRT_INTERNAL, "{}", error.message);  // after its plan, no is no answer
    return {};
  });
}

void Judge::judge(Contestant& contestant, Tensors& tensors) {
  if (!contestant.runs()) return;
  const Tensor* lse = tensors.lse() ? &*tensors.lse() : nullptr;
  const Tensor* other = first_ != nullptr && first_ != &contestant ? &first_out_ : nullptr;
  const std::string wrong = checker_.check(tensors.out(), lse, other,
                                           first_ != nullptr ? first_->m.backend : std::string());
  if (!wrong.empty()) return contestant.refuse(State::wrong, wrong);
  contestant.m.checked = "the reference in " + checker_.extent();
  if (other != nullptr) contestant.m.checked += fmt::format(", {} in all", first_->m.backend);
  if (first_ != nullptr) return;
  auto copy = Tensor::allocate(tensors.out().dtype(), tensors.out().shape());
  if (!copy) return;  // then the reference alone says what is right
  first_ = &contestant;
  first_out_ = *std::move(copy);
  std::memcpy(first_out_.data(), tensors.out().data(), static_cast<size_t>(tensors.out().bytes()));
}

}  // namespace attnrt::cli::bench
