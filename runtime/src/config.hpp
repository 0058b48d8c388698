// runtime/src/config.hpp: the policy and the environment as one checked Config
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "admit.hpp"
#include "config_rollout.hpp"
#include "environment.hpp"
#include "formats/minisign.hpp"
#include "formats/semver.hpp"
#include "problem/constraint.hpp"

namespace attnrt::core {

enum class OnFallback { allow, warn, error };

// What becomes of a plugin where no probe can be started: it is loaded all the same if it lies
// beside libattnrt.so (open_installed), wherever it lies (open_all), or never (refuse).
enum class WithoutProbe { open_installed, open_all, refuse };
const char* name_of(WithoutProbe without_probe);  // "open installed", "open", "refuse"

// A value and where it comes from: "policy.yaml:4:13", "ATTNRT_BACKEND", "built-in policy:3:1",
// "call".
template <class T>
struct Setting {
  T value{};
  std::string origin;
  bool operator==(const Setting&) const = default;
};

// The checks of plugin files (trust.hpp) that a policy can relax, by the keys of `trust.allow`.
inline constexpr std::string_view kForeignOwner = "foreign_owner";
inline constexpr std::string_view kGroupWritable = "group_writable";
inline constexpr std::string_view kWorldWritable = "world_writable";
inline constexpr std::string_view kSetId = "set_id";
inline constexpr std::string_view kRelativePath = "relative_path";

// Which plugin files may be loaded.
struct TrustPolicy {
  Setting<std::vector<minisign::PublicKey>> keys;  // empty: signatures are not looked at
  Setting<bool> signatures_required{true, ""};     // false: a file without one may be loaded, too
  // The checks that are relaxed, each with its reason.
  std::map<std::string, Setting<std::string>, std::less<>> allow;
  // By backend, the SHA-256 hashes in hex of the only files that may serve under its name.
  std::map<std::string, Setting<std::vector<std::string>>, std::less<>> sha256;
  bool operator==(const TrustPolicy&) const = default;
};

struct BackendSettings {
  Setting<int64_t> priority{0, "default"};
  Setting<bool> enabled{true, "default"};
  Setting<VersionRange> version;
  Setting<std::optional<RolloutSettings>> rollout;
  Setting<Constraints> only;
  // In the order of the file; each value as text.
  std::vector<std::pair<std::string, std::string>> options;
  std::string options_origin;
  std::string origin;  // where it is first named
};

struct Rule {
  std::string name;  // from the policy, or "rule 3"
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
  Setting<int64_t> plan_cache_bytes;
  Setting<AdmissionLevel> admission_level;
  Setting<std::string> admission_registry;  // a folder; "": that of this user
  Setting<WithoutProbe> without_probe;
  TrustPolicy trust;
  Setting<bool> watch;
  // The conditions of `when` and `only` that look at batch, seq_q or seq_kv, in no special order.
  Constraints conditions_on_bounds;
  // From the environment only.
  Setting<std::optional<std::string>> forced_backend;
  Setting<std::vector<std::string>> disabled;  // globs on backend names
  Setting<int> log_level;                      // ATTNRT_LOG_*
  bool log_decisions = false;                  // ATTNRT_LOG names `decision`
  // About legal settings that have no effect, with file:line:column, and about unknown variables.
  std::vector<std::string> warnings;
};

// Returns the built-in policy, which is the text of config/default.yaml.
std::string_view builtin_policy();

// Returns why no version of a backend may serve: "disabled (policy.yaml:7:5)", "disabled by
// ATTNRT_DISABLE (hip_*)", "not listed, and unlisted is deny (policy.yaml:9:11)"; "" if it may.
std::string switched_off(const Config& config, std::string_view backend);

// Reads the policy over the built-in one, then the environment over both. A key that a layer does
// not name keeps its value: `backends` merges by backend and key, while lists, only and options
// replace. An empty variable counts as not set. text: the policy's YAML; "": only the built-in
// policy. file: its path, for messages and as the base of relative directories; "": the text is in
// no file (messages call it "policy"), and directories must be absolute. Errors: INVALID_ARGUMENT,
// "file:line:column: what was found, what was expected"; an unknown key comes with the nearest
// known one. Returns the first error. `errors` gets all that can be found independently of each
// other, in the order in which keys are read; text that is not YAML gives only one.
Result<Config> read_config(std::string_view text, const std::string& file,
                           const Environment& environment, Errors* errors = nullptr);

}  // namespace attnrt::core
