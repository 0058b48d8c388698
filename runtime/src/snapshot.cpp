// runtime/src/snapshot.cpp: see snapshot.hpp
#include "snapshot.hpp"

#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "base/nearest.hpp"
#include "base/text.hpp"
#include "formats/yaml.hpp"

namespace attnrt::core {
namespace {

struct PolicySource {
  std::string file, text;
};

Result<PolicySource> read_policy(const RuntimeOptions& options, const Environment& environment,
                                 const std::filesystem::path& folder) {
  if (options.policy_text) return PolicySource{"", *options.policy_text};
  const std::optional<std::string>& path =
      options.policy_path ? options.policy_path : environment.policy;
  if (!path) return PolicySource{};
  auto text = yaml::read_text(path->empty() ? std::filesystem::path() : folder / *path);
  if (!text) {
    const std::string by = options.policy_path ? "" : " (ATTNRT_POLICY)";
    return fail(ATTNRT_INVALID_ARGUMENT, "config: policy file {}{} {}", one_line(*path), by,
                text.error().message);
  }
  return PolicySource{*path, *std::move(text)};
}

void log_to_stderr(int32_t severity, const std::string& text) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  std::fprintf(stderr, "attnrt: %s: %s\n", kNames[std::clamp(severity, 0, 3)],
               one_line(text).c_str());
}

std::shared_ptr<Services> make_services(const RuntimeOptions& options, const Config& config) {
  auto services = std::make_shared<Services>();
  const auto count =
      options.thread_count > 0 ? options.thread_count : static_cast<int32_t>(config.threads.value);
  services->threads =
      options.parallel_for != nullptr
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

// "cpu 1.0.0, sha256 0123456789ab": as much of the hash as tells files apart.
std::string identity(const FoundPlugin& plugin) {
  return fmt::format("{} {}, sha256 {}", plugin.manifest->name, plugin.manifest->version_text,
                     plugin.hash.substr(0, 12));
}

void debug_found(const Snapshot& snapshot, const Discovery& found) {
  const auto say = [&](const std::string& text) { snapshot.services->log(ATTNRT_LOG_DEBUG, text); };
  say("config: " +
      (snapshot.policy_file.empty() ? "built-in policy" : "policy " + snapshot.policy_file));
  for (const auto& directory : snapshot.directories)
    say(fmt::format("discover: directory {} ({})", directory, snapshot.directories_origin));
  for (const auto& plugin : found.plugins)
    say(fmt::format("discover: {}: {}", plugin->path,
                    plugin->fault.empty() ? identity(*plugin) : plugin->fault));
}

// Globs of ATTNRT_DISABLE that exclude nobody.
std::vector<std::string> idle_globs(const Discovery& found, const Config& config) {
  std::vector<std::string> warnings;
  for (const std::string& glob : config.disabled.value) {
    const auto matches = [&](const std::string& name) {
      return fnmatch(glob.c_str(), name.c_str(), 0) == 0;
    };
    const bool excludes = std::any_of(
        found.plugins.begin(), found.plugins.end(),
        [&](const auto& plugin) { return plugin->manifest && matches(plugin->manifest->name); });
    // Whom the policy knows may well be missing here.
    const bool listed = std::any_of(config.backends.begin(), config.backends.end(),
                                    [&](const auto& backend) { return matches(backend.first); });
    if (!excludes && !listed)
      warnings.push_back(
          fmt::format("{}: no backend is named {}", config.disabled.origin, shown(glob)));
  }
  return warnings;
}

// A typing error, or a name of its own: "gpu" is not meant to be "cpu", nor "cpu2".
bool may_mean(std::string_view name, std::string_view near) {
  const auto stem = [](std::string_view text) {
    return text.substr(0, text.find_last_not_of("0123456789") + 1);
  };
  return !near.empty() && name.front() == near.front() && stem(name) != stem(near);
}

// Names of a policy that nearly are those of a backend that is here, each once: a rule for cppu does nothing, and no word
// would say so.
std::vector<std::string> near_misses(const Discovery& found, const Config& config) {
  std::vector<std::string_view> here;
  std::set<std::string, std::less<>> known;  // and what has been looked at
  for (const auto& plugin : found.plugins) {
    if (plugin->manifest) here.push_back(plugin->manifest->name);
    known.insert(plugin->manifest ? plugin->manifest->name
                                  : std::filesystem::path(plugin->path).stem().string());
  }
  for (const auto& [name, backend] : config.backends) {
    if (backend.origin.starts_with("built-in policy:")) known.insert(name);
  }
  std::vector<std::string> warnings;
  const auto look = [&](const std::string& name, const std::string& where) {
    if (!known.insert(name).second) return;
    if (may_mean(name, nearest(name, here)))
      warnings.push_back(fmt::format("{}: no backend is named {}{}", where, shown(name),
                                     did_you_mean(name, here)));
  };
  for (const auto& [name, backend] : config.backends)
    look(name, fmt::format("{}: backends.{}", backend.origin, name));
  for (const Rule& rule : config.rules.value) {
    for (const auto& name : rule.prefer)
      look(name, fmt::format("{}: {}: prefer", rule.origin, rule.name));
    for (const auto& name : rule.deny)
      look(name, fmt::format("{}: {}: deny", rule.origin, rule.name));
  }
  return warnings;
}

void debug_loaded(const Snapshot& snapshot, const Backend& backend) {
  std::vector<std::string> devices;
  for (const Device& device : backend.devices()) devices.push_back(device_text(device));
  const std::string with = devices.empty() ? "no device: " + backend.no_devices_because()
                                           : fmt::format("{}", fmt::join(devices, ", "));
  const FoundPlugin& plugin = backend.plugin();
  snapshot.services->log(ATTNRT_LOG_DEBUG,
                         fmt::format("load: {}: {}; {}", plugin.path, identity(plugin), with));
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
      const auto settings = config->backends.find(entry.plugin->manifest->name);
      if (!entry.options.empty() && loaded.error().code == ATTNRT_INVALID_ARGUMENT &&
          settings != config->backends.end())
        entry.fault += fmt::format(" (its options: {})", settings->second.options_origin);
      entry.failed = true;
    }
  });
  if (!here) return;
  if (entry.failed) {
    if (warn)
      services->log(ATTNRT_LOG_WARNING,
                    fmt::format("load: {}: {}", entry.plugin->path, entry.fault));
  } else if (services->debugs()) {
    debug_loaded(*this, *entry.backend);
  }
}

