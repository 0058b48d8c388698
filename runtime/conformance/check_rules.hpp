// runtime/conformance/check_rules.hpp: checks the rules on one plugin file in this process
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "conformance/rules.hpp"

namespace attnrt::conformance {

struct Settings {
  int64_t cases = 64;             // random cases
  uint64_t seed = 1;              // of the first case; each further one has the next seed
  double deadline_seconds = 120;  // of one child process
  double silence_seconds = 1e9;   // that a child may let pass between two reports of progress
  std::vector<std::string> only;  // ids of rules, checked with those that they need; empty: all
  bool until_failure = false;     // whether to stop at the first rule that fails
  std::vector<std::pair<std::string, std::string>> options;  // given to the plugin's open
  // An open file with the plugin's bytes, which are checked instead of those at the path; -1: none.
  int library = -1;
};

struct RuleResult {
  const Rule* rule = nullptr;
  Outcome outcome;
};

// Reports how far the check of a rule is: `done` of `all` cases; -1: it is at work.
// THREADS: from any.
using Progress = std::function<void(const Rule& rule, int64_t done, int64_t all)>;

struct Listener {
  std::function<void(const Rule&)> started;         // before each rule
  std::function<void(const RuleResult&)> finished;  // after each rule
  Progress progress;                                // may be empty
  std::function<void()> completed;                  // before the plugin is closed; may be empty
};

// Checks the rules that settings ask for. If the plugin crashes, so does this process; children.hpp
// avoids that.
// before: results of earlier processes. Their rules are not checked again, and count for the rules
// that need them.
void check_rules(const std::string& path, const Settings& settings,
                 const std::vector<RuleResult>& before, const Listener& listener);

// The detail of a rule that was skipped because only a parent process can check it.
inline constexpr const char* kNeedsParent = "only a parent process can check it";

}  // namespace attnrt::conformance
