// runtime/src/runtime.cpp: the pipeline as one object: its steps, called in order
//
//     config, discover                  take_snapshot, at open and at reload
//     policy, load, candidates, select  decide, once for each (Problem, Call)
//     plan                              plan, or attention (attention.cpp) if it finds no idle plan
//     run                               attnrt_plan_run, or attention
#include "runtime.hpp"

#include <unistd.h>

#include <atomic>
#include <new>
#include <utility>

#include "base/utc.hpp"
#include "base/whole_file.hpp"
#include "decide.hpp"
#include "library.hpp"
#include "stats_trace.hpp"

namespace attnrt::core {
namespace {

constexpr int32_t kMaxThreads = 1024;  // the limit of the policy's `threads`, too

Result<void> check_options(const RuntimeOptions& options) {
  if (options.policy_path && options.policy_text) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "config: a policy file and a policy text are given; expected one of them");
  }
  if (options.thread_count < 0 || options.thread_count > kMaxThreads) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: thread_count is {}; expected 0 to {}",
                options.thread_count, kMaxThreads);
  }
  if (options.parallel_for != nullptr && options.thread_count < 1) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "config: parallel_for is given with thread_count {}; expected at least 1",
                options.thread_count);
  }
  const bool allocates = options.allocator.allocate != nullptr;
  if (allocates != (options.allocator.free != nullptr)) {
    return fail(ATTNRT_INVALID_ARGUMENT, "config: {} is given without {}; expected both or neither",
                allocates ? "allocate" : "free", allocates ? "free" : "allocate");
  }
  return {};
}

// Says which calls the plugin gets, if it has a rollout.
void add_rollout(const Snapshot& snapshot, const FoundPlugin& plugin, PluginRow& row) {
  const auto rollout = find_rollout(snapshot.rollouts, plugin.hash);
  if (rollout == nullptr) return;
  const RolloutReport report = rollout->report();
  if (report.phase == Phase::rolled_back) {
    row.state = "rolled back";
    row.reason = report.text();
  } else {
    const std::string count = report.count();
    row.notes.push_back("rollout: " + report.text() + (count.empty() ? "" : ", " + count));
  }
}

// Adds one to a counter in the end.
struct Counted {
  std::atomic<int64_t>* counter;
  ~Counted() { counter->fetch_add(1, std::memory_order_relaxed); }
};

void log_decision(const Services& services, const Decision& decision) {
  std::string text = decision.message;
  if (const Verdict* winner = decision.winner()) {
    const Manifest& manifest = *winner->candidate.plugin->manifest;
    text = fmt::format("select: {} {} on {}: {}", manifest.name, manifest.version_text,
                       device_text(winner->candidate.device), decision.why);
  }
  services.log(ATTNRT_LOG_DEBUG, fmt::format("{}; for {}", text, describe(decision.problem)));
}

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::open(RuntimeOptions options) {
  if (auto checked = check_options(options); !checked) return tl::unexpected(checked.error());
  std::unique_ptr<Runtime> runtime(new Runtime);
  runtime->options_ = std::move(options);
  runtime->opened_ = std::chrono::system_clock::now();
  runtime->failover_.set_clock(runtime->options_.clock);
  std::error_code error;
  runtime->folder_ = std::filesystem::current_path(error);
  // The current directory was deleted: relative paths must lead nowhere, and nothing exists below a
  // file.
  if (error) runtime->folder_ = "/dev/null";
  runtime->environment_ = read_environment();
  runtime->rollouts_.set_log([self = runtime.get()](int32_t severity, const std::string& text) {
    self->snapshot()->services->log(severity, text);
  });
  runtime->probes_ = std::make_unique<Probes>([self = runtime.get()] { self->take_probed(); },
                                              runtime->options_.probe_program);
  auto snapshot = take_snapshot(runtime->options_, runtime->environment_, runtime->folder_, nullptr,
                                runtime->probes_.get());
  if (!snapshot) return tl::unexpected(snapshot.error());
  runtime->adopt(std::move(*snapshot));
  runtime->watcher_ = std::make_unique<Watcher>(
      runtime->options_.watch_times, [self = runtime.get()] { return self->reload(true); },
      [self = runtime.get()](int32_t severity, const std::string& text) {
        self->snapshot()->services->log(severity, text);
      });
  runtime->watch_files();
  return runtime;
}

