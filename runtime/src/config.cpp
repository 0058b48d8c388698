// runtime/src/config.cpp: the policy and the environment as one checked Config
#include "config.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

#include "base/bytes.hpp"
#include "config_trust.hpp"

namespace attnrt::core {

namespace {

using yaml::Kind;
using yaml::Node;

// One `key: value` of a policy. what: its full name ("backends.cpu.priority").
struct Item {
  const Node& node;
  std::string what;
};

std::optional<Item> item(const Node& map, std::string_view key, std::string_view where) {
  const Node* node = map.find(key);
  if (node == nullptr) return std::nullopt;
  return Item{*node, where.empty() ? std::string(key) : fmt::format("{}.{}", where, key)};
}

Result<int64_t> read_integer(const Item& item, int64_t minimum, int64_t maximum) {
  auto value = yaml::integer(item.node, item.what);
  if (value && (*value < minimum || *value > maximum)) {
    return yaml::wrong(item.node, item.what, fmt::format("{} to {}", minimum, maximum));
  }
  return value;
}

// Returns the index of the node's word among the choices.
Result<size_t> read_choice(const Item& item, std::initializer_list<std::string_view> choices) {
  const auto found = std::find(choices.begin(), choices.end(), item.node.text);
  if (item.node.kind == Kind::scalar && found != choices.end())
    return static_cast<size_t>(found - choices.begin());
  const auto last = choices.end() - 1;
  return yaml::wrong(item.node, item.what,
                     fmt::format("{} or {}", fmt::join(choices.begin(), last, ", "), *last));
}

Result<std::string> read_name(const Item& item) {
  const auto legal = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  };
  const std::string& text = item.node.text;
  const bool name = !text.empty() && text[0] >= 'a' && text[0] <= 'z' &&
                    std::all_of(text.begin(), text.end(), legal);
  if (item.node.kind == Kind::scalar && name) return text;
  return yaml::wrong(item.node, item.what, "a backend's exact name (a-z, 0-9 and _)");
}

// Sets a setting, or notes the error if the value could not be read.
template <class T, class U>
void put(Setting<T>& setting, Result<U> value, const Node& node, Errors& errors) {
  if (value) {
    setting = {T(*std::move(value)), node.place()};
  } else {
    errors.push_back(std::move(value.error()));
  }
}

std::vector<std::string> read_names(const Item& list, Errors& errors) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  const bool one = list.node.kind == Kind::scalar;
  if (list.node.kind != Kind::list && !one) {
    errors.push_back(yaml::wrong(list.node, list.what, "a list of backends").value());
    return names;
  }
  for (const Node& node : one ? std::span(&list.node, 1) : std::span(list.node.items)) {
    auto name = read_name({node, list.what});
    if (!name) {
      errors.push_back(std::move(name.error()));
    } else if (!seen.insert(*name).second) {
      errors.push_back(
          {ATTNRT_INVALID_ARGUMENT,
           fmt::format("{}: {}: found {} twice, expected once", node.place(), list.what, *name)});
    } else {
      names.push_back(*std::move(name));
    }
  }
  return names;
}

void read_options(const Item& map, BackendSettings& backend, Errors& errors) {
  if (map.node.kind == Kind::null) return;
  if (map.node.kind != Kind::map)
    errors.push_back(yaml::wrong(map.node, map.what, "a map of words").value());
  std::vector<std::pair<std::string, std::string>> options;
  for (size_t i = 0; i < map.node.keys.size(); ++i) {
    const Node& value = map.node.items[i];
    const std::string& key = map.node.keys[i].text;
    if (value.kind != Kind::scalar)
      errors.push_back(
          yaml::wrong(value, fmt::format("{}.{}", map.what, shown(key)), "a word").value());
    options.emplace_back(key, value.text);
  }
  backend.options = std::move(options);
  backend.options_origin = map.node.place();
}

Result<VersionRange> read_version_range(const Item& version) {
  const auto text = yaml::word(version.node, version.what);
  if (!text) return tl::unexpected(text.error());
  auto range = parse_version_range(*text);
  if (!range)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: {}", version.node.place(), version.what,
                range.error().message);
  return range;
}

