// runtime/src/runtime.cpp: the road as one object: config, policy, discover, load, select, plan, run
#include "runtime.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cache.hpp"

namespace attnrt::core {
namespace {

struct PolicySource {
  std::string file, text;
};

Result<PolicySource> read_policy(const RuntimeOptions& options, const Environment& environment,
                                 const std::filesystem::path& folder) {
  if (options.policy_text) return PolicySource{"", *options.policy_text};
  const std::optional<std::string>& path = options.policy_path ? options.policy_path : environment.policy;
  if (!path) return PolicySource{};
  std::error_code no_such;
  std::ifstream file(folder / *path, std::ios::binary);
  if (std::filesystem::is_directory(folder / *path, no_such)) {
    file.setstate(std::ios::badbit);
    errno = EISDIR;
  }
  std::string text;
  for (std::array<char, 4096> part; file.good();) {
    file.read(part.data(), part.size());
    text.append(part.data(), static_cast<size_t>(file.gcount()));
  }
  if (!file.is_open() || file.bad()) {
    const std::string by = options.policy_path ? "" : " (ATTNRT_POLICY)";
    return fail(ATTNRT_INVALID_ARGUMENT, "config: policy file {}{} cannot be read: {}", *path, by,
                std::strerror(errno));
  }
  return PolicySource{*path, std::move(text)};
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> directories;
  std::istringstream stream(path);
  for (std::string directory; std::getline(stream, directory, ':');) {
    if (!directory.empty()) directories.push_back(directory);  // an empty one would be the current directory
  }
  return directories;
}

void log_to_stderr(int32_t severity, const std::string& text) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  std::fprintf(stderr, "attnrt: %s: %s\n", kNames[std::clamp(severity, 0, 3)], one_line(text).c_str());
}

std::shared_ptr<Services> make_services(const RuntimeOptions& options, const Config& config) {
  auto services = std::make_shared<Services>();
  const auto count = options.thread_count > 0 ? options.thread_count : static_cast<int32_t>(config.threads.value);
  services->threads = options.parallel_for != nullptr
                          ? Threads::borrowed(std::max(count, 1), options.parallel_for, options.parallel_self)
                          : Threads::pool(count);
  services->log_level = config.log_level.value;
  services->log = options.log;
  if (!services->log) {
    services->log = [level = &services->log_level](int32_t severity, const std::string& text) {
      if (severity >= level->load(std::memory_order_relaxed)) log_to_stderr(severity, text);
    };
  }
  return services;
}

bool names_device(const Manifest& manifest, std::string_view device) {
  return std::find(manifest.devices.begin(), manifest.devices.end(), device) != manifest.devices.end();
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
  if (device.type != problem.device_type) return staging && problem.device_type == ATTNRT_DEVICE_CPU;
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
    if (!plugin.fault.empty() || !names_device(*plugin.manifest, device_name(problem.device_type))) continue;
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

// "cpu 1.0.0, sha256 0123456789ab": as much of the hash as tells files apart.
std::string identity(const FoundPlugin& plugin) {
  return fmt::format("{} {}, sha256 {}", plugin.manifest->name, plugin.manifest->version_text,
                     plugin.hash.substr(0, 12));
}

void debug_found(const Snapshot& snapshot, const Discovery& found) {
  const auto say = [&](const std::string& text) { snapshot.services->log(ATTNRT_LOG_DEBUG, text); };
  say("config: " + (snapshot.policy_file.empty() ? "built-in policy" : "policy " + snapshot.policy_file));
  for (const auto& directory : snapshot.directories)
    say(fmt::format("discover: directory {} ({})", directory, snapshot.directories_origin));
  for (const auto& plugin : found.plugins)
    say(fmt::format("discover: {}: {}", plugin->path, plugin->fault.empty() ? identity(*plugin) : plugin->fault));
}

// Globs of ATTNRT_DISABLE that exclude nobody.
std::vector<std::string> idle_globs(const Discovery& found, const Config& config) {
  std::vector<std::string> warnings;
  for (const std::string& glob : config.disabled.value) {
    const auto matches = [&](const std::string& name) { return fnmatch(glob.c_str(), name.c_str(), 0) == 0; };
    const bool excludes = std::any_of(found.plugins.begin(), found.plugins.end(), [&](const auto& plugin) {
      return plugin->manifest && matches(plugin->manifest->name);
    });
    // Whom the policy knows may well be missing here.
    const bool listed = std::any_of(config.backends.begin(), config.backends.end(),
                                    [&](const auto& backend) { return matches(backend.first); });
    if (!excludes && !listed)
      warnings.push_back(fmt::format("{}: no backend is named {}", config.disabled.origin, shown(glob)));
  }
  return warnings;
}

void debug_loaded(const Snapshot& snapshot, const Backend& backend) {
  std::vector<std::string> devices;
  for (const Device& device : backend.devices()) devices.push_back(device_text(device));
  const std::string with =
      devices.empty() ? "no device: " + backend.no_devices_because() : fmt::format("{}", fmt::join(devices, ", "));
  const FoundPlugin& plugin = backend.plugin();
  snapshot.services->log(ATTNRT_LOG_DEBUG, fmt::format("load: {}: {}; {}", plugin.path, identity(plugin), with));
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
  services.log(ATTNRT_LOG_INFO, fmt::format("plan: {} {} on {}: kernel {}, workspace {} bytes; for {}",
                                            plan.backend_name(), plan.version(), device_text(plan.device()),
                                            plan.kernel(), plan.workspace_bytes(), describe(plan.problem())));
}

}  // namespace

void Snapshot::load(Entry& entry, bool warn) const {
  bool here = false;
  std::call_once(entry.once, [&] {
    here = true;
    auto loaded = core::load(entry.plugin, entry.options, services, config->load_by_path.value);
    if (loaded) {
      entry.backend = std::move(*loaded);
    } else {
      entry.fault = loaded.error().message;
      entry.failed = true;
    }
  });
  if (!here) return;
  if (entry.failed) {
    if (warn) services->log(ATTNRT_LOG_WARNING, fmt::format("load: {}: {}", entry.plugin->path, entry.fault));
  } else if (services->debugs()) {
    debug_loaded(*this, *entry.backend);
  }
}

Result<std::unique_ptr<Runtime>> Runtime::open(RuntimeOptions options) {
  if (options.policy_path && options.policy_text) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: a policy file and a policy text are given; expected one of them");
  }
  constexpr int32_t kMostThreads = 1024;  // as the policy's `threads`
  if (options.thread_count < 0 || options.thread_count > kMostThreads) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: thread_count is {}; expected 0 to {}", options.thread_count,
                kMostThreads);
  }
  if (options.parallel_for != nullptr && options.thread_count < 1) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: parallel_for is given with thread_count {}; expected at least 1",
                options.thread_count);
  }
  std::unique_ptr<Runtime> runtime(new Runtime);
  runtime->options_ = std::move(options);
  std::error_code gone;
  runtime->folder_ = std::filesystem::current_path(gone);
  if (gone) runtime->folder_ = "/dev/null";  // the folder was deleted: below this, relative paths lead nowhere
  auto snapshot = runtime->take_snapshot(nullptr);
  if (!snapshot) return tl::unexpected(snapshot.error());
  runtime->adopt(std::move(*snapshot));
  return runtime;
}