Result<std::shared_ptr<Snapshot>> take_snapshot(const RuntimeOptions& options,
                                                const std::filesystem::path& folder,
                                                const Snapshot* previous) {
  const Environment environment = read_environment();
  const auto source = read_policy(options, environment, folder);
  if (!source) return tl::unexpected(source.error());
  auto config = read_config(source->text, source->file, environment);
  if (!config) return tl::unexpected(config.error());

  auto snapshot = std::make_shared<Snapshot>();
  snapshot->config = std::make_shared<const Config>(std::move(*config));
  snapshot->policy_file = options.policy_text ? "policy" : source->file;
  const auto& directories = snapshot->config->directories;
  snapshot->directories =
      options.plugin_path ? split(*options.plugin_path, ':') : directories.value;
  snapshot->directories_origin = options.plugin_path ? "call" : directories.origin;
  if (snapshot->directories.empty() && !options.plugin_path)
    snapshot->directories = {default_plugin_directory()};
  for (auto& directory : snapshot->directories) {
    if (!directory.empty())
      directory = folder / directory;  // "" is no directory, and not the current one
  }
  const bool same_threads =
      previous != nullptr && previous->config->threads.value == snapshot->config->threads.value;
  snapshot->services =
      same_threads ? previous->services : make_services(options, *snapshot->config);

  Discovery found = discover(snapshot->directories);
  if (snapshot->services->debugs()) debug_found(*snapshot, found);
  const Config& settled = *snapshot->config;
  for (const auto& warnings : {settled.warnings, found.warnings, idle_globs(found, settled),
                               near_misses(found, settled)}) {
    for (const auto& warning : warnings) snapshot->services->log(ATTNRT_LOG_WARNING, warning);
  }
  for (auto& plugin : found.plugins) {
    Options settings;
    if (plugin->manifest) {
      const auto known = snapshot->config->backends.find(plugin->manifest->name);
      if (known != snapshot->config->backends.end()) settings = known->second.options;
    }
    std::shared_ptr<Snapshot::Entry> entry;
    if (same_threads &&
        !plugin->hash.empty()) {  // the same bytes with the same options stay open as they are
      for (const auto& old : previous->entries) {
        const bool same = old->plugin->hash == plugin->hash && old->plugin->path == plugin->path;
        if (same && old->options == settings && plugin->fault.empty() && !old->failed) entry = old;
      }
    }
    if (!entry) {
      entry = std::make_shared<Snapshot::Entry>();
      entry->plugin = std::move(plugin);
      entry->options = std::move(settings);
    }
    snapshot->entries.push_back(std::move(entry));
  }
  return snapshot;
}

}  // namespace attnrt::core
