// tests/runtime/conformance/judge_test.cpp: each mistake is found, and breaks its rule
#include "conformance/judge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"

namespace attnrt::conformance {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view kManifest = R"(name: test
version: 1.0.0
abi: 1
devices: [cpu]
supports:
  - features: [gqa, causal, kv_lengths, lse, align_top_left, window]
)";

// A case of the wanted style with lse, and a result that holds the exact answer, rounded once.
struct Trial {
  Case drawn;
  Tensors tensors;
  Expectation expectation;
  RunResult result;

  explicit Trial(Style style) {
    const auto manifest = core::parse_manifest(kManifest, "test.so");
    const core::Device cpu{ATTNRT_DEVICE_CPU, 0, "", "cpu", 0};
    for (uint64_t seed = static_cast<uint64_t>(style);; seed += kStyles) {
      const auto one = draw_case(*manifest, cpu, seed);
      if (!one || one->style != style || !one->problem.lse) continue;
      drawn = *one;
      tensors = make_tensors(drawn);
      expectation = expect(drawn, tensors, {});
      if (find_row(false) != nullptr) break;
    }
    result.out = tensors[TensorName::out].bytes;
    result.lse = tensors[TensorName::lse].bytes;
    for (const ExpectedRow& row : expectation.rows) {
      for (int64_t x = 0; x < drawn.problem.head_dim_v; ++x)
        set_out(row, x, expectation.out[static_cast<size_t>(row.out_at + x)]);
      set_lse(row, expectation.lse[static_cast<size_t>(row.lse_at)]);
    }
  }

  const ExpectedRow* find_row(bool empty) const {
    for (const ExpectedRow& row : expectation.rows)
      if (row.empty == empty) return &row;
    return nullptr;
  }
  double out(const ExpectedRow& row, int64_t x) const {
    return expectation.out[static_cast<size_t>(row.out_at + x)];
  }
  void set_out(const ExpectedRow& row, int64_t x, double value) {
    const ReferenceRun run = reference_run(drawn, tensors);
    const kernels::Sequence s = kernels::sequence(run.problem, run.args, row.b);
    const int64_t at = kernels::query_row(run.problem, run.args.out, s, row.b, row.i, row.head) + x;
    kernels::store_float(run.problem.dtype, result.out.data() + Image::kGuard, at,
                         static_cast<float>(value));
  }
  void set_lse(const ExpectedRow& row, double value) {
    const ReferenceRun run = reference_run(drawn, tensors);
    const kernels::Sequence s = kernels::sequence(run.problem, run.args, row.b);
    const int64_t at = kernels::lse_element(run.problem, run.args.lse, s, row.b, row.i, row.head);
    kernels::store_float(kernels::DType::f32, result.lse.data() + Image::kGuard, at,
                         static_cast<float>(value));
  }
  std::vector<std::string> broken_rules() const {
    std::vector<std::string> rules;
    for (const Finding& finding : judge(drawn, tensors, expectation, result))
      rules.push_back(finding.rule);
    return rules;
  }
};

TEST(Judge, TheExactAnswerHasNoFindings) {
  for (int style = 0; style < kStyles; ++style) {
    const Trial trial(static_cast<Style>(style));
    EXPECT_THAT(trial.broken_rules(), IsEmpty()) << describe(trial.drawn);
  }
}

TEST(Judge, AWrongValueBreaksTheRuleOfItsStyle) {
  const std::pair<Style, const char*> rules[] = {{Style::plain, "ACC-1"},
                                                 {Style::long_rows, "ACC-1"},
                                                 {Style::huge_logits, "ACC-5"},
                                                 {Style::lowest_mask, "ACC-6"}};
  for (const auto& [style, rule] : rules) {
    Trial trial(style);
    const ExpectedRow& row = *trial.find_row(false);
    trial.set_out(row, 0, trial.out(row, 0) + 3 * trial.expectation.out_bound(row));
    EXPECT_THAT(trial.broken_rules(), ElementsAre(rule));
  }
}

TEST(Judge, NanBreaksTheRuleOfItsStyle) {
  const std::pair<Style, const char*> rules[] = {
      {Style::plain, "ACC-1"}, {Style::nan_outside, "ACC-7"}, {Style::nan_masked, "ACC-8"}};
  for (const auto& [style, rule] : rules) {
    Trial trial(style);
    trial.set_out(*trial.find_row(false), 0, NAN);
    EXPECT_THAT(trial.broken_rules(), ElementsAre(rule));
  }
}

TEST(Judge, AWrongLseBreaksItsRule) {
  Trial trial(Style::plain);
  const ExpectedRow& row = *trial.find_row(false);
  trial.set_lse(row, trial.expectation.lse[static_cast<size_t>(row.lse_at)] + 0.5);
  EXPECT_THAT(trial.broken_rules(), ElementsAre("ACC-3"));
}

TEST(Judge, ARowThatSeesNothingMustBeZero) {
  Trial trial(Style::empty_rows);
  ASSERT_NE(trial.find_row(true), nullptr);
  trial.set_out(*trial.find_row(true), 0, 1e-3);
  EXPECT_THAT(trial.broken_rules(), ElementsAre("ACC-4"));
}

TEST(Judge, WritesThatMustNotBeAreFindings) {
  Trial trial(Style::plain);
  trial.result.workspace = "w", trial.result.inputs = "i", trial.result.outside = "o";
  EXPECT_THAT(trial.broken_rules(), ElementsAre("ROB-7", "ROB-8", "ROB-9"));
}

TEST(Judge, TwoRunsDifferOnlyBeyondTwiceTheBound) {
  const Trial one(Style::plain);
  Trial two(Style::plain);
  const ExpectedRow& row = *two.find_row(false);
  EXPECT_EQ(difference(one.drawn, one.tensors, one.expectation, one.result, two.result), "");
  two.set_out(row, 0, two.out(row, 0) + 5 * two.expectation.out_bound(row));
  EXPECT_THAT(difference(one.drawn, one.tensors, one.expectation, one.result, two.result),
              HasSubstr("out at sequence"));
}

}  // namespace
}  // namespace attnrt::conformance
