// runtime/src/snapshot.cpp: the policy and the plugins as one open or reload found them
#include "snapshot.hpp"

#include <algorithm>
#include <mutex>

#include "base/text.hpp"
#include "formats/yaml.hpp"
#include "lint.hpp"

namespace attnrt::core {
namespace {

struct PolicySource {
  std::string file, text;
};

// Returns the application's policy, or else ATTNRT_POLICY's, or else no text, which stands for the
// built-in policy alone.
Result<PolicySource> read_policy(const RuntimeOptions& options, const Environment& environment,
                                 const std::filesystem::path& folder) {
  if (options.policy_text) return PolicySource{"", *options.policy_text};
  const std::optional<std::string>& path =
      options.policy_path ? options.policy_path : environment.policy;
  if (!path) return PolicySource{};
  auto text = yaml::read_text(path->empty() ? std::filesystem::path() : folder / *path);
  if (!text) {
    const std::string origin = options.policy_path ? "" : " (ATTNRT_POLICY)";
    return fail(text.error().code, "config: policy file {}{} {}", one_line(*path), origin,
                text.error().message);
  }
  return PolicySource{*path, *std::move(text)};
}

// Sets the plugin directories: the application's, or else the config's, or else the default one.
void set_directories(const RuntimeOptions& options, const std::filesystem::path& folder,
                     Snapshot& snapshot) {
  const auto& configured = snapshot.config->directories;
  snapshot.directories = options.plugin_path ? split(*options.plugin_path, ':') : configured.value;
  snapshot.directories_origin = options.plugin_path ? "call" : configured.origin;
  if (snapshot.directories.empty() && !options.plugin_path)
    snapshot.directories = {default_plugin_directory()};
  for (auto& directory : snapshot.directories) {
    // An empty name stays empty, and so leads nowhere: it must not become the current directory.
    if (!directory.empty()) directory = folder / directory;
  }
}

// Returns "cpu 1.0.0, sha256 0123456789ab": enough of the hash to tell files apart.
std::string identity(const FoundPlugin& plugin) {
  return fmt::format("{} {}, sha256 {}", plugin.manifest->name, plugin.manifest->version_text,
                     plugin.hash.substr(0, 12));
}

void log_found(const Snapshot& snapshot) {
  const auto debug = [&](const std::string& text) {
    snapshot.services->log(ATTNRT_LOG_DEBUG, text);
  };
  debug("config: " +
        (snapshot.policy_file.empty() ? "built-in policy" : "policy " + snapshot.policy_file));
  for (const auto& directory : snapshot.directories)
    debug(fmt::format("discover: directory {} ({})", directory, snapshot.directories_origin));
  for (const auto& plugin : snapshot.found.plugins)
    debug(fmt::format("discover: {}: {}", plugin->path,
                      plugin->fault.empty() ? identity(*plugin) : plugin->fault));
}

void log_loaded(const Snapshot& snapshot, const Backend& backend) {
  std::vector<std::string> devices;
  for (const Device& device : backend.devices()) devices.push_back(device_text(device));
  const std::string found =
      devices.empty() ? "no device: " + backend.no_device_reason() : joined(devices, ", ");
  const FoundPlugin& plugin = backend.plugin();
  snapshot.services->log(ATTNRT_LOG_DEBUG,
                         fmt::format("load: {}: {}; {}", plugin.path, identity(plugin), found));
}

// Returns the previous snapshot's entry for the same file with the same bytes and options, or
// nullptr if there is none that need not be loaded again.
std::shared_ptr<Snapshot::Entry> entry_to_keep(const Snapshot& previous, const FoundPlugin& plugin,
                                               const Options& options) {
  if (plugin.hash.empty() || !plugin.fault.empty()) return nullptr;
  for (const auto& entry : previous.entries) {
    const bool same_file = entry->plugin->hash == plugin.hash && entry->plugin->path == plugin.path;
    // What is not loaded yet may be read again, and is judged then.
    const bool same_trust = entry->backend() || same_policy(entry->plugin->trust, plugin.trust);
    if (same_file && same_trust && entry->options == options && !entry->may_improve()) return entry;
  }
  return nullptr;
}

// Returns the plugin's entry: the previous one or a new one. previous: nullptr if its backends
// cannot be kept.
std::shared_ptr<Snapshot::Entry> entry_for(std::shared_ptr<const FoundPlugin> plugin,
                                           const Snapshot* previous, const Snapshot& snapshot) {
  Options options;
  if (plugin->manifest) {
    const auto settings = snapshot.config->backends.find(plugin->manifest->name);
    if (settings != snapshot.config->backends.end()) options = settings->second.options;
  }
  auto entry = previous != nullptr ? entry_to_keep(*previous, *plugin, options) : nullptr;
  if (entry) return entry;
  entry = std::make_shared<Snapshot::Entry>();
  entry->plugin = std::move(plugin);
  entry->options = std::move(options);
  return entry;
}

// Keeps a warning, and logs it unless the other snapshot has it. known: nullptr if there is none.
void warn(Snapshot& snapshot, const Snapshot* known, const std::string& warning) {
  snapshot.warnings.push_back(warning);
  const bool is_known =
      known != nullptr &&
      std::find(known->warnings.begin(), known->warnings.end(), warning) != known->warnings.end();
  if (!is_known) snapshot.services->log(ATTNRT_LOG_WARNING, warning);
}

// Leaves the last good bytes of a file in service, and says why its new ones are not.
std::shared_ptr<const FoundPlugin> keep(const FoundPlugin& good,
                                        std::shared_ptr<const TrustPolicy> trust,
                                        const std::string& reason) {
  auto kept = std::make_shared<FoundPlugin>(good);
  kept->trust = std::move(trust);
  kept->present_fault = reason;
  kept->identity.reset();  // so that the next reload tries again
  return kept;
}

void warn_of_kept(Snapshot& snapshot, const Snapshot* known, const FoundPlugin& kept) {
  warn(snapshot, known,
       fmt::format("load: {}: {}; its last good version, {} {}, stays in service", kept.path,
                   kept.present_fault, kept.manifest->name, kept.manifest->version_text));
}

// Returns why new bytes may not take the place of those in service: "" if they may, and are loaded
// now. waits: set if their probe is still running.
std::string replacement_fault(const Snapshot& snapshot, Snapshot::Entry& entry, bool* waits) {
  const auto admission = snapshot.admit(entry, Probes::Wait::never);
  *waits = admission && admission->state == Admission::State::waiting;
  if (*waits) return "its new bytes are being probed";
  const auto loaded = snapshot.load(entry, false);
  return loaded ? "" : loaded.error().message;
}

// Loads each plugin whose file had other bytes before, which are in service. If the new ones cannot
// be loaded, the old ones stay in service; while the new ones are probed, they do, too.
// may_keep: whether backends of `previous` may be kept. known: whose warnings are not repeated.
void try_replacements(const Snapshot& previous, bool may_keep, const Snapshot* known,
                      Snapshot& snapshot) {
  for (size_t i = 0; i < snapshot.entries.size(); ++i) {
    const auto entry = snapshot.entries[i];
    const FoundPlugin& plugin = *entry->plugin;
    if (!plugin.fault.empty() || !switched_off(*snapshot.config, plugin.manifest->name).empty())
      continue;
    const auto before =
        std::find_if(previous.entries.begin(), previous.entries.end(), [&plugin](const auto& each) {
          return each->backend() && each->plugin->path == plugin.path &&
                 each->plugin->hash != plugin.hash;
        });
    if (before == previous.entries.end()) continue;
    bool waits = false;
    const std::string fault = replacement_fault(snapshot, *entry, &waits);
    if (fault.empty()) continue;
    const FoundPlugin& good = *(*before)->plugin;
    if (!still_trusted(*plugin.trust, good.grounds, good.manifest->name, good.hash)) continue;
    auto kept = keep(good, plugin.trust, fault);
    snapshot.replacements.push_back({i, entry->plugin});
    if (!waits) warn_of_kept(snapshot, known, *kept);
    snapshot.entries[i] = entry_for(kept, may_keep ? &previous : nullptr, snapshot);
    snapshot.found.plugins[i] = std::move(kept);
  }
}

// Whether another version of the entry's backend is open.
bool is_served_by_another(const Snapshot& snapshot, const Snapshot::Entry& entry) {
  return entry.plugin->manifest &&
         std::any_of(snapshot.entries.begin(), snapshot.entries.end(), [&entry](const auto& other) {
           return other.get() != &entry && other->backend() &&
                  other->plugin->manifest->name == entry.plugin->manifest->name;
         });
}

}  // namespace

Result<Admission> Snapshot::admit(const Entry& entry, Probes::Wait wait) const {
  if (probes == nullptr) return Admission{Admission::State::off, AdmissionLevel::off, {}, 0};
  return probes->ask({entry.plugin, entry.options, *config, *services}, wait);
}

Admission Snapshot::admission_of(Entry& entry) {
  const std::lock_guard lock(entry.mutex);
  return entry.admission;
}

// A mutex and a flag instead of std::call_once: an exception that leaves call_once is unwound
// through libc, which loads another library for that, and ends the process if it cannot.
Snapshot::Loaded Snapshot::load(Entry& entry, bool log_failure) const {
  if (entry.is_loaded.load(std::memory_order_acquire)) return entry.loaded;
  {
    const std::lock_guard lock(entry.mutex);
    if (entry.is_loaded.load(std::memory_order_relaxed)) return entry.loaded;
    const auto admission =
        admit(entry, entry.is_spare ? Probes::Wait::never : Probes::Wait::some_time);
    // As a load that ran out of memory: not kept, and tried again after a while.
    if (!admission) return fail(ATTNRT_OUT_OF_MEMORY, "{}", admission.error().message);
    entry.admission = *admission;
    if (admission->state == Admission::State::waiting) {
      return fail(ATTNRT_UNSUPPORTED, "waiting for its probe ({})",
                  level_name(config->admission_level.value));
    }
    const bool refused = admission->state == Admission::State::refused;
    auto loaded =
        refused ? fail(ATTNRT_UNSUPPORTED, "refused: {}", admission->reason)
                : core::load(entry.plugin, entry.options, services, config->load_by_path.value);
    if (!loaded) {
      Error& error = loaded.error();
      if (error.code == ATTNRT_OUT_OF_MEMORY) return tl::unexpected(std::move(error));
      const auto settings = config->backends.find(entry.plugin->manifest->name);
      if (!entry.options.empty() && error.code == ATTNRT_INVALID_ARGUMENT &&
          settings != config->backends.end())
        error.message += fmt::format(" (its options: {})", settings->second.options_origin);
      entry.loaded = tl::unexpected(std::move(error));
    } else {
      entry.loaded = std::move(*loaded);
    }
    entry.is_loaded.store(true, std::memory_order_release);
  }
  if (!entry.loaded && log_failure) {
    services->log(ATTNRT_LOG_WARNING,
                  fmt::format("load: {}: {}", entry.plugin->path, entry.loaded.error().message));
  }
  if (entry.loaded && services->logs_debug()) log_loaded(*this, **entry.loaded);
  return entry.loaded;
}

std::shared_ptr<Snapshot> look_again(const Snapshot& previous) {
  const auto may_improve = [](const auto& entry) { return entry->may_improve(); };
  if (std::none_of(previous.entries.begin(), previous.entries.end(), may_improve)) return nullptr;
  auto next = std::make_shared<Snapshot>(previous);
  for (auto& entry : next->entries) {
    if (!may_improve(entry)) continue;
    auto again = std::make_shared<Snapshot::Entry>();
    again->plugin = entry->plugin;
    again->options = entry->options;
    entry = std::move(again);
  }
  return next;
}

std::shared_ptr<Snapshot> take_replacements(const Snapshot& previous) {
  auto next = std::make_shared<Snapshot>(previous);
  next->replacements.clear();
  for (const auto& replacement : previous.replacements) {
    const size_t i = replacement.entry;
    const auto entry = entry_for(replacement.plugin, nullptr, *next);
    bool waits = false;
    const std::string fault = replacement_fault(*next, *entry, &waits);
    if (fault.empty()) {
      next->entries[i] = entry;
      next->found.plugins[i] = replacement.plugin;
      continue;
    }
    next->replacements.push_back(replacement);
    if (fault != previous.found.plugins[i]->present_fault) {
      next->found.plugins[i] = keep(*previous.found.plugins[i], replacement.plugin->trust, fault);
      if (!waits) warn_of_kept(*next, nullptr, *next->found.plugins[i]);
    }
  }
  return next;
}

Result<std::shared_ptr<Snapshot>> take_snapshot(const RuntimeOptions& options,
                                                const Environment& environment,
                                                const std::filesystem::path& folder,
                                                const Snapshot* previous, Probes* probes,
                                                bool by_watch) {
  const auto source = read_policy(options, environment, folder);
  if (!source) return tl::unexpected(source.error());
  // A file is empty for a moment before the watch is told that it is being written again.
  const bool is_empty = !source->file.empty() && source->text.empty();
  if (by_watch && is_empty && previous != nullptr && !previous->policy_is_empty) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "config: policy file {} is empty, as one is that is being written; `schema: 1` is "
                "the policy that sets nothing",
                one_line(source->file));
  }
  auto config = read_config(source->text, source->file, environment);
  if (!config) return tl::unexpected(config.error());

  auto snapshot = std::make_shared<Snapshot>();
  if (options.admission_level) config->admission_level = {*options.admission_level, "call"};
  snapshot->config = std::make_shared<const Config>(std::move(*config));
  snapshot->probes = probes;
  snapshot->policy_is_empty = is_empty;
  snapshot->policy_file = options.policy_text ? "policy" : source->file;
  set_directories(options, folder, *snapshot);
  // Open backends hold the services that they were opened with, so both are kept or neither is.
  const bool same_threads =
      previous != nullptr && previous->config->threads.value == snapshot->config->threads.value;
  snapshot->services =
      same_threads ? previous->services : make_services(options, *snapshot->config);

  auto found = discover(snapshot->directories, previous != nullptr ? &previous->found : nullptr,
                        {snapshot->config, &snapshot->config->trust});
  if (!found) return tl::unexpected(found.error());
  snapshot->found = *std::move(found);
  if (snapshot->services->logs_debug()) log_found(*snapshot);
  const Snapshot* known = by_watch ? previous : nullptr;
  for (const auto& warnings : {snapshot->config->warnings, snapshot->found.warnings,
                               lint_policy(*snapshot->config, snapshot->found)}) {
    for (const auto& warning : warnings) warn(*snapshot, known, warning);
  }
  for (const auto& plugin : snapshot->found.plugins)
    snapshot->entries.push_back(entry_for(plugin, same_threads ? previous : nullptr, *snapshot));
  for (const auto& entry : snapshot->entries)
    entry->is_spare = is_served_by_another(*snapshot, *entry);
  if (previous != nullptr) try_replacements(*previous, same_threads, known, *snapshot);
  return snapshot;
}

}  // namespace attnrt::core
