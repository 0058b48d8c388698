// runtime/conformance/check.cpp: one plugin file into the outcome of each rule, in this process
#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "conformance/subject.hpp"
#include "conformance/trial.hpp"

namespace attnrt::cli::verify {
namespace {

constexpr std::string_view kDevices = "ABI-8";

const Outcome* outcome_of(const std::vector<RuleResult>& results, std::string_view id) {
  for (const RuleResult& result : results) {
    if (result.rule->id == id) return &result.outcome;
  }
  return nullptr;
}

// Why the rule cannot be checked, or "". A plugin that fails some runs can still be tried on the others; one that died in
// them cannot.
std::string obstacle(const Rule& rule, const std::vector<RuleResult>& results) {
  for (const Rule* needed = &rule; !needed->needs.empty();) {
    needed = find_rule(needed->needs);
    const Outcome* outcome = outcome_of(results, needed->id);
    if (outcome == nullptr) continue;
    if (outcome->died || (outcome->state == State::failed && needed->id.starts_with("ABI"))) {
      return fmt::format("it needs {}", needed->id);
    }
  }
  return {};
}

bool needs_device(const Rule& rule) {
  for (const Rule* needed = &rule; !needed->needs.empty();) {
    needed = find_rule(needed->needs);
    if (needed->id == kDevices) return true;
  }
  return false;
}

// Asked for, or needed by one that is.
bool wanted(const Rule& rule, const std::vector<std::string>& only) {
  return only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& id) {
           const Rule* asked = find_rule(id);
           while (asked != nullptr && asked != &rule)
             asked = asked->needs.empty() ? nullptr : find_rule(asked->needs);
           return asked == &rule;
         });
}

Outcome check(const Rule& rule, Subject& subject, const std::vector<RuleResult>& results) {
  if (const std::string text = obstacle(rule, results); !text.empty()) return skipped(text);
  try {
    if (needs_device(rule) && subject.devices().empty()) {
      return skipped("it has no device here: " + subject.devices_message());
    }
    if (rule.check == nullptr) return skipped(only_a_parent);
    return rule.check(subject);
  } catch (const std::exception& error) {
    Outcome outcome =
        failed(fmt::format("an exception crossed the plugin boundary: {}", error.what()));
    outcome.died = true;
    return outcome;
  } catch (...) {
    Outcome outcome = failed("an exception crossed the plugin boundary");
    outcome.died = true;
    return outcome;
  }
}

}  // namespace

void check_rules(const std::string& path, const Settings& settings,
                 const std::vector<RuleResult>& before, const Listener& listener) {
  Subject subject(path, settings, listener.progress);
  std::vector<RuleResult> results = before;
  for (const Rule& rule : rules()) {
    if (!wanted(rule, settings.only) || outcome_of(results, rule.id) != nullptr) continue;
    listener.started(rule);
    subject.running = &rule;
    results.push_back({&rule, check(rule, subject, results)});
    listener.finished(results.back());
  }
}

}  // namespace attnrt::cli::verify
