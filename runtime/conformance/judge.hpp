// runtime/conformance/judge.hpp: compares what a run gave with what it should have given
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/case.hpp"
#include "conformance/run.hpp"
#include "conformance/tensors.hpp"

namespace attnrt::conformance {

using kernels::reference::Expectation;
using kernels::reference::ExpectedRow;

// Reads values of out and lse from their images after a run of the case.
class OutputReader {
 public:
  OutputReader(const Case& drawn, const Tensors& tensors) : run_(reference_run(drawn, tensors)) {}
  double out(const std::vector<std::byte>& image, const ExpectedRow& row, int64_t x) const;
  double lse(const std::vector<std::byte>& image, const ExpectedRow& row) const;

 private:
  ReferenceRun run_;
};

// Returns the bound on lse. The denominator may be the sum of rounded weights, so the bound allows
// for their rounding.
double lse_bound(const Case& drawn, const Expectation& expectation, const ExpectedRow& row);

// One mistake, and the id of the rule that it breaks.
struct Finding {
  std::string rule, text;
};

// Returns the first mistake against each rule.
std::vector<Finding> judge(const Case& drawn, const Tensors& tensors,
                           const Expectation& expectation, const RunResult& result);

// Returns the rules that this run tests. A rule that no run tests was not checked.
std::set<std::string_view> rules_tried(const Case& drawn, const Tensors& tensors,
                                       const Expectation& expectation, const RunResult& result);

// Returns the first difference between two runs of one case that rounding does not explain, or "".
std::string difference(const Case& drawn, const Tensors& tensors, const Expectation& expectation,
                       const RunResult& a, const RunResult& b);

}  // namespace attnrt::conformance