Runtime::Runtime() : decisions_(std::make_unique<DecisionCache>()), plans_(std::make_unique<PlanCache>()) {}
Runtime::~Runtime() = default;

Result<std::shared_ptr<Snapshot>> Runtime::take_snapshot(const Snapshot* previous) const {
  const Environment environment = read_environment();
  const auto source = read_policy(options_, environment, folder_);
  if (!source) return tl::unexpected(source.error());
  auto config = read_config(source->text, source->file, environment);
  if (!config) return tl::unexpected(config.error());

  auto snapshot = std::make_shared<Snapshot>();
  snapshot->config = std::make_shared<const Config>(std::move(*config));
  snapshot->policy_file = options_.policy_text ? "policy" : source->file;
  const auto& directories = snapshot->config->directories;
  snapshot->directories = options_.plugin_path ? split_path(*options_.plugin_path) : directories.value;
  snapshot->directories_origin = options_.plugin_path ? "call" : directories.origin;
  if (snapshot->directories.empty() && !options_.plugin_path) snapshot->directories = {default_plugin_directory()};
  for (auto& directory : snapshot->directories) {
    if (!directory.empty()) directory = folder_ / directory;  // "" is no directory, and not the current one
  }
  const bool same_threads = previous != nullptr && previous->config->threads.value == snapshot->config->threads.value;
  snapshot->services = same_threads ? previous->services : make_services(options_, *snapshot->config);

  Discovery found = discover(snapshot->directories);
  if (snapshot->services->debugs()) debug_found(*snapshot, found);
  for (const auto& warnings : {snapshot->config->warnings, found.warnings, idle_globs(found, *snapshot->config)}) {
    for (const auto& warning : warnings) snapshot->services->log(ATTNRT_LOG_WARNING, warning);
  }
  for (auto& plugin : found.plugins) {
    Options options;
    if (plugin->manifest) {
      const auto settings = snapshot->config->backends.find(plugin->manifest->name);
      if (settings != snapshot->config->backends.end()) options = settings->second.options;
    }
    std::shared_ptr<Snapshot::Entry> entry;
    if (same_threads && !plugin->hash.empty()) {  // the same bytes with the same options stay open as they are
      for (const auto& old : previous->entries) {
        const bool same = old->plugin->hash == plugin->hash && old->plugin->path == plugin->path;
        if (same && old->options == options && plugin->fault.empty() && !old->failed) entry = old;
      }
    }
    if (!entry) {
      entry = std::make_shared<Snapshot::Entry>();
      entry->plugin = std::move(plugin);
      entry->options = std::move(options);
    }
    snapshot->entries.push_back(std::move(entry));
  }
  return snapshot;
}

