// tests/kernels/cpu/merge_test.cpp: merged partial results, on every target, against float64
#include "kernels/cpu/merge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/kernels/support/partials.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

cpu::Merge merge_of(const Partials& p) {
  return {p.outs.data(), p.lses.data(), static_cast<int64_t>(p.outs.size()), p.out, p.lse};
}

void expect_right(const MergeShape& shape, DType dtype) {
  for (const cpu::Target* target : targets()) {
    for (const int32_t thread_count : {1, 3}) {
      SCOPED_TRACE(testing::Message()
                   << target_name(*target) << ", " << thread_count << " threads");
      Partials partials(shape, dtype);
      cpu::merge(merge_of(partials), *target, threads(thread_count));
      partials.check(partials.expected());
      EXPECT_TRUE(partials.gaps_untouched());
    }
  }
}

class CpuMerge : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, CpuMerge, testing::Values(DType::f32, DType::f16, DType::bf16));

TEST_P(CpuMerge, IsWithinTheDerivedBounds) {
  for (const int64_t dim : {1, 7, 64, 130}) {
    for (const int64_t count : {1, 2, 3, 70})
      expect_right({.dim = dim, .count = count}, GetParam());
  }
}

TEST_P(CpuMerge, TakesAnyStrides) {
  expect_right({.heads_outside = true, .gap = 5}, GetParam());
  expect_right({.batch = 1, .seq = 11, .packed = true}, GetParam());
  expect_right({.batch = 1, .seq = 11, .packed = true, .heads_outside = true, .gap = 1},
               GetParam());
}

TEST_P(CpuMerge, ManyTasksAreAsOne) {
  expect_right({.batch = 2, .seq = 200, .heads = 8, .dim = 96, .count = 4}, GetParam());
}

// A partial that saw nothing does not count, whatever its row holds; a row of such partials alone
// is zeros.
TEST_P(CpuMerge, WhatSawNothingDoesNotCount) {
  for (const cpu::Target* target : targets()) {
    Partials partials({.count = 66}, GetParam());
    for (size_t i = 0; i < 66; ++i) {
      for (const size_t row : {size_t{0}, size_t{5}}) {
        if (row == 5 && i == 65) continue;  // the one that counts
        partials.lse_of(i, row) = -kInfinity;
        partials.out_of(i, row)[3] = kNaN;
      }
    }
    partials.lse_of(65, 5) = -1e4F;
    const auto expected = partials.expected();
    cpu::merge(merge_of(partials), *target, {});
    partials.check(expected);
    EXPECT_EQ(expected[0].lse, -kInfinity);
    EXPECT_EQ(expected[0].out_bound[3], 0);
    EXPECT_EQ(expected[5].lse, -1e4);
  }
}

TEST_P(CpuMerge, NanAndInfinityReachTheirRow) {
  for (const cpu::Target* target : targets()) {
    Partials partials({}, GetParam());
    partials.lse_of(0, 1) = kNaN;  // first and last: neither order may lose it
    partials.lse_of(1, 1) = partials.lse_of(2, 1) = -kInfinity;
    partials.lse_of(2, 2) = kNaN;
    partials.lse_of(1, 3) = kInfinity;
    const auto expected = partials.expected();
    cpu::merge(merge_of(partials), *target, {});
    partials.check(expected);
    for (const size_t row : {1U, 2U, 3U}) EXPECT_TRUE(std::isnan(expected[row].lse));
  }
}

// Large |lse|: weights must not be computed from the rounded lse.
TEST_P(CpuMerge, LargeLseCostsNoAccuracy) {
  for (const cpu::Target* target : targets()) {
    Partials partials({}, GetParam());
    for (size_t row = 0; row < partials.rows(); ++row) {
      for (size_t i = 0; i < 3; ++i)
        partials.lse_of(i, row) = 30000 + 0.25F * static_cast<float>(i);
    }
    cpu::merge(merge_of(partials), *target, {});
    partials.check(partials.expected());
  }
}

TEST(CpuMergeInPlace, AndWithoutLse) {
  for (const cpu::Target* target : targets()) {
    Partials partials({.dim = 100}, DType::f32);
    const auto expected = partials.expected();
    partials.out = partials.outs[1];
    partials.lse = partials.lses[1];
    cpu::merge(merge_of(partials), *target, threads(2));
    partials.check(expected);

    Partials others({.dim = 100}, DType::f32);
    others.lse = {};
    cpu::merge(merge_of(others), *target, {});
    others.check(expected);
  }
}

}  // namespace
}  // namespace kernels::test
