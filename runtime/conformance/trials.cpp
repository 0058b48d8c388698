// runtime/conformance/trials.cpp: all random cases, run once for every rule that looks at them
#include "conformance/trials.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace attnrt::conformance {
namespace {

// What a case must have for the rule to be tried on it.
struct Need {
  std::string_view rule, text;
};
constexpr std::array kNeeds = {
    Need{"ROB-7", "a workspace"},
    Need{"ROB-8", "inputs"},
    Need{"ROB-9", "an output"},
    Need{"ROB-10", "a value to write"},
    Need{"ACC-1", "a row that sees a key"},
    Need{"ACC-3", "lse of a row that sees a key"},
    Need{"ACC-4", "a row that sees no key"},
    Need{"ACC-5", "scores of several thousand"},
    Need{"ACC-6", "an additive mask of the lowest finite number"},
    Need{"ACC-7", "NaN in what does not exist"},
    Need{"ACC-8", "a key that no query sees"},
    Need{"ACC-9", "NaN in a visible key"},
};

std::string_view need_of(std::string_view rule) {
  for (const Need& need : kNeeds) {
    if (need.rule == rule) return need.text;
  }
  return "what it is about";
}

}  // namespace

Trials::Trials(Subject& subject) {
  for (int64_t n = 0; n < subject.settings.cases; ++n) {
    subject.report_progress(n, subject.settings.cases);
    try_case(subject, subject.settings.seed + static_cast<uint64_t>(n));
  }
}

void Trials::add(const Finding& finding, const Case& drawn_case) {
  ++counts[finding.rule];
  findings.try_emplace(
      finding.rule,
      failed(fmt::format("{} ({})", finding.text, describe(drawn_case)), drawn_case.seed));
}

void Trials::try_case(Subject& subject, uint64_t seed) {
  const auto one = draw_case(subject.manifest(), subject.device(), seed);
  if (!one) return;
  ++drawn;
  ++drawn_of_entry[one->entry];
  std::vector<std::string> reasons;
  if (subject.supports(one->problem, &reasons) != ATTNRT_OK) {
    ++refused;
    return;
  }
  const Tensors tensors = make_tensors(*one);
  const RunResult result = run_case(subject, *one, tensors);
  if (result.status == ATTNRT_OUT_OF_MEMORY) return;  // the contract allows it
  if (!result.ok()) return add({"AGR-2", result.message}, *one);
  ++ran;
  ++ran_of_entry[one->entry];
  const Expectation expectation = expect(*one, tensors, subject.life());
  for (const Finding& finding : judge(*one, tensors, expectation, result)) add(finding, *one);
  for (const std::string_view rule : rules_tried(*one, tensors, expectation, result))
    ++checked[rule];
  if (!result.out.empty() && result.unwritten.empty())
    add_errors(*one, tensors, expectation, result);
}

void Trials::add_errors(const Case& drawn_case, const Tensors& tensors,
                        const Expectation& expectation, const RunResult& result) {
  if (expectation.largest_out == 0) return;
  Sum& sum = sum_of_dtype[core::dtype_name(drawn_case.problem.dtype)];
  const OutputReader reader(drawn_case, tensors);
  double error = 0;
  for (const ExpectedRow& row : expectation.rows) {
    for (int64_t x = 0; x < drawn_case.problem.head_dim_v; ++x) {
      const double exact = expectation.out[static_cast<size_t>(row.out_at + x)];
      const double found = reader.out(result.out, row, x);
      if (!std::isfinite(exact) || !std::isfinite(found)) continue;  // NaN has rules of its own
      error += std::abs(found - exact);
      ++sum.finite;
    }
  }
  sum.error += error / expectation.largest_out;
  sum.plain += expectation.out_errors.sum / expectation.largest_out;
  sum.floor += expectation.out_errors.floor_sum / expectation.largest_out;
  sum.values += expectation.out_errors.values;
}

Outcome Trials::outcome(std::string_view rule) const {
  const auto found = findings.find(rule);
  if (found != findings.end()) {
    Outcome outcome = found->second;
    const int64_t count = counts.find(rule)->second;
    if (count > 1) outcome.detail += fmt::format("; {} of {} cases", count, drawn - refused);
    return outcome;
  }
  if (ran == 0) return skipped("no case ran");
  if (checked.contains(rule)) return passed();
  return skipped(fmt::format("none of the {} cases that ran has {}", ran, need_of(rule)));
}

}  // namespace attnrt::conformance
