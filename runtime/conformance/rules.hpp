// runtime/conformance/rules.hpp: what the parts of `attnrt verify` share: rules, their outcomes, and what was asked for
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attnrt::cli::verify {

// passed: it was checked on something. What nothing in this run could tell is skipped, and detail says what was missing.
enum class State { passed, failed, skipped };
const char* state_name(State state);

struct Outcome {
  State state = State::passed;
  std::string detail;            // why it failed or was skipped
  std::optional<uint64_t> seed;  // of the case that failed: `--cases 1 --seed N` draws it again
  bool died = false;             // the process ended, or did not end, in this rule
};
inline Outcome passed() { return {}; }
inline Outcome failed(std::string detail, std::optional<uint64_t> seed = {}) {
  return {State::failed, std::move(detail), seed, false};
}
inline Outcome skipped(std::string detail) {
  return {State::skipped, std::move(detail), {}, false};
}

inline constexpr const char* only_a_parent =
    "only a parent process can tell";  // of what a child printed

class Subject;

// One numbered rule. Ids are never reused; a new rule goes to the end of its group.
struct Rule {
  std::string_view id;           // ABI-3
  std::string_view requirement;  // of the plugin
  std::string_view failing;      // what its users would see
  std::string_view needs;        // the rule that must have passed before, or ""
  Outcome (*check)(Subject&);
};
std::span<const Rule> rules();  // in the order in which they are checked
const Rule* find_rule(std::string_view id);

// What every plugin is verified with.
struct Settings {
  int64_t cases = 64;
  uint64_t seed = 1;
  double deadline_seconds = 120;
  std::vector<std::string> only;  // ids; empty: all
  bool in_process = false;
};

struct RuleResult {
  const Rule* rule = nullptr;
  Outcome outcome;
};

// Called while rules run: the rule, and how far it is (done of all).
using Progress = std::function<void(const Rule& rule, int64_t done, int64_t all)>;

// Checks the rules on one plugin file, one after another, in this process. `before`: what earlier processes found, for
// `needs`. `finished` gets each result as it comes, `started` is called before each rule.
struct Listener {
  std::function<void(const Rule&)> started;
  std::function<void(const RuleResult&)> finished;
  Progress progress;
};
void check_rules(const std::string& path, const Settings& settings,
                 const std::vector<RuleResult>& before, const Listener& listener);

// The same in child processes: a crash or a deadline fails the rule that was running, and a new child goes on after it.
std::vector<RuleResult> check_rules_in_children(const std::string& path, const Settings& settings,
                                                const Progress& progress);
// The child's part: the request on descriptor 3, answers to 4 (both JSON, one line each). Gives its exit code.
int serve_as_child();

}  // namespace attnrt::cli::verify
