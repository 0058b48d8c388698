// runtime/conformance/trial.cpp: random cases by a manifest into findings against rules
#include "conformance/trial.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"

namespace attnrt::cli::verify {
namespace {

// A value that is wrong belongs to the rule that its case was made for. number: both it and the exact one are finite, and
// it was written.
std::string_view rule_of_value(const Case& drawn, const Row& row, bool number) {
  if (!number && drawn.style == Style::nan_outside) return "ACC-7";
  if (!number && drawn.style == Style::nan_masked) return "ACC-8";
  if (!number && drawn.style == Style::nan_visible) return "ACC-9";
  if (row.empty) return "ACC-4";
  if (drawn.style == Style::huge_logits) return "ACC-5";
  if (drawn.style == Style::lowest_mask) return "ACC-6";
  return "ACC-1";
}

// What a case must have for the rule to say anything about it.
struct Needed {
  std::string_view rule, what;
};
constexpr std::array kNeeded = {
    Needed{"ROB-7", "a workspace"},
    Needed{"ROB-8", "inputs"},
    Needed{"ROB-9", "an output"},
    Needed{"ROB-10", "a value to write"},
    Needed{"ACC-1", "a row that sees a key"},
    Needed{"ACC-3", "lse of a row that sees a key"},
    Needed{"ACC-4", "a row that sees nothing"},
    Needed{"ACC-5", "scores of thousands"},
    Needed{"ACC-6", "an additive mask of the least finite number"},
    Needed{"ACC-7", "NaN in what does not exist"},
    Needed{"ACC-8", "a key that no query sees"},
    Needed{"ACC-9", "NaN in a visible key"},
};

std::string_view what_is_needed(std::string_view rule) {
  for (const Needed& needed : kNeeded) {
    if (needed.rule == rule) return needed.what;
  }
  return "what it is about";
}

bool right(double found, double exact, double tolerance) {
  if (std::isnan(exact)) return std::isnan(found);
  if (std::isinf(exact)) return found == exact;
  return std::abs(found - exact) <= tolerance;
}

std::string where(const Row& row) {
  return fmt::format("sequence {}, query {}, head {}", row.b, row.i, row.h);
}

// What is not finite is expected as it is.
std::string within(double exact, double tolerance) {
  return std::isfinite(exact) ? fmt::format(" within {:.2g}", tolerance) : "";
}

double lse_value(const Tensors& tensors, const Case& drawn, const std::vector<std::byte>& image,
                 const Row& row) {
  const attnrt_tensor& t = tensors[lse].view;
  int64_t at = row.b * t.stride[0] + row.h * t.stride[1] + row.i * t.stride[2];
  if (drawn.problem.varlen) {
    int64_t first = 0;
    for (int64_t b = 0; b < row.b; ++b) first += drawn.q_lengths[static_cast<size_t>(b)];
    at = row.h * t.stride[0] + (first + row.i) * t.stride[1];
  }
  return kernels::load_float(kernels::DType::f32, image.data() + Image::kGuard, at);
}

}  // namespace

double out_value(const Tensors& tensors, const Case& drawn, const std::vector<std::byte>& image,
                 const Row& row, int64_t x) {
  const attnrt_tensor& t = tensors[out].view;
  int64_t at = row.b * t.stride[0] + row.i * t.stride[1] + row.h * t.stride[2] + x;
  if (drawn.problem.varlen) {
    int64_t first = 0;
    for (int64_t b = 0; b < row.b; ++b) first += drawn.q_lengths[static_cast<size_t>(b)];
    at = (first + row.i) * t.stride[0] + row.h * t.stride[1] + x;
  }
  return kernels::load_float(kernel_problem(drawn.problem).dtype, image.data() + Image::kGuard, at);
}

std::set<std::string_view> subjects(const Case& drawn, const Tensors& tensors,
                                    const Expectation& expectation, const Ran& ran) {
  std::set<std::string_view> rules;
  if (ran.workspace_bytes != 0 || !ran.workspace.empty()) rules.insert("ROB-7");
  if (ran.out.empty()) return rules;  // it was not run, for its workspace cannot be
  rules.insert({"ROB-8", "ROB-9"});
  const bool nan_inside = drawn.style == Style::nan_masked || drawn.style == Style::nan_visible;
  for (const Row& row : expectation.rows) {
    rules.insert({"ROB-10", rule_of_value(drawn, row, true)});
    if (!nan_inside || tensors.nan_keys > 0) rules.insert(rule_of_value(drawn, row, false));
    if (drawn.problem.lse && !row.empty) rules.insert("ACC-3");
  }
  return rules;
}

std::vector<Finding> judge(const Case& drawn, const Tensors& tensors,
                           const Expectation& expectation, const Ran& ran) {
  std::vector<Finding> findings;
  const auto add = [&](std::string_view rule, std::string text) {
    for (const Finding& finding : findings) {
      if (finding.rule == rule) return;
    }
    findings.push_back({std::string(rule), std::move(text)});
  };
  if (!ran.workspace.empty()) add("ROB-7", ran.workspace);
  if (!ran.inputs.empty()) add("ROB-8", ran.inputs);
  if (!ran.outside.empty()) add("ROB-9", ran.outside);
  if (ran.out.empty()) return findings;
  if (!ran.unwritten.empty()) {
    add("ROB-10", ran.unwritten);
    add("ACC-2", ran.unwritten);
    if (drawn.problem.deterministic) add("ACC-10", ran.unwritten);
  }
  const std::vector<std::byte> poisoned(Image::kGuard + 4, tensors[out].poison);
  const double poison =
      kernels::load_float(kernel_problem(drawn.problem).dtype, poisoned.data() + Image::kGuard, 0);
  for (const Row& row : expectation.rows) {
    for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
      const double exact = expectation.exact[static_cast<size_t>(row.at + x)];
      const double found = out_value(tensors, drawn, ran.out, row, x);
      const double tolerance = row.empty ? 0 : expectation.tolerance(row);
      if (right(found, exact, tolerance)) continue;
      add(rule_of_value(drawn, row,
                        std::isfinite(found) && std::isfinite(exact) && found != poison),
          fmt::format("out at {}, {} is {:.8g}, expected {:.8g}{}", where(row), x, found, exact,
                      within(exact, tolerance)));
    }
    if (!drawn.problem.lse) continue;
    const double exact = expectation.exact_lse[static_cast<size_t>(row.lse_at)];
    const double found = lse_value(tensors, drawn, ran.lse, row);
    if (!right(found, exact, row.lse_tolerance)) {
      add(row.empty ? "ACC-4" : "ACC-3",
          fmt::format("lse at {} is {:.8g}, expected {:.8g}{}", where(row), found, exact,
                      within(exact, row.lse_tolerance)));
    }
  }
  return findings;
}

