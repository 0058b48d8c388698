// runtime/src/config.cpp: YAML text and environment into a Config with every key checked and its origin known
#include "config.hpp"

#include <fnmatch.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <limits>

namespace attnrt::core {

namespace {

using yaml::Kind;
using yaml::Node;

constexpr std::array<std::string_view, 5> variables{"ATTNRT_POLICY", "ATTNRT_PLUGIN_PATH", "ATTNRT_BACKEND",
                                                    "ATTNRT_DISABLE", "ATTNRT_LOG"};
constexpr std::array<std::string_view, 5> log_levels{"debug", "info", "warning", "error",
                                                     "off"};  // ATTNRT_LOG_* in order

// `key: value` of a policy, under its full name ("backends.cpu.priority").
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

// The place of the node's word among the choices.
Result<size_t> read_choice(const Item& item, std::initializer_list<std::string_view> choices) {
  const auto found = std::find(choices.begin(), choices.end(), item.node.text);
  if (item.node.kind == Kind::scalar && found != choices.end()) return static_cast<size_t>(found - choices.begin());
  const auto last = choices.end() - 1;
  return yaml::wrong(item.node, item.what, fmt::format("{} or {}", fmt::join(choices.begin(), last, ", "), *last));
}

Result<std::string> read_name(const Item& item) {
  const auto legal = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  const std::string& text = item.node.text;
  const bool name = !text.empty() && text[0] >= 'a' && text[0] <= 'z' && std::all_of(text.begin(), text.end(), legal);
  if (item.node.kind == Kind::scalar && name) return text;
  return yaml::wrong(item.node, item.what, "a backend's exact name (a-z, 0-9 and _)");
}

Result<std::vector<std::string>> read_names(const Item& list) {
  std::vector<std::string> names;
  if (list.node.kind != Kind::list && list.node.kind != Kind::scalar)
    return yaml::wrong(list.node, list.what, "a list of backends");
  const bool one = list.node.kind == Kind::scalar;
  for (const Node& node : one ? std::span(&list.node, 1) : std::span(list.node.items)) {
    auto name = read_name({node, list.what});
    if (!name) return tl::unexpected(name.error());
    if (std::find(names.begin(), names.end(), *name) != names.end()) {
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: found {} twice, expected once", node.place(), list.what, *name);
    }
    names.push_back(*std::move(name));
  }
  return names;
}

// setting = value, if it could be read.
template <class T, class U>
Result<void> put(Setting<T>& setting, Result<U> value, const Node& node) {
  if (!value) return tl::unexpected(value.error());
  setting = {T(*std::move(value)), node.place()};
  return {};
}

Result<void> read_options(const Item& map, BackendSettings& backend) {
  if (map.node.kind == Kind::null) return {};
  if (map.node.kind != Kind::map) return yaml::wrong(map.node, map.what, "a map of words");
  std::vector<std::pair<std::string, std::string>> options;
  for (size_t i = 0; i < map.node.keys.size(); ++i) {
    const Node& value = map.node.items[i];
    const std::string& key = map.node.keys[i].text;
    if (value.kind != Kind::scalar) return yaml::wrong(value, fmt::format("{}.{}", map.what, shown(key)), "a word");
    options.emplace_back(key, value.text);
  }
  backend.options = std::move(options);
  backend.options_origin = map.node.place();
  return {};
}

Result<void> read_backend(const Node& node, const std::string& where, BackendSettings& backend) {
  if (auto keys = yaml::only_keys(node, {"priority", "enabled", "version", "only", "options"}, where); !keys)
    return keys;
  Result<void> done;
  if (const auto priority = item(node, "priority", where)) {
    using Limits = std::numeric_limits<int32_t>;
    done = put(backend.priority, read_integer(*priority, Limits::min(), Limits::max()), priority->node);
    if (!done) return done;
  }
  if (const auto enabled = item(node, "enabled", where)) {
    done = put(backend.enabled, yaml::boolean(enabled->node, enabled->what), enabled->node);
    if (!done) return done;
  }
  if (const auto version = item(node, "version", where)) {
    auto text = yaml::word(version->node, version->what);
    if (!text) return tl::unexpected(text.error());
    auto range = parse_version_range(*text);
    if (!range)
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: {}", version->node.place(), version->what, range.error().message);
    backend.version = {*std::move(range), version->node.place()};
  }
  if (const auto only = item(node, "only", where); only && only->node.kind != Kind::null) {
    if (done = put(backend.only, parse_constraints(only->node, only->what), only->node); !done) return done;
  }
  if (const auto options = item(node, "options", where)) return read_options(*options, backend);
  return {};
}

Result<void> read_backends(const Node& map, Config& config) {
  if (map.kind == Kind::null) return {};
  if (map.kind != Kind::map) return yaml::wrong(map, "backends", "a map from names to settings");
  for (size_t i = 0; i < map.keys.size(); ++i) {
    auto name = read_name({map.keys[i], "backends"});
    if (!name) return tl::unexpected(name.error());
    if (auto read = read_backend(map.items[i], "backends." + *name, config.backends[*name]); !read) return read;
  }
  return {};
}

Result<Rule> read_rule(const Node& node, size_t number) {
  const std::string where = fmt::format("rules[{}]", number);
  Rule rule;
  rule.name = fmt::format("rule {}", number);
  rule.origin = node.place();
  if (node.kind != Kind::map) return yaml::wrong(node, where, "a rule: {when, prefer, deny}");
  if (auto keys = yaml::only_keys(node, {"name", "when", "prefer", "deny"}, where); !keys)
    return tl::unexpected(keys.error());
  if (const auto name = item(node, "name", where)) {
    auto text = yaml::word(name->node, name->what);
    if (!text) return tl::unexpected(text.error());
    rule.name = *std::move(text);
  }
  if (const auto when = item(node, "when", where)) {
    auto constraints = parse_constraints(when->node, when->what);
    if (!constraints) return tl::unexpected(constraints.error());
    rule.when = *std::move(constraints);
  }
  for (auto [key, list] : {std::pair{"prefer", &rule.prefer}, std::pair{"deny", &rule.deny}}) {
    const auto names = item(node, key, where);
    if (!names) continue;
    auto read = read_names(*names);
    if (!read) return tl::unexpected(read.error());
    *list = *std::move(read);
  }
  if (rule.prefer.empty() && rule.deny.empty()) {
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: found neither prefer nor deny, expected one with a backend",
                node.place(), where);
  }
  return rule;
}

Result<void> read_rules(const Node& list, Config& config) {
  if (list.kind == Kind::null) return {};
  if (list.kind != Kind::list) return yaml::wrong(list, "rules", "a list of rules");
  std::vector<Rule> rules;
  for (const Node& node : list.items) {
    auto rule = read_rule(node, rules.size() + 1);
    if (!rule) return tl::unexpected(rule.error());
    rules.push_back(*std::move(rule));
  }
  config.rules = {std::move(rules), list.place()};
  return {};
}

Result<void> read_plugins(const Node& map, const std::string& file, Config& config) {
  if (auto keys = yaml::only_keys(map, {"directories", "load"}, "plugins"); !keys) return keys;
  if (const auto load = item(map, "load", "plugins")) {
    auto read = put(config.load_by_path, read_choice(*load, {"memory", "path"}), load->node);
    if (!read) return read;
  }
  const auto list = item(map, "directories", "plugins");
  if (!list) return {};
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  std::vector<std::string> directories;
  if (list->node.kind != Kind::list) return yaml::wrong(list->node, list->what, "a list of directories");
  for (const Node& node : list->node.items) {
    auto text = yaml::word(node, list->what);
    if (!text) return tl::unexpected(text.error());
    const std::filesystem::path directory = *text;
    if (directory.is_relative() && folder.empty()) {
      return yaml::wrong(node, list->what, "an absolute path: this policy has no folder that it could be relative to");
    }
    directories.push_back((folder / directory).lexically_normal().string());
  }
  config.directories = {std::move(directories), list->node.place()};
  return {};
}

Result<void> read_default(const Item& item, Config& config) {
  if (item.node.kind == Kind::null) {
    config.default_backend = {std::nullopt, item.node.place()};
    return {};
  }
  return put(config.default_backend, read_name(item), item.node);
}

// One policy over what config holds already.
Result<void> read_layer(std::string_view text, const std::string& file, Config& config) {
  auto document = yaml::parse(text, file);
  if (!document) return tl::unexpected(document.error());
  const Node& root = document->root;
  Result<void> done = yaml::only_keys(
      root, {"schema", "plugins", "threads", "staging", "backends", "unlisted", "default", "rules", "on_fallback"}, "");
  if (!done) return done;
  if (const auto schema = item(root, "schema", "")) {
    if (auto read = read_integer(*schema, 1, 1); !read)
      return yaml::wrong(schema->node, "schema", "1, the schema that this runtime reads");
  }
  if (const auto plugins = item(root, "plugins", "")) done = read_plugins(plugins->node, file, config);
  if (const auto threads = item(root, "threads", ""); done && threads) {
    done = put(config.threads, read_integer(*threads, 0, 1024), threads->node);
  }
  if (const auto staging = item(root, "staging", ""); done && staging) {
    done = put(config.staging, read_choice(*staging, {"never", "allow"}), staging->node);
  }
  if (const auto backends = item(root, "backends", ""); done && backends) done = read_backends(backends->node, config);
  if (const auto unlisted = item(root, "unlisted", ""); done && unlisted) {
    done = put(config.unlisted, read_choice(*unlisted, {"deny", "allow"}), unlisted->node);
  }
  if (const auto name = item(root, "default", ""); done && name) done = read_default(*name, config);
  if (const auto rules = item(root, "rules", ""); done && rules) done = read_rules(rules->node, config);
  if (const auto on_fallback = item(root, "on_fallback", ""); done && on_fallback) {
    done = put(config.on_fallback, read_choice(*on_fallback, {"allow", "warn", "error"}), on_fallback->node);
  }
  return done;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    std::string_view part = text.substr(0, text.find(separator));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
  }
  return parts;
}