void read_backend(const Node& node, const std::string& where, BackendSettings& backend,
                  Errors& errors) {
  yaml::only_keys(node, {"priority", "enabled", "version", "rollout", "only", "options", "sha256"},
                  where, errors);
  if (const auto priority = item(node, "priority", where)) {
    using Limits = std::numeric_limits<int32_t>;
    put(backend.priority, read_integer(*priority, Limits::min(), Limits::max()), priority->node,
        errors);
  }
  if (const auto enabled = item(node, "enabled", where))
    put(backend.enabled, yaml::boolean(enabled->node, enabled->what), enabled->node, errors);
  if (const auto version = item(node, "version", where))
    put(backend.version, read_version_range(*version), version->node, errors);
  if (const auto rollout = item(node, "rollout", where))
    backend.rollout = {read_rollout(rollout->node, rollout->what, errors), rollout->node.place()};
  if (const auto only = item(node, "only", where); only && only->node.kind != Kind::null)
    backend.only = {parse_constraints(only->node, only->what, errors), only->node.place()};
  if (const auto options = item(node, "options", where)) read_options(*options, backend, errors);
}

void read_backends(const Item& backends, Config& config, Errors& errors) {
  const Node& map = backends.node;
  if (map.kind == Kind::null) return;
  if (map.kind != Kind::map)
    errors.push_back(yaml::wrong(map, "backends", "a map from names to settings").value());
  for (size_t i = 0; i < map.keys.size(); ++i) {
    const auto name = read_name({map.keys[i], "backends"});
    if (!name) errors.push_back(name.error());
    // Settings under an illegal name are checked too, but not kept.
    BackendSettings nameless;
    const std::string where = "backends." + name.value_or(shown(map.keys[i].text));
    BackendSettings& backend = name ? config.backends[*name] : nameless;
    if (backend.origin.empty()) backend.origin = map.keys[i].place();
    read_backend(map.items[i], where, backend, errors);
    if (const auto hashes = item(map.items[i], "sha256", where)) {
      auto pins = read_hashes(hashes->node, hashes->what, errors);
      if (name) config.trust.sha256[*name] = {std::move(pins), hashes->node.place()};
    }
  }
}

Rule read_rule(const Node& node, size_t number, Errors& errors) {
  const std::string where = fmt::format("rules[{}]", number);
  const size_t errors_before = errors.size();
  Rule rule;
  rule.name = fmt::format("rule {}", number);
  rule.origin = node.place();
  if (node.kind != Kind::map) {
    errors.push_back(yaml::wrong(node, where, "a rule: {when, prefer, deny}").value());
    return rule;
  }
  yaml::only_keys(node, {"name", "when", "prefer", "deny"}, where, errors);
  if (const auto name = item(node, "name", where)) {
    Setting<std::string> text;
    put(text, yaml::word(name->node, name->what), name->node, errors);
    rule.name = text.value;
  }
  if (const auto when = item(node, "when", where))
    rule.when = parse_constraints(when->node, when->what, errors);
  for (auto [key, list] : {std::pair{"prefer", &rule.prefer}, std::pair{"deny", &rule.deny}}) {
    if (const auto names = item(node, key, where)) *list = read_names(*names, errors);
  }
  // Only if the rule has no other error, which may be the reason why it names no backend.
  if (rule.prefer.empty() && rule.deny.empty() && errors.size() == errors_before) {
    errors.push_back(
        {ATTNRT_INVALID_ARGUMENT,
         fmt::format("{}: {}: found neither prefer nor deny, expected one with a backend",
                     node.place(), where)});
  }
  return rule;
}

void read_rules(const Item& item, Config& config, Errors& errors) {
  const Node& list = item.node;
  if (list.kind == Kind::null) return;
  if (list.kind != Kind::list)
    return errors.push_back(yaml::wrong(list, "rules", "a list of rules").value());
  std::vector<Rule> rules;
  for (const Node& node : list.items) rules.push_back(read_rule(node, rules.size() + 1, errors));
  config.rules = {std::move(rules), list.place()};
}

// Returns the folder of a file; "." for a bare name, "" if there is no file.
std::filesystem::path folder_of(const std::string& file) {
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  return folder.empty() && !file.empty() ? "." : folder;
}

Result<std::string> read_directory(const Item& item, const std::filesystem::path& folder) {
  auto text = yaml::word(item.node, item.what);
  if (!text) return text;
  const std::filesystem::path directory = *text;
  if (directory.is_relative() && folder.empty()) {
    return yaml::wrong(
        item.node, item.what,
        "an absolute path: this policy is not in a file, so there is no folder to be relative to");
  }
  return (folder / directory).lexically_normal().string();
}

void read_plugins(const Item& plugins, const std::filesystem::path& folder, Config& config,
                  Errors& errors) {
  const Node& map = plugins.node;
  yaml::only_keys(map, {"directories", "load"}, "plugins", errors);
  if (const auto load = item(map, "load", "plugins"))
    put(config.load_by_path, read_choice(*load, {"memory", "path"}), load->node, errors);
  const auto list = item(map, "directories", "plugins");
  if (!list) return;
  if (list->node.kind != Kind::list) {
    errors.push_back(yaml::wrong(list->node, list->what, "a list of directories").value());
    return;
  }
  std::vector<std::string> directories;
  for (const Node& node : list->node.items) {
    auto directory = read_directory({node, list->what}, folder);
    if (!directory)
      errors.push_back(std::move(directory.error()));
    else
      directories.push_back(*std::move(directory));
  }
  config.directories = {std::move(directories), list->node.place()};
}

