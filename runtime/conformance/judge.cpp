// runtime/conformance/judge.cpp: compares what a run gave with what it should have given
//
// The bounds are those of kernels/reference/tolerance.hpp for each value of out, with one allowance
// for lse: the denominator may be the sum of weights that were rounded to the dtype. The mean of
// out is compared over all cases of a dtype (agreement_rules.cpp), since one case may have few
// values.
#include "conformance/judge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/reference/tolerance.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt::conformance {
namespace {

// Returns the rule that a wrong value breaks: the one that its case was made for.
// numbers: the value and the exact one are finite, and the value was written.
std::string_view rule_of_value(const Case& drawn, const ExpectedRow& row, bool numbers) {
  if (!numbers && drawn.style == Style::nan_outside) return "ACC-7";
  if (!numbers && drawn.style == Style::nan_masked) return "ACC-8";
  if (!numbers && drawn.style == Style::nan_visible) return "ACC-9";
  if (row.empty) return "ACC-4";
  if (drawn.style == Style::huge_logits) return "ACC-5";
  if (drawn.style == Style::lowest_mask) return "ACC-6";
  return "ACC-1";
}

bool is_right(double found, double exact, double bound) {
  if (std::isnan(exact)) return std::isnan(found);
  if (std::isinf(exact)) return found == exact;
  return std::abs(found - exact) <= bound;
}

std::string place_of(const ExpectedRow& row) {
  return fmt::format("sequence {}, query {}, head {}", row.b, row.i, row.head);
}

std::string expected_text(double exact, double bound) {
  return std::isfinite(exact) ? fmt::format("expected {:.8g} within {:.2g}", exact, bound)
                              : fmt::format("expected {}", exact);
}

// The first finding against each rule.
class Findings {
 public:
  void add(std::string_view rule, std::string text) {
    const bool known = std::any_of(list_.begin(), list_.end(),
                                   [rule](const Finding& finding) { return finding.rule == rule; });
    if (!known) list_.push_back({std::string(rule), std::move(text)});
  }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  std::vector<Finding> list_;
};

void judge_memory(const Case& drawn, const RunResult& result, Findings& findings) {
  if (!result.workspace.empty()) findings.add("ROB-7", result.workspace);
  if (!result.inputs.empty()) findings.add("ROB-8", result.inputs);
  if (!result.outside.empty()) findings.add("ROB-9", result.outside);
  if (result.out.empty() || result.unwritten.empty()) return;
  findings.add("ROB-10", result.unwritten);
  findings.add("ACC-2", result.unwritten);
  if (drawn.problem.deterministic) findings.add("ACC-10", result.unwritten);
}

}  // namespace

double lse_bound(const Case& drawn, const Expectation& expectation, const ExpectedRow& row) {
  const double bound = expectation.lse_bound(row);
  if (row.empty) return bound;
  return bound +
         kernels::reference::rounded_sum_error(attnrt_plugins::translate(drawn.problem.dtype));
}

double OutputReader::out(const std::vector<std::byte>& image, const ExpectedRow& row,
                         int64_t x) const {
  const kernels::Tensor& t = run_.args.out;
  const kernels::Sequence s = kernels::sequence(run_.problem, run_.args, row.b);
  const int64_t at = kernels::query_row(run_.problem, t, s, row.b, row.i, row.head) + x;
  return kernels::load_float(t.dtype, image.data() + Image::kGuard, at);
}

double OutputReader::lse(const std::vector<std::byte>& image, const ExpectedRow& row) const {
  const kernels::Tensor& t = run_.args.lse;
  const kernels::Sequence s = kernels::sequence(run_.problem, run_.args, row.b);
  const int64_t at = kernels::lse_element(run_.problem, t, s, row.b, row.i, row.head);
  return kernels::load_float(t.dtype, image.data() + Image::kGuard, at);
}

std::set<std::string_view> rules_tried(const Case& drawn, const Tensors& tensors,
                                       const Expectation& expectation, const RunResult& result) {
  std::set<std::string_view> rules;
  if (result.workspace_bytes != 0 || !result.workspace.empty()) rules.insert("ROB-7");
  if (result.out.empty()) return rules;  // it was not run, for lack of a possible workspace
  rules.insert({"ROB-8", "ROB-9"});
  const bool nan_in_keys = drawn.style == Style::nan_masked || drawn.style == Style::nan_visible;
  for (const ExpectedRow& row : expectation.rows) {
    rules.insert({"ROB-10", rule_of_value(drawn, row, true)});
    if (!nan_in_keys || tensors.nan_keys > 0) rules.insert(rule_of_value(drawn, row, false));
    if (drawn.problem.lse && !row.empty) rules.insert("ACC-3");
  }
  return rules;
}

std::vector<Finding> judge(const Case& drawn, const Tensors& tensors,
                           const Expectation& expectation, const RunResult& result) {
  Findings findings;
  judge_memory(drawn, result, findings);
  if (result.out.empty()) return findings.take();
  const OutputReader reader(drawn, tensors);
  const std::vector<std::byte> unwritten(Image::kGuard + 4, tensors[TensorName::out].poison);
  const attnrt_dtype dtype = tensors[TensorName::out].view.dtype;
  const double poison =
      kernels::load_float(attnrt_plugins::translate(dtype), unwritten.data() + Image::kGuard, 0);
  for (const ExpectedRow& row : expectation.rows) {
    const double bound = expectation.out_bound(row);
    for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
      const double exact = expectation.out[static_cast<size_t>(row.out_at + x)];
      const double found = reader.out(result.out, row, x);
      if (is_right(found, exact, bound)) continue;
      const bool numbers = std::isfinite(found) && std::isfinite(exact) && found != poison;
      findings.add(rule_of_value(drawn, row, numbers),
                   fmt::format("out at {}, {} is {:.8g}, {}", place_of(row), x, found,
                               expected_text(exact, bound)));
    }
    if (!drawn.problem.lse) continue;
    const double exact = expectation.lse[static_cast<size_t>(row.lse_at)];
    const double found = reader.lse(result.lse, row);
    const double allowed = lse_bound(drawn, expectation, row);
    if (is_right(found, exact, allowed)) continue;
    findings.add(row.empty ? "ACC-4" : "ACC-3",
                 fmt::format("lse at {} is {:.8g}, {}", place_of(row), found,
                             expected_text(exact, allowed)));
  }
  return findings.take();
}

std::string difference(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                       const RunResult& a, const RunResult& b) {
  const OutputReader reader(drawn, tensors);
  for (const ExpectedRow& row : expectation.rows) {
    for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x) {
      const double one = reader.out(a.out, row, x), two = reader.out(b.out, row, x);
      if (std::isnan(one) && std::isnan(two)) continue;
      if (std::abs(one - two) <= 2 * expectation.out_bound(row)) continue;
      return fmt::format("out at {}, {} is {:.8g} and {:.8g}", place_of(row), x, one, two);
    }
  }
  return {};
}

}  // namespace attnrt::conformance