bool is_set(const std::optional<std::string>& variable) { return variable && !variable->empty(); }

Result<void> apply_environment(const Environment& environment, Config& config) {
  if (is_set(environment.plugin_path))
    config.directories = {split(*environment.plugin_path, ':'), "ATTNRT_PLUGIN_PATH"};
  if (is_set(environment.backend)) config.forced_backend = {environment.backend, "ATTNRT_BACKEND"};
  if (is_set(environment.disable)) config.disabled = {split(*environment.disable, ','), "ATTNRT_DISABLE"};
  config.log_level = {ATTNRT_LOG_WARNING, "default"};
  if (is_set(environment.log)) {
    const auto level = std::find(log_levels.begin(), log_levels.end(), *environment.log);
    if (level == log_levels.end()) {
      return fail(ATTNRT_INVALID_ARGUMENT, "ATTNRT_LOG: found {}, expected {}", shown(*environment.log),
                  fmt::join(log_levels, ", "));
    }
    config.log_level = {static_cast<int>(level - log_levels.begin()), "ATTNRT_LOG"};
  }
  config.warnings.insert(config.warnings.end(), environment.warnings.begin(), environment.warnings.end());
  return {};
}

const Constraint* impossible(const Constraints& constraints) {
  const auto found =
      std::find_if(constraints.begin(), constraints.end(), [](const Constraint& c) { return c.can_never_match(); });
  return found != constraints.end() ? &*found : nullptr;
}