Result<int64_t> read_bytes(const Item& item) {
  const auto bytes =
      item.node.kind == Kind::scalar ? parse_bytes(item.node.text) : std::optional<int64_t>();
  if (bytes) return *bytes;
  return yaml::wrong(item.node, item.what,
                     "a number of bytes, or one with a unit, as in 256 MiB (KiB, MiB, GiB, TiB)");
}

void read_plan_cache(const Item& map, Config& config, Errors& errors) {
  yaml::only_keys(map.node, {"bytes"}, map.what, errors);
  if (const auto bytes = item(map.node, "bytes", map.what))
    put(config.plan_cache_bytes, read_bytes(*bytes), bytes->node, errors);
}

void read_admission(const Item& map, const std::filesystem::path& folder, Config& config,
                    Errors& errors) {
  yaml::only_keys(map.node, {"level", "registry", "without_probe"}, map.what, errors);
  if (const auto level = item(map.node, "level", map.what)) {
    put(config.admission_level, read_choice(*level, {"off", "loads", "conforms"}), level->node,
        errors);
  }
  if (const auto registry = item(map.node, "registry", map.what)) {
    if (registry->node.kind == Kind::null) {
      config.admission_registry = {"", registry->node.place()};
    } else {
      put(config.admission_registry, read_directory(*registry, folder), registry->node, errors);
    }
  }
  if (const auto without = item(map.node, "without_probe", map.what)) {
    put(config.without_probe, read_choice(*without, {"open installed", "open", "refuse"}),
        without->node, errors);
  }
}

void read_default(const Item& item, Config& config, Errors& errors) {
  if (item.node.kind == Kind::null) {
    config.default_backend = {std::nullopt, item.node.place()};
  } else {
    put(config.default_backend, read_name(item), item.node, errors);
  }
}

// Reads one policy over the values that config has. An error in one value does not keep the other
// values from being taken.
void read_layer(std::string_view text, const std::string& file, const std::filesystem::path& folder,
                Config& config, Errors& errors) {
  const auto document = yaml::parse(text, file);
  if (!document) return errors.push_back(document.error());
  const Node& root = document->root;
  yaml::only_keys(root,
                  {"schema", "plugins", "threads", "staging", "backends", "unlisted", "default",
                   "rules", "on_fallback", "plan_cache", "admission", "trust", "watch"},
                  "", errors);
  if (const auto schema = item(root, "schema", ""); schema && !read_integer(*schema, 1, 1))
    errors.push_back(
        yaml::wrong(schema->node, "schema", "1, the schema that this runtime reads").value());
  if (const auto plugins = item(root, "plugins", ""))
    read_plugins(*plugins, folder, config, errors);
  if (const auto threads = item(root, "threads", ""))
    put(config.threads, read_integer(*threads, 0, 1024), threads->node, errors);
  if (const auto staging = item(root, "staging", ""))
    put(config.staging, read_choice(*staging, {"never", "allow"}), staging->node, errors);
  if (const auto backends = item(root, "backends", "")) read_backends(*backends, config, errors);
  if (const auto unlisted = item(root, "unlisted", ""))
    put(config.unlisted, read_choice(*unlisted, {"deny", "allow"}), unlisted->node, errors);
  if (const auto name = item(root, "default", "")) read_default(*name, config, errors);
  if (const auto rules = item(root, "rules", "")) read_rules(*rules, config, errors);
  if (const auto on_fallback = item(root, "on_fallback", ""))
    put(config.on_fallback, read_choice(*on_fallback, {"allow", "warn", "error"}),
        on_fallback->node, errors);
  if (const auto plan_cache = item(root, "plan_cache", ""))
    read_plan_cache(*plan_cache, config, errors);
  if (const auto admission = item(root, "admission", ""))
    read_admission(*admission, folder, config, errors);
  if (const auto trust = item(root, "trust", "")) read_trust(trust->node, config.trust, errors);
  if (const auto watch = item(root, "watch", ""))
    put(config.watch, yaml::boolean(watch->node, watch->what), watch->node, errors);
}

// Collects the conditions that tell apart problems of different bounds.
Constraints conditions_on_bounds(const Config& config) {
  Constraints found;
  const auto add = [&found](const Constraints& conditions) {
    std::copy_if(conditions.begin(), conditions.end(), std::back_inserter(found),
                 [](const Constraint& condition) { return condition.is_on_bounds(); });
  };
  for (const Rule& rule : config.rules.value) add(rule.when);
  for (const auto& [name, backend] : config.backends) add(backend.only.value);
  return found;
}

