// runtime/src/runtime.cpp: the road as one object: config, policy, discover, load, select, plan, run
#include "runtime.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "cache.hpp"

namespace attnrt::core {
namespace {

bool names_device(const Manifest& manifest, std::string_view device) {
  return std::find(manifest.devices.begin(), manifest.devices.end(), device) !=
         manifest.devices.end();
}

int32_t device_type_of(std::string_view name) {
  for (const int32_t type : {ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_CUDA, ATTNRT_DEVICE_ROCM}) {
    if (name == device_name(type)) return type;
  }
  return ATTNRT_DEVICE_CPU;
}

// May the device serve tensors that live where the problem says? Staging copies from the host to a device, not between
// devices.
bool serves(const Device& device, const Problem& problem, bool staging) {
  if (device.type != problem.device_type)
    return staging && problem.device_type == ATTNRT_DEVICE_CPU;
  return device.type == ATTNRT_DEVICE_CPU || device.id == problem.device_id;
}

bool fits_arch(const Device& device, const std::string& arch) {
  return arch.empty() || device.type == ATTNRT_DEVICE_CPU || arch_matches(arch, device.arch);
}

// The device that the problem asks for is in this machine: then a backend that reports none has none, and its manifest
// does not stand in for it.
bool is_here(const Snapshot& snapshot, const Problem& problem, const std::string& arch) {
  if (problem.device_type == ATTNRT_DEVICE_CPU) return true;
  for (const auto& entry : snapshot.entries) {
    const auto& plugin = *entry->plugin;
    if (!plugin.fault.empty() || !names_device(*plugin.manifest, device_name(problem.device_type)))
      continue;
    if (!switched_off(*snapshot.config, plugin.manifest->name).empty()) continue;
    snapshot.load(*entry);
    if (!entry->backend) continue;
    for (const Device& device : entry->backend->devices()) {
      const bool same = device.type == problem.device_type && device.id == problem.device_id;
      if (same && fits_arch(device, arch)) return true;
    }
  }
  return false;
}

void debug_decision(const Services& services, const Decision& decision) {
  std::string text = decision.message;
  if (const Verdict* winner = decision.winner()) {
    const Manifest& manifest = *winner->candidate.plugin->manifest;
    text = fmt::format("select: {} {} on {}: {}", manifest.name, manifest.version_text,
                       device_text(winner->candidate.device), decision.why);
  }
  services.log(ATTNRT_LOG_DEBUG, fmt::format("{}; for {}", text, describe(decision.problem)));
}

void inform_plan(const Services& services, const Plan& plan) {
  services.log(ATTNRT_LOG_INFO,
               fmt::format("plan: {} {} on {}: kernel {}, workspace {} bytes; for {}",
                           plan.backend_name(), plan.version(), device_text(plan.device()),
                           plan.kernel(), plan.workspace_bytes(), describe(plan.problem())));
}

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::open(RuntimeOptions options) {
  if (options.policy_path && options.policy_text) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "config: a policy file and a policy text are given; expected one of them");
  }
  constexpr int32_t kMostThreads = 1024;  // as the policy's `threads`
  if (options.thread_count < 0 || options.thread_count > kMostThreads) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: thread_count is {}; expected 0 to {}",
                options.thread_count, kMostThreads);
  }
  if (options.parallel_for != nullptr && options.thread_count < 1) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "config: parallel_for is given with thread_count {}; expected at least 1",
                options.thread_count);
  }
  std::unique_ptr<Runtime> runtime(new Runtime);
  runtime->options_ = std::move(options);
  std::error_code gone;
  runtime->folder_ = std::filesystem::current_path(gone);
  if (gone)
    runtime->folder_ =
        "/dev/null";  // the folder was deleted: below this, relative paths lead nowhere
  auto snapshot = take_snapshot(runtime->options_, runtime->folder_, nullptr);
  if (!snapshot) return tl::unexpected(snapshot.error());
  runtime->adopt(std::move(*snapshot));
  return runtime;
}

Runtime::Runtime()
    : decisions_(std::make_unique<DecisionCache>()), plans_(std::make_unique<PlanCache>()) {}
Runtime::~Runtime() = default;

Result<void> Runtime::reload() {
  const std::lock_guard lock(reload_mutex_);
  auto next = take_snapshot(options_, folder_, snapshot().get());
  if (!next) return tl::unexpected(next.error());
  adopt(std::move(*next));
  return {};
}

// A call that still works on the last snapshot finishes there, and leaves nothing of it behind.
void Runtime::adopt(std::shared_ptr<const Snapshot> next) {
  next->services->log_level = next->config->log_level.value;
  decisions_->restart(next.get());
  plans_->restart(next.get());
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_.swap(next);
}