Runtime::~Runtime() {
  if (!environment_.stats || decision_log_.count() == 0) return;
  try {
    write_stats();
  } catch (const std::exception&) {
    return;  // memory ran out, and nobody is left to be told
  }
}

// "%p" in the name stands for the process's number.
void Runtime::write_stats() {
  std::string name = *environment_.stats;
  if (const size_t at = name.find("%p"); at != std::string::npos)
    name.replace(at, 2, std::to_string(getpid()));
  const auto written = write_whole(folder_ / name, stats_json(stats()).text() + "\n");
  if (written) return;
  snapshot()->services->log(ATTNRT_LOG_WARNING, fmt::format("stats: {} (ATTNRT_STATS) {}", name,
                                                            written.error().message));
}

StatsReport Runtime::stats() {
  StatsReport report;
  report.version = ATTNRT_VERSION;
  report.pid = getpid();
  report.opened = utc_text(opened_);
  report.written = utc_text(std::chrono::system_clock::now());
  report.decisions = decision_log_.count();
  report.mapped_plugins = mapped_libraries();
  const auto lookups = decisions_.lookups();
  report.decision_hits = lookups.hits;
  report.decision_misses = lookups.misses;
  const PlanCache::Report plans = plans_.report();
  report.plan_hits = plans.hits;
  report.plan_misses = plans.misses;
  report.plan_evictions = plans.evictions;
  report.idle_plans = static_cast<int64_t>(plans.idle.size());
  for (const auto& [candidate, bytes] : plans.idle) report.idle_bytes += bytes;
  stats_.report(plans.idle, report);
  report.rollouts = rollouts_.reports();
  return report;
}

Result<void> Runtime::reload() { return reload(false); }

// by_watch: because files have changed, not because the application asked for it.
Result<void> Runtime::reload(bool by_watch) {
  const std::lock_guard lock(reload_mutex_);
  Counted counted{&stats_.failed_reloads};  // also if an exception passes
  probes_->forget_failures();
  auto next =
      take_snapshot(options_, environment_, folder_, snapshot().get(), probes_.get(), by_watch);
  const bool taken = !by_watch || !watcher_->policy_changed();  // else another reload follows
  if (next && taken) adopt(std::move(*next));
  watch_files();  // if it failed, too: a directory that came back is another one
  if (!next && taken) return tl::unexpected(next.error());
  counted.counter = &stats_.reloads;
  return {};
}

// Watches the files that the current snapshot was made of, if they are to be watched. Never fails:
// what cannot be watched is a warning.
void Runtime::watch_files() {
  const auto snapshot = this->snapshot();
  try {
    WatchedPaths paths{snapshot->directories, {}};
    if (!options_.policy_text && !snapshot->policy_file.empty())
      paths.policy_file = folder_ / snapshot->policy_file;
    watcher_->update(snapshot->config->watch.value && !options_.never_watch, std::move(paths));
  } catch (const std::bad_alloc&) {
    watcher_->try_again();
  }
}

Result<int> Runtime::watch() { return watcher_->descriptor(); }

Result<void> Runtime::handle_events() { return watcher_->handle_events(); }

// A probe has ended that no call waited for: what it admits takes its place.
void Runtime::take_probed() {
  const std::lock_guard lock(reload_mutex_);
  if (const auto current = snapshot()) adopt(take_replacements(*current));
}

void Runtime::retry() {
  const std::lock_guard lock(reload_mutex_);
  for (const auto snapshot = this->snapshot(); const auto& entry : snapshot->entries) {
    if (entry->plugin->fault.empty())
      probes_->forget_refusal(
          {entry->plugin, entry->options, *snapshot->config, *snapshot->services});
  }
  probes_->forget_failures();
  for (const auto snapshot = this->snapshot(); const auto& [entry, plugin] : snapshot->replacements)
    probes_->forget_refusal(
        {plugin, snapshot->entries[entry]->options, *snapshot->config, *snapshot->services});
  auto next = look_again(*snapshot());
  if (!snapshot()->replacements.empty()) next = take_replacements(next ? *next : *snapshot());
  if (next) {
    adopt(std::move(next));
  } else {
    failover_.restart();  // a call that began before the last retry may have told of a lost device
  }
}