const Constraint* impossible(const Constraints& constraints) {
  const auto found = std::find_if(constraints.begin(), constraints.end(),
                                  [](const Constraint& c) { return c.can_never_match(); });
  return found != constraints.end() ? &*found : nullptr;
}

// Warns of settings that are legal but have no effect, as far as the policy alone tells. lint.cpp
// warns of names, for which it must know the plugins.
void warn_of_settings_without_effect(Config& config) {
  const Rule* always = nullptr;  // the first rule whose prefer ends every search
  for (const Rule& rule : config.rules.value) {
    if (const Constraint* never = impossible(rule.when)) {
      config.warnings.push_back(
          fmt::format("{}: {} can never match: {}", rule.origin, rule.name, never->text()));
    } else if (always != nullptr && !rule.prefer.empty()) {
      config.warnings.push_back(
          fmt::format("{}: prefer of {} has no effect: {} ({}) always matches and comes first",
                      rule.origin, rule.name, always->name, always->origin));
    }
    for (const std::string& name : rule.prefer) {
      if (std::find(rule.deny.begin(), rule.deny.end(), name) == rule.deny.end()) continue;
      config.warnings.push_back(
          fmt::format("{}: {} prefers and denies {}: it is denied", rule.origin, rule.name, name));
    }
    if (always == nullptr && rule.when.empty() && !rule.prefer.empty()) always = &rule;
  }
  for (const auto& [name, backend] : config.backends) {
    if (const Constraint* never = impossible(backend.only.value)) {
      config.warnings.push_back(fmt::format("{}: backends.{}.only can never match: {}",
                                            backend.only.origin, name, never->text()));
    }
    if (backend.version.value.is_empty()) {
      config.warnings.push_back(fmt::format("{}: backends.{}.version: no version is in \"{}\"",
                                            backend.version.origin, name,
                                            backend.version.value.text));
    }
  }
  for (const auto& [name, backend] : config.backends) {
    const auto& [rollout, origin] = backend.rollout;
    if (!rollout || !rollout->version.is_empty()) continue;
    config.warnings.push_back(
        fmt::format("{}: backends.{}.rollout.version: no version is in \"{}\"", origin, name,
                    rollout->version.text));
  }
  const auto check_name = [&](const Setting<std::optional<std::string>>& setting,
                              std::string_view what) {
    if (!setting.value) return;
    const std::string off = switched_off(config, *setting.value);
    if (!off.empty())
      config.warnings.push_back(
          fmt::format("{}: {} names {}, which is {}", setting.origin, what, *setting.value, off));
  };
  check_name(config.default_backend, "default");
  check_name(config.forced_backend, "it");
  if (config.trust.keys.value.empty() && !config.trust.signatures_required.value) {
    config.warnings.push_back(
        fmt::format("{}: trust.signatures has no effect: trust.keys names no key",
                    config.trust.signatures_required.origin));
  }
}

}  // namespace

const char* name_of(WithoutProbe without_probe) {
  static constexpr const char* kNames[] = {"open installed", "open", "refuse"};
  return kNames[static_cast<size_t>(without_probe)];
}

std::string switched_off(const Config& config, std::string_view backend) {
  const auto listed = config.backends.find(backend);
  if (listed != config.backends.end() && !listed->second.enabled.value) {
    return fmt::format("disabled ({})", listed->second.enabled.origin);
  }
  for (const std::string& glob : config.disabled.value) {
    if (fnmatch(glob.c_str(), std::string(backend).c_str(), 0) == 0)
      return fmt::format("disabled by {} ({})", config.disabled.origin, shown(glob));
  }
  if (listed == config.backends.end() && !config.unlisted.value) {
    return fmt::format("not listed, and unlisted is deny ({})", config.unlisted.origin);
  }
  return "";
}

Result<Config> read_config(std::string_view text, const std::string& file,
                           const Environment& environment, Errors* errors) {
  Config config;
  Errors found;
  read_layer(builtin_policy(), "built-in policy", {}, config, found);
  if (!text.empty())
    read_layer(text, file.empty() ? "policy" : file, folder_of(file), config, found);
  if (auto applied = apply_environment(environment, config); !applied)
    found.push_back(applied.error());
  if (!found.empty()) {
    Error first = found.front();
    if (errors != nullptr) *errors = std::move(found);
    return tl::unexpected(std::move(first));
  }
  warn_of_settings_without_effect(config);
  config.conditions_on_bounds = conditions_on_bounds(config);
  return config;
}

}  // namespace attnrt::core
