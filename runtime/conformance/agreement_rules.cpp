// runtime/conformance/agreement_rules.cpp: checks the rules AGR-n, and the mean error (ACC-2)
#include <fmt/format.h>

#include "conformance/rule_checks.hpp"
#include "conformance/subject.hpp"
#include "conformance/trials.hpp"
#include "kernels/reference/tolerance.hpp"

namespace attnrt::conformance {

Outcome check_reasons(Subject& subject) {
  if (subject.table()->supports == nullptr)
    return skipped("it has no supports: its manifest decides");
  int64_t asked = 0;
  for (int64_t n = 0; n < subject.settings.cases; ++n) {
    const uint64_t seed = subject.settings.seed + static_cast<uint64_t>(n);
    const auto drawn = draw_case(subject.manifest(), subject.device(), seed);
    if (!drawn) continue;
    ++asked;
    std::vector<std::string> reasons;
    const attnrt_status status = subject.supports(drawn->problem, &reasons);
    if (status == ATTNRT_OK) continue;
    if (status != ATTNRT_UNSUPPORTED) {
      return failed(fmt::format("supports returns status {}, expected OK or UNSUPPORTED ({})",
                                status, core::describe(drawn->problem)),
                    seed);
    }
    if (reasons.empty() || reasons.front().empty())
      return failed(fmt::format("supports gives no reason for UNSUPPORTED ({})",
                                core::describe(drawn->problem)),
                    seed);
  }
  return asked > 0 ? passed() : skipped("no problem can be drawn from the manifest's entries");
}

Outcome check_agreement(Subject& subject) {
  const Trials& trials = subject.trials();
  if (trials.findings.contains("AGR-2")) return trials.outcome("AGR-2");
  if (trials.drawn == 0) return failed("no problem can be drawn from the manifest's entries");
  if (trials.ran == 0)
    return failed(fmt::format("none of {} problems that the manifest allows ran", trials.drawn));
  return passed();
}

Outcome check_entries(Subject& subject) {
  const Trials& trials = subject.trials();
  const auto& entries = subject.manifest().entries;
  if (entries.empty()) return skipped("its manifest has no entry that this runtime knows");
  std::vector<int> not_drawn;  // lines of entries: too few cases, or no problem fits
  for (size_t n = 0; n < entries.size(); ++n) {
    const auto drawn = trials.drawn_of_entry.find(static_cast<int>(n));
    const auto ran = trials.ran_of_entry.find(static_cast<int>(n));
    if (drawn == trials.drawn_of_entry.end()) {
      not_drawn.push_back(entries[n].line);
    } else if (ran == trials.ran_of_entry.end()) {
      return failed(fmt::format("none of {} problems of the entry at line {} ran", drawn->second,
                                entries[n].line));
    }
  }
  if (not_drawn.empty()) return passed();
  return skipped(fmt::format("none of {} cases was drawn from the entry at line {}",
                             subject.settings.cases, fmt::join(not_drawn, ", ")));
}

Outcome check_mean_error(Subject& subject) {
  const Trials& trials = subject.trials();
  if (trials.findings.contains("ACC-2")) return trials.outcome("ACC-2");
  if (trials.ran == 0) return skipped("no case ran");
  if (trials.sum_of_dtype.empty())
    return skipped(
        fmt::format("none of the {} cases that ran has a result other than zero", trials.ran));
  for (const auto& [dtype, sum] : trials.sum_of_dtype) {
    if (sum.finite == 0)
      return failed(fmt::format("{}: none of {} values is finite", dtype, sum.values));
    const double allowed = kernels::reference::mean_bound(sum.plain, sum.floor);
    if (sum.error <= allowed) continue;
    const auto values = static_cast<double>(sum.values);
    return failed(
        fmt::format("{}: the mean error relative to the largest value is {:.2e}, at most {:.2e} "
                    "is allowed; a plain evaluation has {:.2e}",
                    dtype, sum.error / values, allowed / values, sum.plain / values));
  }
  return passed();
}

}  // namespace attnrt::conformance