// Makes the snapshot the current one. A call that still works on the previous one finishes there,
// and its decision and plan are not kept.
void Runtime::adopt(std::shared_ptr<Snapshot> next) {
  std::vector<std::string> hashes;
  for (const auto& plugin : next->found.plugins) hashes.push_back(plugin->hash);
  Rollouts::Next rollouts = rollouts_.next(*next->config, next->found);
  next->rollouts = rollouts.rollouts;
  stats_.restart(std::move(hashes));  // the last step that may fail
  rollouts_.restart(std::move(rollouts.rollouts));
  next->services->log_level = next->config->log_level.value;
  failover_.restart();
  decisions_.restart(next.get());
  plans_.restart(next.get(), next->config->plan_cache_bytes.value);
  const auto services = next->services;
  std::shared_ptr<const Snapshot> before;  // destroyed after the lock is released
  {
    const std::lock_guard lock(snapshot_mutex_);
    before = std::exchange(snapshot_, std::move(next));
  }
  for (const auto& [severity, line] : rollouts.log) services->log(severity, line);
}

std::vector<PluginRow> Runtime::plugins(bool log_failures, Probes::Wait wait) const {
  const auto snapshot = this->snapshot();
  std::vector<PluginRow> rows;
  for (size_t i = 0; i < snapshot->entries.size(); ++i) {
    const auto& entry = snapshot->entries[i];
    PluginRow row{snapshot->found.plugins[i], "broken", entry->plugin->fault, {}, {}, {}};
    if (entry->plugin->manifest) row.notes = entry->plugin->manifest->notes;
    for (const Relaxed& relaxed : row.plugin->grounds.relaxed) row.notes.push_back(relaxed.text);
    if (names_origin(row.plugin->links)) {
      row.notes.emplace_back(
          "it looks for libraries beside itself ($ORIGIN), where the loader does not look for a "
          "library that is loaded from memory");
    }
    if (row.reason.empty()) {
      row.reason = switched_off(*snapshot->config, entry->plugin->manifest->name);
      if (!row.reason.empty()) row.state = "disabled";
    }
    if (row.reason.empty()) row.reason = entry->plugin->manifest->serves_nothing();
    if (row.reason.empty()) {
      if (wait == Probes::Wait::until_done) (void)snapshot->admit(*entry, wait);
      const auto loaded = snapshot->load(*entry, log_failures);
      row.admission = Snapshot::admission_of(*entry);
      if (loaded) {
        row.devices = (*loaded)->devices();
        row.state = row.devices.empty() ? "no device" : "ready";
        if (row.devices.empty()) row.reason = (*loaded)->no_device_reason();
        if (const auto& note = (*loaded)->devices_note(); !note.empty()) row.notes.push_back(note);
        add_rollout(*snapshot, *entry->plugin, row);
      } else {
        row.reason = loaded.error().message;
        if (row.admission.state == Admission::State::waiting) row.state = "waiting";
        if (row.admission.state == Admission::State::refused) {
          row.state = "refused";
          row.reason = row.admission.reason;
        }
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::shared_ptr<const Decision> Runtime::decide(const Problem& problem, const Call& call) {
  const auto snapshot = this->snapshot();
  return decide(snapshot, cache_key(*snapshot->config, problem), problem, call);
}

std::shared_ptr<const Decision> Runtime::decide(const std::shared_ptr<const Snapshot>& snapshot,
                                                const CacheKey& key, const Problem& problem,
                                                const Call& call) {
  auto known = decisions_.find(snapshot.get(), key, call, bounds_of(problem), generation(), true);
  return known != nullptr ? known : decide_anew(snapshot, key, problem, call);
}

std::shared_ptr<const Decision> Runtime::decide_anew(
    const std::shared_ptr<const Snapshot>& snapshot, const CacheKey& key, const Problem& problem,
    const Call& call) {
  uint64_t generation = this->generation();
  const Problem rounded = with_bounds(problem, bounds_of(key.problem));
  Quarantine quarantine = quarantine_of(*snapshot, rounded);
  const auto decided = [&] {
    return std::make_shared<const Decision>(
        decide_with_rollouts(*snapshot, problem, "", call, false, quarantine));
  };
  const auto recorded = [&](std::shared_ptr<const Decision> made) {
    decision_log_.add(*made, *snapshot->services);
    if (made->challenge != nullptr) decision_log_.add(*made->challenge, *snapshot->services);
    return made;
  };
  auto decision = decided();
  if (const Verdict* winner = decision->winner(); winner != nullptr && !quarantine.held.empty()) {
    // The first call that a candidate which is due would serve is its trial. The decision is this
    // call's alone: the others go on without the candidate until the trial has ended.
    const CandidateId id = id_of(winner->candidate);
    const Quarantine::Held* held = quarantine.find(id);
    if (held != nullptr && held->due) {
      if (failover_.begin_trial(*snapshot, winner->candidate, rounded)) {
        auto alone = std::make_shared<Decision>(*decision);
        alone->challenge = nullptr;  // this call is for the trial
        return recorded(std::move(alone));
      }
      generation = this->generation();
      quarantine = quarantine_of(*snapshot, rounded);
      decision = decided();
    }
  }
  // The next call may have memory.
  if (decision->status == ATTNRT_OUT_OF_MEMORY) return recorded(decision);
  // A load that ran out of memory is such a failure of its candidate: the breaker says when it is
  // tried again. Until then the decision is kept, so that not every call tries.
  for (const Verdict& verdict : decision->verdicts) {
    if (!verdict.out_of_memory) continue;
    const Candidate& candidate = verdict.candidate;
    const Error failure{
        ATTNRT_OUT_OF_MEMORY,
        fmt::format("load: {}: {}", plugin_label(*candidate.plugin), candidate.out_of_memory)};
    stats_.of(candidate)->failed(Breaker::Stage::plan, failure.code, failure.message.c_str());
    if (failover_.note_failure(*snapshot, candidate, rounded, Breaker::Stage::plan, failure,
                               !decision->fallback.empty()))
      ++generation;
  }
  // Logged by the call whose decision is kept.
  if (!decisions_.insert(snapshot, key, call, choice_of(decision, key, generation)))
    return decision;
  recorded(decision);
  const Services& services = *snapshot->services;
  if (services.logs_debug()) log_decision(services, *decision);
  if (!decision->fallback.empty()) {
    failover_.warn(
        *snapshot, key, decision->fallback.substr(0, decision->fallback.find(':')),
        fmt::format("select: fell back from {}; for {}", decision->fallback, describe(problem)));
  }
  return decision;
}

Decision Runtime::explain(const Problem& problem, const std::string& arch, const Call& call) const {
  const auto snapshot = this->snapshot();
  const Quarantine quarantine =
      quarantine_of(*snapshot, cache_key(*snapshot->config, problem).problem);
  return decide_with_rollouts(*snapshot, problem, arch, call, true, quarantine);
}

// rounded: the problem as the breaker knows it.
Quarantine Runtime::quarantine_of(const Snapshot& snapshot, const Problem& rounded) const {
  Quarantine quarantine = failover_.breaker().quarantine(rounded, failover_.now());
  quarantine.held_back = held_back(snapshot.rollouts);
  return quarantine;
}

Result<std::unique_ptr<Plan>> Runtime::plan(const Problem& problem, const Call& call,
                                            std::optional<void*> stream) {
  const auto snapshot = this->snapshot();
  const CacheKey key = cache_key(*snapshot->config, problem);
  auto decision = decide(snapshot, key, problem, call);
  if (decision->status != ATTNRT_OK)
    return tl::unexpected(Error{decision->status, decision->message});
  return failover_.plan({snapshot, std::move(decision), call, key, bounds_of(problem), stream});
}

void Runtime::trim(int64_t bytes) { plans_.trim(bytes > 0 ? bytes : -1); }

}  // namespace attnrt::core
