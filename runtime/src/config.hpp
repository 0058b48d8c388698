// runtime/src/config.hpp: YAML text and environment into a Config with every key checked and its origin known
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "environment.hpp"
#include "formats/semver.hpp"
#include "problem/constraint.hpp"

namespace attnrt::core {

enum class OnFallback { allow, warn, error };

// A value and the layer that gave it: "policy.yaml:4:13", "ATTNRT_BACKEND", "built-in policy:3:1", "call".
template <class T>
struct Setting {
  T value{};
  std::string origin;
};

struct BackendSettings {
  Setting<int64_t> priority{0, "default"};
  Setting<bool> enabled{true, "default"};
  Setting<VersionRange> version;
  Setting<Constraints> only;
  std::vector<std::pair<std::string, std::string>>
      options;  // in the order of the file, scalars as text
  std::string options_origin;
  std::string origin;  // where it is named first
};

struct Rule {
  std::string name;  // given, or "rule 3"
  Constraints when;
  std::vector<std::string> prefer, deny;
  std::string origin;
};

struct Config {
  Setting<std::vector<std::string>> directories;  // empty: the default directory
  Setting<bool> load_by_path;                     // plugins.load: memory (false) or path (true)
  Setting<int64_t> threads;
  Setting<bool> staging;
  std::map<std::string, BackendSettings, std::less<>> backends;
  Setting<bool> unlisted;  // true: allow
  Setting<std::optional<std::string>> default_backend;
  Setting<std::vector<Rule>> rules;
  Setting<OnFallback> on_fallback;
  // From the environment only.
  Setting<std::optional<std::string>> forced_backend;
  Setting<std::vector<std::string>> disabled;  // globs on backend names
  Setting<int> log_level;                      // ATTNRT_LOG_*
  std::vector<std::string>
      warnings;  // rules that can never match, and the like; each with its place
};

// The built-in policy, config/default.yaml.
std::string_view builtin_policy();

// A name that no version of which can ever serve: "disabled (policy.yaml:7:5)", "disabled by ATTNRT_DISABLE (hip_*)",
// "not listed, and unlisted is deny (policy.yaml:9:11)"; "" if it may.
std::string switched_off(const Config& config, std::string_view backend);

// text: the policy's YAML ("": the built-in one alone). What it does not say keeps the built-in value: `backends`
// merges by backend and key; lists, only and options replace. The environment comes last, and an empty variable is no
// variable. file: the path of text's file, "" for text that is in none (messages call it "policy"). Relative directories
// are relative to the file's folder; text in no file allows absolute ones only. Errors: INVALID_ARGUMENT, "file:line:column: what was found, what was expected" (an unknown key
// names the nearest). The first one is what is returned; `errors` gets all that can be found independently of each other,
// in the order in which keys are read. Of text that is no YAML there is one.
Result<Config> read_config(std::string_view text, const std::string& file,
                           const Environment& environment, Errors* errors = nullptr);

}  // namespace attnrt::core
