// runtime/src/breaker.cpp: holds failing candidates back from the problems that they failed at
#include "breaker.hpp"

#include <algorithm>
#include <optional>

#include "base/result.hpp"

namespace attnrt::core {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

constexpr int kManyProblems = 3;  // open at once: then the candidate is opened for all

struct Times {
  Breaker::Clock::duration first, longest;
};

std::optional<Times> times_of(attnrt_status status) {
  switch (status) {
    case ATTNRT_OUT_OF_MEMORY: return Times{seconds(1), seconds(60)};
    case ATTNRT_INTERNAL:
    case ATTNRT_UNSUPPORTED: return Times{seconds(30), hours(1)};
    default: return std::nullopt;
  }
}

std::string because_text(attnrt_status status, bool every_problem) {
  const char* what = status == ATTNRT_OUT_OF_MEMORY ? "it ran out of memory"
                     : status == ATTNRT_UNSUPPORTED ? "it refused what it had accepted"
                                                    : "it failed";
  return every_problem ? fmt::format("{} at {} problems", what, kManyProblems) : what;
}

std::string time_text(Breaker::Clock::duration left) {
  const double in_seconds = std::chrono::duration<double>(left).count();
  return in_seconds < 10 ? fmt::format("{:.1f} s", in_seconds)
                         : fmt::format("{:.0f} s", in_seconds);
}

}  // namespace

const Quarantine::Held* Quarantine::find(const CandidateId& candidate) const {
  for (const Held& each : held) {
    if (each.candidate == candidate) return &each;
  }
  return nullptr;
}

const Quarantine::LostDevice* Quarantine::find_lost(const CandidateId& candidate) const {
  for (const LostDevice& device : lost) {
    if (device.type == candidate.device_type && device.id == candidate.device_id) return &device;
  }
  return nullptr;
}

const Quarantine::HeldBack* Quarantine::find_held_back(std::string_view sha256) const {
  for (const HeldBack& each : held_back) {
    if (each.sha256 == sha256) return &each;
  }
  return nullptr;
}

bool Breaker::State::concerns(const CandidateId& id, const Problem& of) const {
  return candidate == id && (every_problem || same_problem(problem, of));
}

// problem: nullptr means the state of the candidate for every problem.
Breaker::State* Breaker::find(const CandidateId& candidate, const Problem* problem) {
  for (State& state : states_) {
    if (state.candidate != candidate || state.every_problem != (problem == nullptr)) continue;
    if (problem == nullptr || same_problem(state.problem, *problem)) return &state;
  }
  return nullptr;
}

// What a change of states_ or lost_ ends with.
void Breaker::changed() {
  int64_t next = kNever;
  for (const State& state : states_) {
    if (!state.due) next = std::min<int64_t>(next, state.until.time_since_epoch().count());
  }
  count_.store(states_.size(), std::memory_order_release);
  next_due_.store(next, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_acq_rel);
}

void Breaker::note_due(Time now) {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (State& state : states_) {
    if (state.due || state.until > now) continue;
    state.due = any = true;
    state.trial = false;
  }
  if (any) changed();
}

// Returns false if that says nothing new.
bool Breaker::open(const CandidateId& candidate, const Problem* problem, Stage stage,
                   attnrt_status status, Time now) {
  const Times times = *times_of(status);
  State* state = find(candidate, problem);
  // A call that began before the others failed.
  if (state != nullptr && state->until > now && !state->trial) return false;
  if (state == nullptr) {
    if (states_.size() >= kMostStates) {
      states_.erase(
          std::min_element(states_.begin(), states_.end(),
                           [](const State& a, const State& b) { return a.until < b.until; }));
    }
    state = &states_.emplace_back();
    state->candidate = candidate;
    state->every_problem = problem == nullptr;
    if (problem != nullptr) state->problem = *problem;
  }
  const bool again = state->because == status;
  state->time = again ? std::min(2 * state->time, times.longest) : times.first;
  state->because = status;
  state->stage = stage;
  state->until = now + state->time;
  state->due = state->trial = false;
  return true;
}

bool Breaker::has_many_open(const CandidateId& candidate, Time now) const {
  return std::count_if(states_.begin(), states_.end(), [&](const State& state) {
           return state.candidate == candidate && !state.every_problem && state.until > now &&
                  state.because != ATTNRT_UNSUPPORTED;
         }) >= kManyProblems;
}

Breaker::Opened Breaker::failed(const CandidateId& candidate, const Problem& problem, Stage stage,
                                attnrt_status status, Time now) {
  const std::lock_guard lock(mutex_);
  if (status == ATTNRT_DEVICE_LOST) {
    const bool is_new = lost_.emplace(candidate.device_type, candidate.device_id).second;
    if (is_new) changed();
    return {.device = is_new};
  }
  if (!times_of(status)) return {};
  Opened opened{.problem = open(candidate, &problem, stage, status, now)};
  const State* whole = find(candidate, nullptr);
  const bool trial_failed = whole != nullptr && whole->trial && status != ATTNRT_UNSUPPORTED;
  if (trial_failed || has_many_open(candidate, now))
    opened.every_problem = open(candidate, nullptr, stage, status, now);
  if (opened) changed();
  return opened;
}

size_t Breaker::succeeded(const CandidateId& candidate, const Problem& problem, Stage stage) {
  if (empty()) return 0;
  const std::lock_guard lock(mutex_);
  const size_t closed = std::erase_if(states_, [&](const State& state) {
    return state.concerns(candidate, problem) &&
           (stage == Stage::run || state.stage == Stage::plan);
  });
  if (closed != 0) changed();
  return closed;
}

Quarantine Breaker::quarantine(const Problem& problem, Time now) const {
  Quarantine result;
  const std::lock_guard lock(mutex_);
  for (const auto& [type, id] : lost_) {
    const std::string name = fmt::format("{}:{}", device_name(type), id);
    result.lost.push_back({type, id, name + " was lost; a reload or a retry looks for it again"});
  }
  for (const State& state : states_) {
    if (!state.concerns(state.candidate, problem)) continue;
    Quarantine::Held held{state.candidate, "", state.until <= now};
    held.reason = fmt::format("quarantined for {} more: {}",
                              time_text(std::max(state.until - now, Duration::zero())),
                              because_text(state.because, state.every_problem));
    const auto known = std::find_if(result.held.begin(), result.held.end(), [&](const auto& each) {
      return each.candidate == state.candidate;
    });
    if (known == result.held.end()) {
      result.held.push_back(std::move(held));
    } else if (known->due) {
      *known = std::move(held);  // held back by one of its states, it is held back
    }
  }
  return result;
}

bool Breaker::begin_trial(const CandidateId& candidate, const Problem& problem, Time now) {
  const std::lock_guard lock(mutex_);
  for (const State& state : states_) {
    if (state.concerns(candidate, problem) && state.until > now) return false;
  }
  bool any = false;
  for (State& state : states_) {
    if (!state.concerns(candidate, problem)) continue;
    state.until = now + state.time;
    state.due = false;
    state.trial = any = true;
  }
  if (any) changed();
  return true;
}

void Breaker::forget_lost_devices() {
  const std::lock_guard lock(mutex_);
  if (lost_.empty()) return;
  lost_.clear();
  changed();
}

}  // namespace attnrt::core