// What is legal and has no effect.
void lint(Config& config) {
  const Rule* always = nullptr;  // the first rule whose prefer ends every search
  for (const Rule& rule : config.rules.value) {
    if (const Constraint* never = impossible(rule.when)) {
      config.warnings.push_back(fmt::format("{}: {} can never match: {}", rule.origin, rule.name, never->text()));
    } else if (always != nullptr && !rule.prefer.empty()) {
      config.warnings.push_back(fmt::format("{}: prefer of {} has no effect: {} ({}) always matches and comes first",
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
      config.warnings.push_back(
          fmt::format("{}: backends.{}.only can never match: {}", backend.only.origin, name, never->text()));
    }
  }
  const auto check_name = [&](const Setting<std::optional<std::string>>& setting, std::string_view what) {
    if (!setting.value) return;
    const std::string off = switched_off(config, *setting.value);
    if (!off.empty())
      config.warnings.push_back(fmt::format("{}: {} names {}, which is {}", setting.origin, what, *setting.value, off));
  };
  check_name(config.default_backend, "default");
  check_name(config.forced_backend, "it");
}

}  // namespace

Environment read_environment() {
  Environment environment;
  if (getauxval(AT_SECURE) != 0) return environment;
  std::optional<std::string>* const fields[] = {&environment.policy, &environment.plugin_path, &environment.backend,
                                                &environment.disable, &environment.log};
  for (size_t i = 0; i < variables.size(); ++i) {
    const char* value = secure_getenv(std::string(variables.at(i)).c_str());
    if (value != nullptr && *value != '\0') *fields[i] = value;
  }
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view name = std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
    if (!name.starts_with("ATTNRT_") || std::find(variables.begin(), variables.end(), name) != variables.end())
      continue;
    const std::string_view near = nearest(name, variables);
    environment.warnings.push_back(
        near.empty()
            ? fmt::format("{}: unknown variable, ignored; known are {}", shown(name), fmt::join(variables, ", "))
            : fmt::format("{}: unknown variable, ignored; did you mean {}?", shown(name), near));
  }
  std::sort(environment.warnings.begin(), environment.warnings.end());
  return environment;
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

Result<Config> read_config(std::string_view text, const std::string& file, const Environment& environment) {
  Config config;
  if (auto read = read_layer(builtin_policy(), "built-in policy", config); !read) return tl::unexpected(read.error());
  if (!text.empty()) {
    if (auto read = read_layer(text, file, config); !read) return tl::unexpected(read.error());
  }
  if (auto applied = apply_environment(environment, config); !applied) return tl::unexpected(applied.error());
  lint(config);
  return config;
}

}  // namespace attnrt::core
