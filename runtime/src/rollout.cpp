// runtime/src/rollout.cpp: gives new versions of a backend a part of the calls first
#include "rollout.hpp"

#include <algorithm>
#include <mutex>
#include <new>

#include "base/nearest.hpp"
#include "base/utc.hpp"
#include "candidates.hpp"
#include "config.hpp"
#include "policy.hpp"

namespace attnrt::core {

const char* name_of(Phase phase) {
  static constexpr const char* kNames[] = {"shadow", "canary", "promoted", "rolled back"};
  return kNames[static_cast<size_t>(phase)];
}

std::string RolloutReport::text() const {
  if (phase == Phase::promoted || phase == Phase::rolled_back)
    return fmt::format("{} ({}): {}", name_of(phase), origin, reason);
  return fmt::format("{} {} ({})", name_of(phase), share, origin);
}

std::string RolloutReport::count() const {
  if (phase == Phase::promoted || phase == Phase::rolled_back) return "";
  const char* what = phase == Phase::shadow ? "comparisons agreed" : "clean runs";
  return after == 0 ? fmt::format("{} {}", clean, what)
                    : fmt::format("{} of {} {}", clean, after, what);
}

Rollout::Rollout(const FoundPlugin& plugin, RolloutSettings settings, std::string origin,
                 Changed changed, std::shared_ptr<std::atomic<uint64_t>> generation)
    : name_(plugin.manifest->name),
      version_(plugin.manifest->version_text),
      sha256_(plugin.hash),
      settings_(std::move(settings)),
      changed_(std::move(changed)),
      generation_(std::move(generation)),
      phase_(settings_.shadow ? Phase::shadow : Phase::canary),
      origin_(std::move(origin)),
      since_(std::chrono::system_clock::now()) {}

// Returns the part of the calls that the phase gives the version; nullptr: none is counted.
const Share* Rollout::share(Phase phase) const {
  if (phase == Phase::shadow && settings_.shadow) return &*settings_.shadow;
  if (phase == Phase::canary && settings_.canary) return &*settings_.canary;
  return nullptr;
}

bool Rollout::takes_call() {
  const Share* const part = share(phase());
  if (part == nullptr) return false;
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;  // its fraction, of 2^64
  const auto n = static_cast<uint64_t>(calls_.fetch_add(1, std::memory_order_relaxed)) + 1;
  const uint64_t place = n * kGoldenRatio >> 32;  // of 2^32; Share::kMost is below that
  const bool takes = place * static_cast<uint64_t>(part->denominator) <
                     static_cast<uint64_t>(part->numerator) << 32;
  if (takes) taken_.fetch_add(1, std::memory_order_relaxed);
  return takes;
}

void Rollout::clean_run(Phase phase) {
  if (this->phase() != phase) return;
  const int64_t clean = clean_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (!settings_.after || clean < *settings_.after) return;
  const bool to_canary = phase == Phase::shadow && settings_.canary;
  try {
    enter(
        phase, to_canary ? Phase::canary : Phase::promoted,
        fmt::format("{} {}", clean, phase == Phase::shadow ? "comparisons agreed" : "clean runs"));
  } catch (const std::bad_alloc&) {
    // The run itself succeeded. The next one tries this again.
  }
}

void Rollout::served() { clean_run(Phase::canary); }

void Rollout::compared() { clean_run(Phase::shadow); }

void Rollout::failed(attnrt_status status, std::string_view message) {
  if (status != ATTNRT_INTERNAL && status != ATTNRT_DEVICE_LOST) return;
  const std::string reason = fmt::format("{} ({})", message, status_name(status));
  for (Phase now = phase(); now == Phase::shadow || now == Phase::canary; now = phase()) {
    if (enter(now, Phase::rolled_back, reason) || is_ended()) return;
  }
}

void Rollout::refused(std::string_view message) {
  failed(ATTNRT_INTERNAL, fmt::format("it refused what was served: {}", message));
}

void Rollout::mismatched(std::string_view message) {
  enter_any(Phase::rolled_back, "wrong result: " + std::string(message), true);
}

void Rollout::promote(const std::string& reason) { enter_any(Phase::promoted, reason); }

void Rollout::roll_back(const std::string& reason) { enter_any(Phase::rolled_back, reason, true); }

void Rollout::enter_any(Phase to, const std::string& reason, bool never) {
  for (Phase from = phase(); from != to; from = phase()) {
    if (enter(from, to, reason, never) || is_ended()) return;
  }
}

void Rollout::set_origin(std::string origin) {
  const std::lock_guard lock(mutex_);
  origin_.swap(origin);
}

// Changes the phase, unless it is no longer `from`. RETURNS whether it did.
bool Rollout::enter(Phase from, Phase to, const std::string& reason, bool never) {
  std::string origin, kept = reason;
  {
    const std::lock_guard lock(mutex_);
    if (phase() != from || is_ended()) return false;
    origin = origin_;  // the last step that may throw
    since_ = std::chrono::system_clock::now();
    reason_.swap(kept);
    never_ = never;
    if (to == Phase::canary) calls_ = taken_ = clean_ = 0;
    phase_.store(to, std::memory_order_release);
    generation_->fetch_add(1, std::memory_order_acq_rel);
  }
  try {
    const int32_t severity = to == Phase::rolled_back ? ATTNRT_LOG_WARNING : ATTNRT_LOG_INFO;
    changed_(severity, fmt::format("rollout of {} {} ({}): {}, after {}: {}", name_, version_,
                                   origin, name_of(to), name_of(from), reason));
  } catch (const std::bad_alloc&) {
    // The phase has changed; only the line is lost.
  }
  return true;
}

RolloutReport Rollout::report() const {
  RolloutReport report{name_, version_, sha256_, settings_.text()};
  const std::lock_guard lock(mutex_);
  report.origin = origin_;
  report.phase = phase();
  if (const Share* part = share(report.phase)) report.share = part->text();
  report.since = utc_text(since_);
  report.calls = calls_.load(std::memory_order_relaxed);
  report.taken = taken_.load(std::memory_order_relaxed);
  report.clean = clean_.load(std::memory_order_relaxed);
  report.after = settings_.after.value_or(0);
  report.reason = reason_;
  report.never = never_;
  return report;
}

Rollouts::Next Rollouts::next(const Config& config, const Discovery& found) const {
  const auto settings_of = [&config](std::string_view name) {
    const auto listed = config.backends.find(name);
    const bool has = listed != config.backends.end() && listed->second.rollout.value;
    return has ? &listed->second.rollout : nullptr;
  };
  const auto is_found = [&found](const Rollout& rollout) {
    return std::any_of(found.plugins.begin(), found.plugins.end(),
                       [&](const auto& plugin) { return plugin->hash == rollout.sha256(); });
  };
  Next next;
  {
    const std::lock_guard lock(mutex_);
    next.rollouts = rollouts_;
  }
  std::erase_if(next.rollouts, [&](const auto& rollout) {
    const RolloutReport report = rollout->report();
    const auto* settings = settings_of(report.name);
    if (settings != nullptr && settings->value->text() == report.settings) return false;
    // What was rolled back is back in service, which must not go unseen.
    next.log.emplace_back(
        report.phase == Phase::rolled_back ? ATTNRT_LOG_WARNING : ATTNRT_LOG_INFO,
        fmt::format("rollout of {} {}: ended, because `rollout` has changed in the policy; it was "
                    "{}",
                    report.name, report.version, report.text()));
    return true;
  });
  for (const auto& plugin : found.plugins) {
    if (!plugin->manifest || !plugin->fault.empty()) continue;
    const Manifest& manifest = *plugin->manifest;
    const auto* settings = settings_of(manifest.name);
    if (settings == nullptr || !settings->value->version.contains(manifest.version)) continue;
    if (never_serves(config, manifest)) continue;
    const auto known = std::find_if(
        next.rollouts.begin(), next.rollouts.end(),
        [&](const auto& rollout) { return rollout->is_of(*plugin, *settings->value); });
    if (known != next.rollouts.end()) {
      (*known)->set_origin(settings->origin);
      continue;
    }
    next.rollouts.push_back(
        std::make_shared<Rollout>(*plugin, *settings->value, settings->origin, log_, generation_));
    const RolloutReport report = next.rollouts.back()->report();
    next.log.emplace_back(ATTNRT_LOG_INFO,
                          fmt::format("rollout of {}: begins: {}, {}", plugin_label(*plugin),
                                      report.text(), report.count()));
  }
  // The oldest of those whose file is gone are forgotten.
  while (next.rollouts.size() > kMostRollouts) {
    const auto gone = std::find_if(next.rollouts.begin(), next.rollouts.end(),
                                   [&](const auto& rollout) { return !is_found(*rollout); });
    if (gone == next.rollouts.end()) break;
    next.rollouts.erase(gone);
  }
  return next;
}

void Rollouts::restart(std::vector<std::shared_ptr<Rollout>> rollouts) {
  const std::lock_guard lock(mutex_);
  for (const auto& before : rollouts_) {
    if (std::find(rollouts.begin(), rollouts.end(), before) == rollouts.end()) before->end();
  }
  rollouts_.swap(rollouts);
  generation_->fetch_add(1, std::memory_order_acq_rel);
}

std::shared_ptr<Rollout> find_rollout(const std::vector<std::shared_ptr<Rollout>>& rollouts,
                                      std::string_view sha256) {
  for (const auto& rollout : rollouts) {
    if (rollout->sha256() == sha256) return rollout;
  }
  return nullptr;
}

std::vector<Quarantine::HeldBack> held_back(const std::vector<std::shared_ptr<Rollout>>& rollouts) {
  std::vector<Quarantine::HeldBack> held;
  for (const auto& rollout : rollouts) {
    if (rollout->phase() == Phase::promoted) continue;
    const RolloutReport report = rollout->report();
    if (report.phase == Phase::promoted) continue;
    const bool is_open = report.phase != Phase::rolled_back;
    held.push_back(
        {report.sha256, (is_open ? "in rollout: " : "") + report.text(), is_open, report.never});
  }
  return held;
}

std::vector<RolloutReport> Rollouts::reports() const {
  std::vector<std::shared_ptr<Rollout>> rollouts;
  {
    const std::lock_guard lock(mutex_);
    rollouts = rollouts_;
  }
  std::vector<RolloutReport> reports;
  for (const auto& rollout : rollouts) reports.push_back(rollout->report());
  return reports;
}

Result<std::vector<std::shared_ptr<Rollout>>> Rollouts::of_backend(
    const std::string& backend) const {
  std::vector<std::shared_ptr<Rollout>> found;
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& rollout : rollouts_) {
      if (rollout->is_of(backend)) found.push_back(rollout);
    }
  }
  const auto is_open = [](const auto& rollout) { return rollout->is_open(); };
  if (std::any_of(found.begin(), found.end(), is_open)) {
    std::erase_if(found, [&](const auto& rollout) { return !is_open(rollout); });
  }
  if (!found.empty()) return found;
  for (const RolloutReport& report : reports()) names.push_back(report.name);
  std::vector<std::string_view> views(names.begin(), names.end());
  return fail(
      ATTNRT_NOT_FOUND,
      "rollout: no installed version of {} has a rollout{}; `backends.{}.rollout` in the policy "
      "begins one",
      backend, did_you_mean(backend, views), backend);
}

Result<void> Rollouts::promote(const std::string& backend) {
  const auto rollouts = of_backend(backend);
  if (!rollouts) return tl::unexpected(rollouts.error());
  for (const auto& rollout : *rollouts) rollout->promote("the application promoted it");
  return {};
}

Result<void> Rollouts::roll_back(const std::string& backend) {
  const auto rollouts = of_backend(backend);
  if (!rollouts) return tl::unexpected(rollouts.error());
  for (const auto& rollout : *rollouts) rollout->roll_back("the application rolled it back");
  return {};
}

}  // namespace attnrt::core
