// runtime/cli/verify_agree.cpp: the rules AGR-n, and the mean error: what the random cases say as a whole
#include <fmt/format.h>

#include "verify_checks.hpp"
#include "verify_trial.hpp"

namespace attnrt::cli::verify {

Outcome check_reasons(Subject& subject) {
  for (int64_t n = 0; n < subject.settings.cases; ++n) {
    const uint64_t seed = subject.settings.seed + static_cast<uint64_t>(n);
    const auto drawn = draw(subject.manifest(), subject.device(), seed);
    if (!drawn) continue;
    std::vector<std::string> reasons;
    const attnrt_status status = subject.supports(drawn->problem, &reasons);
    if (status == ATTNRT_OK) continue;
    if (status != ATTNRT_UNSUPPORTED) {
      return failed(fmt::format("supports returns status {} ({})", status, core::describe(drawn->problem)), seed);
    }
    const bool said = !reasons.empty() && !reasons.front().empty();
    if (!said)
      return failed(fmt::format("supports says no without a reason ({})", core::describe(drawn->problem)), seed);
  }
  return passed();
}

Outcome check_agreement(Subject& subject) {
  const Trials& trials = subject.trials();
  if (trials.findings.contains("AGR-2")) return trials.outcome("AGR-2");
  if (trials.drawn == 0) return failed("no problem can be drawn from the manifest's entries");
  if (trials.ran == 0) return failed(fmt::format("none of {} problems that the manifest allows ran", trials.drawn));
  return passed();
}

Outcome check_entries(Subject& subject) {
  const Trials& trials = subject.trials();
  const auto& entries = subject.manifest().entries;
  for (size_t n = 0; n < entries.size(); ++n) {
    const auto drawn = trials.drawn_of_entry.find(static_cast<int>(n));
    const auto ran = trials.ran_of_entry.find(static_cast<int>(n));
    if (drawn == trials.drawn_of_entry.end()) continue;  // too few cases to come to it
    if (ran == trials.ran_of_entry.end()) {
      return failed(fmt::format("none of {} problems of the entry at line {} ran", drawn->second, entries[n].line));
    }
  }
  return passed();
}

Outcome check_mean_error(Subject& subject) {
  const Trials& trials = subject.trials();
  if (trials.ran == 0) return skipped("no case ran");
  for (const auto& [dtype, sum] : trials.sum_of_dtype) {
    const double allowed = 1.5 * sum.plain + 0.25 * sum.floor;
    if (sum.error <= allowed) continue;
    const auto values = static_cast<double>(sum.values);
    return failed(
        fmt::format("{}: the mean error, relative to the largest value, is {:.2e}; {:.2e} is allowed and a plain "
                    "evaluation has {:.2e}",
                    dtype, sum.error / values, allowed / values, sum.plain / values));
  }
  return passed();
}

}  // namespace attnrt::cli::verify
