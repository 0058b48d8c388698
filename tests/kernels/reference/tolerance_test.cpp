// tests/kernels/reference/tolerance_test.cpp: right results are within, wrong ones beyond
#include "kernels/reference/tolerance.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/reference/expectation.hpp"
#include "kernels/reference/plain.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {
namespace {

using reference::Expectation;
using reference::ExpectedRow;

constexpr DType kDtypes[] = {DType::f32, DType::f16, DType::bf16};

float rounded(DType dtype, float value) {
  float result;
  store_float(dtype, &result, 0, value);
  return load_float(dtype, &result, 0);
}

Recipe recipe(DType dtype, int64_t keys, int64_t head_dim) {
  return {.problem = {.dtype = dtype,
                      .heads_q = 2,
                      .heads_kv = 1,
                      .head_dim = head_dim,
                      .head_dim_v = head_dim,
                      .lse = true},
          .seq_q = 7,
          .seq_kv = keys};
}

Expectation expected_of(const Case& c) { return reference::expect(c.problem, c.args); }

// Counts the rows with a value beyond its bound. out gives the row's values.
template <class Out>
int64_t rows_beyond(const Expectation& expected, int64_t head_dim_v, const Out& out) {
  int64_t rows = 0;
  for (const ExpectedRow& row : expected.rows) {
    bool beyond = false;
    for (int64_t x = 0; x < head_dim_v; ++x) {
      const double exact = expected.out[static_cast<size_t>(row.out_at + x)];
      beyond |= !(std::abs(out(row, x) - exact) <= expected.out_bound(row));
    }
    rows += beyond;
  }
  return rows;
}

std::vector<double> plain_values(const Case& c, const Expectation& expected) {
  std::vector<double> values(expected.out.size());
  for (const ExpectedRow& row : expected.rows) {
    const Sequence s = sequence(c.problem, c.args, row.b);
    const reference::PlainRow plain =
        reference::plain_row(c.problem, c.args, s, row.b, row.i, row.head);
    for (size_t x = 0; x < plain.out.size(); ++x)
      values[static_cast<size_t>(row.out_at) + x] = double{plain.out[x]};
  }
  return values;
}

// The case with its keys in the opposite order: the same exact answer, other sums.
Case reversed(const Recipe& r) {
  Case c(r);
  for (Tensor* t : {&c.args.k, &c.args.v}) {
    t->data =
        static_cast<char*>(t->data) + (t->shape[1] - 1) * t->stride[1] * element_bytes(t->dtype);
    t->stride[1] = -t->stride[1];
  }
  return c;
}

TEST(Tolerance, RoundingIsWithinTheUnitRoundoff) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0.001f, 100);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const double u = reference::unit_roundoff(dtype);
    double largest = 0;
    for (int n = 0; n < 10000; ++n) {
      const float value = uniform(random);
      const double error = std::abs(double{rounded(dtype, value)} - value) / value;
      largest = std::max(largest, error);
    }
    EXPECT_LE(largest, u);
    EXPECT_GT(largest, 0.9 * u) << "a unit roundoff that is too large hides errors";
  }
  EXPECT_EQ(1.0f + 0x1p-24f, 1.0f);
  EXPECT_EQ(reference::unit_roundoff(DType::f32), 0x1p-24);
}

TEST(Tolerance, ThePlainEvaluationIsRightInAnyOrderOfKeys) {
  for (const DType dtype : kDtypes) {
    for (const int64_t keys : {1, 2, 40, 700}) {
      for (const int64_t head_dim : {1, 8, 128}) {
        const Recipe r = recipe(dtype, keys, head_dim);
        const Case forward(r), backward = reversed(r);
        const Expectation expected = expected_of(forward);
        const std::vector<double> values = plain_values(backward, expected);
        const auto out = [&](const ExpectedRow& row, int64_t x) {
          return values[static_cast<size_t>(row.out_at + x)];
        };
        EXPECT_EQ(rows_beyond(expected, head_dim, out), 0)
            << "dtype " << static_cast<int>(dtype) << ", " << keys << " keys, " << head_dim;
      }
    }
  }
}

// Where the plain evaluation is right by chance, the floor alone must allow one rounding of the
// exact answer.
TEST(Tolerance, TheFloorAllowsOneRounding) {
  for (const DType dtype : kDtypes) {
    for (const int64_t keys : {1, 3, 200}) {
      const Case c(recipe(dtype, keys, 16));
      const Expectation expected = expected_of(c);
      for (const ExpectedRow& row : expected.rows) {
        for (int64_t x = 0; x < 16; ++x) {
          const double exact = expected.out[static_cast<size_t>(row.out_at + x)];
          const double error = std::abs(double{rounded(dtype, static_cast<float>(exact))} - exact);
          EXPECT_LE(error, row.out_floor);
        }
      }
    }
  }
}