std::vector<PluginRow> Runtime::plugins(bool warn) const {
  const auto snapshot = this->snapshot();
  std::vector<PluginRow> rows;
  for (const auto& entry : snapshot->entries) {
    PluginRow row{entry->plugin, "broken", entry->plugin->fault, {}};
    if (row.reason.empty()) {
      row.reason = switched_off(*snapshot->config, entry->plugin->manifest->name);
      if (!row.reason.empty()) row.state = "disabled";
    }
    if (row.reason.empty()) row.reason = entry->plugin->manifest->serves_nothing();
    if (row.reason.empty()) {
      snapshot->load(*entry, warn);
      row.reason = entry->fault;
      if (entry->backend) {
        row.devices = entry->backend->devices();
        row.state = row.devices.empty() ? "no device" : "ready";
        if (row.devices.empty()) row.reason = entry->backend->no_devices_because();
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Decision Runtime::decide_uncached(const Snapshot& snapshot, const Problem& problem,
                                  const std::string& arch, const Call& call, bool suppose) const {
  const Config& config = *snapshot.config;
  const bool may_suppose = suppose && !is_here(snapshot, problem, arch);
  std::vector<Candidate> candidates;
  std::vector<ExcludedPlugin> excluded;
  for (const auto& entry : snapshot.entries) {
    const auto& plugin = entry->plugin;
    if (!plugin->fault.empty()) {
      excluded.push_back({plugin, plugin->fault});
      continue;
    }
    const Manifest& manifest = *plugin->manifest;
    const bool named = names_device(manifest, device_name(problem.device_type));
    const bool staged = config.staging.value && problem.device_type == ATTNRT_DEVICE_CPU;
    if (!named && (!staged || manifest.devices.empty())) {
      const bool stageable = problem.device_type == ATTNRT_DEVICE_CPU && !manifest.devices.empty();
      excluded.push_back(
          {plugin,
           fmt::format("is for {}; the tensors are on {}{}",
                       manifest.devices.empty()
                           ? "no device that this runtime knows"
                           : fmt::format("{}", fmt::join(manifest.devices, ", ")),
                       device_name(problem.device_type),
                       stageable ? " (`staging: allow` in the policy would copy them)" : "")});
      continue;
    }
    const Device supposed{named ? problem.device_type : device_type_of(manifest.devices.front()),
                          problem.device_id, arch, "", 0};
    if (!switched_off(config, manifest.name).empty()) {
      candidates.push_back(
          {plugin, nullptr,
           supposed});  // the policy says why it is out; its code need not run for that
      continue;
    }
    snapshot.load(*entry);
    if (!entry->backend) {
      excluded.push_back({plugin, entry->fault});
      continue;
    }
    bool present = false;
    for (const Device& device : entry->backend->devices()) {
      if (!serves(device, problem, config.staging.value) || !fits_arch(device, arch)) continue;
      candidates.push_back({plugin, entry->backend, device});
      present = true;
    }
    if (present) continue;
    if (may_suppose && named) {
      candidates.push_back({plugin, nullptr, supposed});
    } else {
      const std::string& why = entry->backend->no_devices_because();
      excluded.push_back(
          {plugin, why.empty() ? fmt::format("has no {} {}", device_name(problem.device_type),
                                             problem.device_id)
                               : "no device: " + why});
    }
  }
  return select(Policy(snapshot.config, call), candidates, std::move(excluded), problem, arch);
}

std::shared_ptr<const Decision> Runtime::decide(const Problem& problem, const Call& call) {
  auto snapshot = this->snapshot();
  if (auto known = decisions_->find(snapshot.get(), problem, call)) return known;
  auto decision =
      std::make_shared<const Decision>(decide_uncached(*snapshot, problem, "", call, false));
  const bool warn =
      !decision->fallback.empty() && snapshot->config->on_fallback.value == OnFallback::warn;
  const bool first = decisions_->insert(snapshot, problem, call, decision);
  if (first && snapshot->services->debugs()) debug_decision(*snapshot->services, *decision);
  if (warn && first) {
    snapshot->services->log(ATTNRT_LOG_WARNING, fmt::format("select: fell back from {}; for {}",
                                                            decision->fallback, describe(problem)));
  }
  return decision;
}

Decision Runtime::explain(const Problem& problem, const std::string& arch, const Call& call) const {
  return decide_uncached(*snapshot(), problem, arch, call, true);
}

bool Runtime::may_fail_over(attnrt_status status, const Decision& decision, size_t at) {
  const bool another_may_do =
      status == ATTNRT_UNSUPPORTED || status == ATTNRT_OUT_OF_MEMORY || status == ATTNRT_INTERNAL;
  return another_may_do && !decision.forced && at + 1 < decision.verdicts.size() &&
         decision.verdicts[at + 1].answer == Answer::yes;
}

Result<Runtime::Placed> Runtime::plan_from(const Decision& decision, size_t first) {
  for (size_t at = first;; ++at) {
    auto plan = make_plan(decision, decision.verdicts[at]);
    if (!plan && plan.error().code == ATTNRT_OUT_OF_MEMORY && plans_->drop_idle()) {
      plan = make_plan(decision, decision.verdicts[at]);
    }
    if (plan) {
      plans_made_.fetch_add(1, std::memory_order_relaxed);
      if (const auto services = snapshot()->services; services->informs())
        inform_plan(*services, **plan);
      return Placed{std::move(*plan), at};
    }
    if (!may_fail_over(plan.error().code, decision, at)) return tl::unexpected(plan.error());
    snapshot()->services->log(ATTNRT_LOG_WARNING,
                              plan.error().message + "; the next candidate is taken");
  }
}

Result<std::unique_ptr<Plan>> Runtime::plan(const Problem& problem, const Call& call) {
  const auto decision = decide(problem, call);
  if (decision->status != ATTNRT_OK)
    return tl::unexpected(Error{decision->status, decision->message});
  auto placed = plan_from(*decision, 0);
  if (!placed) return tl::unexpected(placed.error());
  return std::move(placed->plan);
}

}  // namespace attnrt::core
