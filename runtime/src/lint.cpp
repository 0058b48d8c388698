// runtime/src/lint.cpp: warns of names in a policy that are probably misspelt
#include "lint.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/nearest.hpp"
#include "policy.hpp"

namespace attnrt::core {
namespace {

// Appends a warning for each glob of ATTNRT_DISABLE that matches neither a found backend nor one
// that the policy lists.
void lint_disabled_globs(const Config& config, const Discovery& found,
                         std::vector<std::string>& warnings) {
  for (const std::string& glob : config.disabled.value) {
    const auto matches = [&glob](const std::string& name) {
      return fnmatch(glob.c_str(), name.c_str(), 0) == 0;
    };
    const bool is_found = std::any_of(
        found.plugins.begin(), found.plugins.end(),
        [&](const auto& plugin) { return plugin->manifest && matches(plugin->manifest->name); });
    const bool is_listed = std::any_of(config.backends.begin(), config.backends.end(),
                                       [&](const auto& backend) { return matches(backend.first); });
    if (!is_found && !is_listed)
      warnings.push_back(
          fmt::format("{}: no backend is named {}", config.disabled.origin, shown(glob)));
  }
}

// Whether name is probably a misspelling of known. Names that begin with another letter ("gpu" and
// "cpu"), or differ only in a number at the end ("cpu2" and "cpu"), are taken to be meant as they
// are.
bool is_probable_typo(std::string_view name, std::string_view known) {
  const auto without_number = [](std::string_view text) {
    return text.substr(0, text.find_last_not_of("0123456789") + 1);
  };
  return !known.empty() && name.front() == known.front() &&
         without_number(name) != without_number(known);
}

// Appends a warning for each name that is probably a misspelling of a found backend's, at its first
// place in the policy.
void lint_names(const Config& config, const Discovery& found, std::vector<std::string>& warnings) {
  std::vector<std::string_view> found_names;
  std::set<std::string, std::less<>> seen;  // names that need no warning, or have been checked
  for (const auto& plugin : found.plugins) {
    if (plugin->manifest) found_names.push_back(plugin->manifest->name);
    seen.insert(plugin->manifest ? plugin->manifest->name
                                 : std::filesystem::path(plugin->path).stem().string());
  }
  for (const auto& [name, backend] : config.backends) {
    if (backend.origin.starts_with("built-in policy:")) seen.insert(name);
  }
  const auto check = [&](const std::string& name, const std::string& where) {
    if (!seen.insert(name).second) return;
    if (is_probable_typo(name, nearest(name, found_names)))
      warnings.push_back(fmt::format("{}: no backend is named {}{}", where, shown(name),
                                     did_you_mean(name, found_names)));
  };
  for (const auto& [name, backend] : config.backends)
    check(name, fmt::format("{}: backends.{}", backend.origin, name));
  for (const Rule& rule : config.rules.value) {
    for (const auto& name : rule.prefer)
      check(name, fmt::format("{}: {}: prefer", rule.origin, rule.name));
    for (const auto& name : rule.deny)
      check(name, fmt::format("{}: {}: deny", rule.origin, rule.name));
  }
}

// Appends a warning for each rollout without a version that serves the rest of the calls, and for
// each whose oldest version gets no call, since a newer one without a rollout ranks before it.
void lint_rollouts(const Config& config, const Discovery& found,
                   std::vector<std::string>& warnings) {
  for (const auto& [name, settings] : config.backends) {
    const auto& [rollout, origin] = settings.rollout;
    if (!rollout) continue;
    const FoundPlugin *oldest_new = nullptr, *newest_other = nullptr;
    for (const auto& plugin : found.plugins) {
      if (!plugin->manifest || plugin->manifest->name != name ||
          never_serves(config, *plugin->manifest))
        continue;
      const Version& version = plugin->manifest->version;
      const bool is_new = rollout->version.contains(version);
      const FoundPlugin*& bound = is_new ? oldest_new : newest_other;
      const bool is_beyond = bound != nullptr && (is_new ? version < bound->manifest->version
                                                         : bound->manifest->version < version);
      if (bound == nullptr || is_beyond) bound = plugin.get();
    }
    if (oldest_new != nullptr && newest_other == nullptr) {
      warnings.push_back(
          fmt::format("{}: backends.{}.rollout: every installed version is in {}, so that other "
                      "backends serve the rest of the calls",
                      origin, name, rollout->version.text));
    }
    if (oldest_new == nullptr || newest_other == nullptr ||
        newest_other->manifest->version < oldest_new->manifest->version)
      continue;
    warnings.push_back(fmt::format(
        "{}: backends.{}.rollout: {} is in rollout and gets no call, because {} is newer and not "
        "in rollout",
        origin, name, oldest_new->manifest->version_text, newest_other->manifest->version_text));
  }
}

}  // namespace

std::vector<std::string> lint_policy(const Config& config, const Discovery& found) {
  std::vector<std::string> warnings;
  lint_disabled_globs(config, found, warnings);
  lint_names(config, found, warnings);
  lint_rollouts(config, found, warnings);
  return warnings;
}

}  // namespace attnrt::core