Result<void> Runtime::reload() {
  const std::lock_guard lock(reload_mutex_);
  auto next = take_snapshot(snapshot().get());
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

Decision Runtime::decide_uncached(const Snapshot& snapshot, const Problem& problem, const std::string& arch,
                                  const Call& call, bool suppose) const {
  const Config& config = *snapshot.config;
  const bool may_suppose = suppose && !is_here(snapshot, problem, arch);
  std::vector<Candidate> candidates;
  std::vector<Bystander> bystanders;
  for (const auto& entry : snapshot.entries) {
    const auto& plugin = entry->plugin;
    if (!plugin->fault.empty()) {
      bystanders.push_back({plugin, plugin->fault});
      continue;
    }
    const Manifest& manifest = *plugin->manifest;
    const bool named = names_device(manifest, device_name(problem.device_type));
    const bool staged = config.staging.value && problem.device_type == ATTNRT_DEVICE_CPU;
    if (!named && (!staged || manifest.devices.empty())) {
      const bool stageable = problem.device_type == ATTNRT_DEVICE_CPU && !manifest.devices.empty();
      bystanders.push_back(
          {plugin, fmt::format("is for {}; the tensors are on {}{}",
                               manifest.devices.empty() ? "no device that this runtime knows"
                                                        : fmt::format("{}", fmt::join(manifest.devices, ", ")),
                               device_name(problem.device_type),
                               stageable ? " (`staging: allow` in the policy would copy them)" : "")});
      continue;
    }
    const Device supposed{named ? problem.device_type : device_type_of(manifest.devices.front()), problem.device_id,
                          arch, "", 0};
    if (!switched_off(config, manifest.name).empty()) {
      candidates.push_back(
          {plugin, nullptr, supposed});  // the policy says why it is out; its code need not run for that
      continue;
    }
    snapshot.load(*entry);
    if (!entry->backend) {
      bystanders.push_back({plugin, entry->fault});
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
      bystanders.push_back(
          {plugin, why.empty() ? fmt::format("has no {} {}", device_name(problem.device_type), problem.device_id)
                               : "no device: " + why});
    }
  }
  return select(Policy(snapshot.config, call), candidates, std::move(bystanders), problem, arch);
}

std::shared_ptr<const Decision> Runtime::decide(const Problem& problem, const Call& call) {
  auto snapshot = this->snapshot();
  if (auto known = decisions_->find(snapshot.get(), problem, call)) return known;
  auto decision = std::make_shared<const Decision>(decide_uncached(*snapshot, problem, "", call, false));
  const bool warn = !decision->fallback.empty() && snapshot->config->on_fallback.value == OnFallback::warn;
  const bool first = decisions_->insert(snapshot, problem, call, decision);
  if (first && snapshot->services->debugs()) debug_decision(*snapshot->services, *decision);
  if (warn && first) {
    snapshot->services->log(ATTNRT_LOG_WARNING,
                            fmt::format("select: fell back from {}; for {}", decision->fallback, describe(problem)));
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
      if (const auto services = snapshot()->services; services->informs()) inform_plan(*services, **plan);
      return Placed{std::move(*plan), at};
    }
    if (!may_fail_over(plan.error().code, decision, at)) return tl::unexpected(plan.error());
    snapshot()->services->log(ATTNRT_LOG_WARNING, plan.error().message + "; the next candidate is taken");
  }
}

Result<std::unique_ptr<Plan>> Runtime::plan(const Problem& problem, const Call& call) {
  const auto decision = decide(problem, call);
  if (decision->status != ATTNRT_OK) return tl::unexpected(Error{decision->status, decision->message});
  auto placed = plan_from(*decision, 0);
  if (!placed) return tl::unexpected(placed.error());
  return std::move(placed->plan);
}

}  // namespace attnrt::core