TEST(Tolerance, AMissingKeyIsBeyond) {
  for (const DType dtype : kDtypes) {
    const Case c(recipe(dtype, 60, 32));
    const Expectation expected = expected_of(c);
    Case shorter(recipe(dtype, 60, 32));
    shorter.args.k.shape[1] = shorter.args.v.shape[1] = 59;
    const Expectation wrong = expected_of(shorter);
    const auto out = [&](const ExpectedRow& row, int64_t x) {
      return wrong.out[static_cast<size_t>(row.out_at + x)];
    };
    // A key of little weight is hard to miss; most rows must show it.
    EXPECT_GE(rows_beyond(expected, 32, out), 12) << static_cast<int>(dtype);  // of 14
  }
}

TEST(Tolerance, AWrongScaleIsBeyond) {
  for (const DType dtype : kDtypes) {
    const Case c(recipe(dtype, 60, 32));
    const Expectation expected = expected_of(c);
    Problem problem = c.problem;
    problem.scale = 1.1f / std::sqrt(32.0f);
    const Expectation wrong = reference::expect(problem, c.args);
    const auto out = [&](const ExpectedRow& row, int64_t x) {
      return wrong.out[static_cast<size_t>(row.out_at + x)];
    };
    EXPECT_EQ(rows_beyond(expected, 32, out), 14) << static_cast<int>(dtype);
  }
}

TEST(Tolerance, ACoarserDtypeIsBeyond) {
  const auto coarser = [](DType dtype, double value) {
    if (dtype == DType::f32) return double{rounded(DType::f16, static_cast<float>(value))};
    if (dtype == DType::f16) return double{rounded(DType::bf16, static_cast<float>(value))};
    return double{f16_to_f32(f32_to_f16(static_cast<float>(value)) & 0xFF80)};  // 3 bits
  };
  for (const DType dtype : kDtypes) {
    const Case c(recipe(dtype, 60, 32));
    const Expectation expected = expected_of(c);
    const auto out = [&](const ExpectedRow& row, int64_t x) {
      return coarser(dtype, expected.out[static_cast<size_t>(row.out_at + x)]);
    };
    EXPECT_GE(rows_beyond(expected, 32, out), 7) << static_cast<int>(dtype);  // of 14
  }
}

TEST(Tolerance, ARowThatSeesNothingMustBeZero) {
  Recipe r = recipe(DType::f16, 3, 8);
  r.problem.causal = true;  // 7 queries and 3 keys: the first 4 see nothing
  const Case c(r);
  const Expectation expected = expected_of(c);
  int64_t empty = 0;
  for (const ExpectedRow& row : expected.rows) {
    empty += row.empty;
    EXPECT_EQ(row.empty, row.i < 4);
    EXPECT_EQ(expected.out_bound(row) == 0, row.empty);
  }
  EXPECT_EQ(empty, 8);
}

TEST(Tolerance, KeysThatDoNotCountDoNotWidenIt) {
  reference::RowSize size;
  size.add_key(2, 1, 1);
  const double error = reference::score_error(size);
  size.add_key(1e6, 40, 1e-9);  // negligible
  size.add_key(2, -3.4e38, 1);  // a mask of the lowest finite number
  EXPECT_EQ(reference::score_error(size), error);
  EXPECT_EQ(size.keys, 3);
  size.add_key(3, -5, 0.5);
  EXPECT_GT(reference::score_error(size), error);
}

// lse is then nearly the sink, and even the exact answer is rounded at the sink's size.
TEST(Tolerance, ALargeSinkWidensTheFloorOfLse) {
  reference::RowSize size;
  size.add_key(3, 2, 1e-30);
  size.sink = 200;
  const double half_ulp_of_lse = 0x1p-17;  // of a float between 128 and 256
  EXPECT_GE(reference::lse_floor(size), half_ulp_of_lse);
}

TEST(Tolerance, WhatIsNotFiniteIsLeftOutOfThePlainErrors) {
  reference::PlainErrors errors;
  errors.add(NAN, NAN, 0.5);
  errors.add(INFINITY, 1, 0.5);
  errors.add(1.25, 1, 0.5);
  EXPECT_EQ(errors.largest, 0.25);
  EXPECT_EQ(errors.sum, 0.25);
  EXPECT_EQ(errors.floor_sum, 1) << "of the values that the exact answer has";
  EXPECT_EQ(errors.values, 2);
}

}  // namespace
}  // namespace kernels::test