std::string difference(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                       const Ran& a, const Ran& b) {
  for (const Row& row : expectation.rows) {
    for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
      const double one = out_value(tensors, drawn, a.out, row, x),
                   two = out_value(tensors, drawn, b.out, row, x);
      if (std::isnan(one) && std::isnan(two)) continue;
      if (!(std::abs(one - two) <= 2 * expectation.tolerance(row))) {
        return fmt::format("out at {}, {} is {:.8g} and {:.8g}", where(row), x, one, two);
      }
    }
  }
  return {};
}

std::string describe(const Case& drawn) {
  const auto list = [](const std::vector<int64_t>& lengths) {
    return fmt::format("{}", fmt::join(lengths, ","));
  };
  return fmt::format("{}; run: q {} kv {}", core::describe(drawn.problem), list(drawn.q_lengths),
                     list(drawn.kv_lengths));
}

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
      failed(fmt::format("{} ({})", finding.text, verify::describe(drawn_case)), drawn_case.seed));
}

void Trials::try_case(Subject& subject, uint64_t seed) {
  const auto one = draw(subject.manifest(), subject.device(), seed);
  if (!one) return;
  ++drawn;
  ++drawn_of_entry[one->entry];
  std::vector<std::string> reasons;
  if (subject.supports(one->problem, &reasons) != ATTNRT_OK) {
    ++refused;
    return;
  }
  Tensors tensors = make_tensors(*one);
  const Ran result = run_case(subject, *one, tensors);
  if (result.status == ATTNRT_OUT_OF_MEMORY) return;  // memory apart, as the contract says
  if (!result.ok()) return add({"AGR-2", result.message}, *one);
  ++ran;
  ++ran_of_entry[one->entry];
  const Expectation expectation = expect(*one, tensors);
  for (const Finding& finding : judge(*one, tensors, expectation, result)) add(finding, *one);
  for (const std::string_view rule : subjects(*one, tensors, expectation, result)) ++checked[rule];
  if (!result.out.empty() && result.unwritten.empty())
    add_error(*one, tensors, expectation, result);
}

void Trials::add_error(const Case& drawn_case, const Tensors& tensors,
                       const Expectation& expectation, const Ran& result) {
  if (expectation.magnitude == 0) return;
  Sum& sum = sum_of_dtype[core::dtype_name(drawn_case.problem.dtype)];
  double error = 0;
  for (const Row& row : expectation.rows) {
    for (int64_t x = 0; x < drawn_case.problem.head_dim_v; ++x) {
      const double exact = expectation.exact[static_cast<size_t>(row.at + x)];
      const double found = out_value(tensors, drawn_case, result.out, row, x);
      if (!std::isfinite(exact) || !std::isfinite(found)) continue;  // NaN has rules of its own
      error += std::abs(found - exact);
      ++sum.finite;
    }
  }
  sum.error += error / expectation.magnitude;
  sum.plain += expectation.plain_sum / expectation.magnitude;
  sum.floor += expectation.floor_sum / expectation.magnitude;
  sum.values += expectation.values;
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
  return skipped(fmt::format("none of the {} cases that ran has {}", ran, what_is_needed(rule)));
}

Trials& Subject::trials() {
  if (!trials_) trials_ = std::make_unique<Trials>(*this);
  return *trials_;
}

}  // namespace attnrt::cli::verify
