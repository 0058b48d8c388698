// runtime/cli/verify/report.cpp: the results of one plugin's rules as text and as JSON
#include "cli/verify/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cli/command.hpp"

namespace attnrt::cli::verify {
namespace {

using conformance::RuleResult;
using conformance::Settings;
using conformance::State;
using conformance::state_name;

constexpr int kIndent = 18;        // columns before the lines below a failed rule
constexpr int kFewestInRange = 3;  // so many or more rules skipped for one reason share a line

// Returns a command line that checks the failed rule again. If the failing case is known, it checks
// that case alone. If the rule's process died, it checks without a child process, for a debugger.
std::string reproduction(const std::string& path, const RuleResult& result,
                         const Settings& settings) {
  std::string line = fmt::format("attnrt verify --plugin {} --rule {}", path, result.rule->id);
  if (result.outcome.died)
    return line + fmt::format(" --cases {} --seed {} --in-process", settings.cases, settings.seed);
  if (result.outcome.seed) return line + fmt::format(" --cases 1 --seed {}", *result.outcome.seed);
  return line;
}

}  // namespace

int64_t count(const std::vector<RuleResult>& results, State state) {
  return std::count_if(results.begin(), results.end(),
                       [state](const RuleResult& r) { return r.outcome.state == state; });
}

std::string to_text(const std::string& path, const std::vector<RuleResult>& results,
                    const Settings& settings) {
  std::string text = one_line(path) + "\n";
  for (auto next = results.begin(); next != results.end();) {
    const auto end = std::find_if_not(next, results.end(), [next](const RuleResult& other) {
      return other.outcome.state == State::skipped && other.outcome.detail == next->outcome.detail;
    });
    if (end - next >= kFewestInRange) {
      text += fmt::format("  {} to {}: {}, {}\n", next->rule->id, (end - 1)->rule->id,
                          state_name(State::skipped), one_line(next->outcome.detail));
      next = end;
      continue;
    }
    const RuleResult& result = *next++;
    const State state = result.outcome.state;
    const std::string detail = one_line(result.outcome.detail);
    text += fmt::format("  {:<7} {:<8} {}\n", result.rule->id, state_name(state),
                        state == State::skipped ? detail : result.rule->requirement);
    if (state != State::failed) continue;
    const auto add_line = [&text](std::string_view line) {
      text += fmt::format("{:{}}{}\n", "", kIndent, line);
    };
    add_line(detail);
    add_line(fmt::format("effect: {}", result.rule->effect));
    add_line(fmt::format("reproduce: {}", one_line(reproduction(path, result, settings))));
  }
  return text + fmt::format("  {} passed, {} failed, {} skipped\n", count(results, State::passed),
                            count(results, State::failed), count(results, State::skipped));
}

core::Json to_json(const std::string& path, const std::vector<RuleResult>& results,
                   const Settings& settings) {
  std::vector<core::Json> rules;
  for (const RuleResult& result : results) {
    std::vector<core::Json::Member> rule = {{"id", result.rule->id},
                                            {"requirement", result.rule->requirement},
                                            {"state", state_name(result.outcome.state)}};
    if (result.outcome.state != State::passed) rule.push_back({"detail", result.outcome.detail});
    if (result.outcome.state == State::failed) {
      rule.push_back({"effect", result.rule->effect});
      rule.push_back({"reproduce", reproduction(path, result, settings)});
    }
    rules.emplace_back(std::move(rule));
  }
  return {{"path", path},
          {"rules", rules},
          {"passed", count(results, State::passed)},
          {"failed", count(results, State::failed)},
          {"skipped", count(results, State::skipped)}};
}

}  // namespace attnrt::cli::verify
