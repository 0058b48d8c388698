// runtime/conformance/check_rules.cpp: checks the rules on one plugin file in this process
#include "conformance/check_rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "conformance/subject.hpp"

namespace attnrt::conformance {
namespace {

constexpr std::string_view kDevicesRule = "ABI-8";

const Outcome* find_outcome(const std::vector<RuleResult>& results, std::string_view id) {
  for (const RuleResult& result : results) {
    if (result.rule->id == id) return &result.outcome;
  }
  return nullptr;
}

const Rule* needed_by(const Rule& rule) {
  return rule.needs.empty() ? nullptr : find_rule(rule.needs);
}

// Returns why the rule cannot be checked, or "". It cannot be checked if the process died during a
// rule that it needs, or if it needs a rule ABI-n that failed. The failure of another rule is no
// obstacle: a plugin that fails some runs is still tried on the others.
std::string obstacle(const Rule& rule, const std::vector<RuleResult>& results) {
  for (const Rule* needed = needed_by(rule); needed != nullptr; needed = needed_by(*needed)) {
    const Outcome* outcome = find_outcome(results, needed->id);
    if (outcome == nullptr) continue;
    const bool abi_failed = outcome->state == State::failed && needed->id.starts_with("ABI");
    if (outcome->died || abi_failed) return fmt::format("it needs {}", needed->id);
  }
  return {};
}

bool needs_device(const Rule& rule) {
  for (const Rule* needed = needed_by(rule); needed != nullptr; needed = needed_by(*needed)) {
    if (needed->id == kDevicesRule) return true;
  }
  return false;
}

// Whether the rule was asked for, or is needed by one that was.
bool wanted(const Rule& rule, const std::vector<std::string>& only) {
  return only.empty() || std::any_of(only.begin(), only.end(), [&rule](const std::string& id) {
           const Rule* asked = find_rule(id);
           while (asked != nullptr && asked != &rule) asked = needed_by(*asked);
           return asked == &rule;
         });
}

Outcome check(const Rule& rule, Subject& subject, const std::vector<RuleResult>& results) {
  if (const std::string text = obstacle(rule, results); !text.empty()) return skipped(text);
  Outcome outcome;
  try {
    if (needs_device(rule) && subject.devices().empty())
      return skipped("it has no device here: " + subject.devices_message());
    if (rule.check == nullptr) return skipped(kNeedsParent);
    return rule.check(subject);
  } catch (const std::exception& error) {
    outcome = failed(fmt::format("an exception crossed the plugin boundary: {}", error.what()));
  } catch (...) {
    outcome = failed("an exception crossed the plugin boundary");
  }
  outcome.died = true;
  return outcome;
}

}  // namespace

void check_rules(const std::string& path, const Settings& settings,
                 const std::vector<RuleResult>& before, const Listener& listener) {
  Subject subject(path, settings, listener.progress);
  std::vector<RuleResult> results = before;
  for (const Rule& rule : rules()) {
    if (!wanted(rule, settings.only) || find_outcome(results, rule.id) != nullptr) continue;
    listener.started(rule);
    subject.running = &rule;
    results.push_back({&rule, check(rule, subject, results)});
    listener.finished(results.back());
    if (settings.until_failure && results.back().outcome.state == State::failed) break;
  }
  if (listener.completed) listener.completed();
}

}  // namespace attnrt::conformance
