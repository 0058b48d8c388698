// tests/kernels/hip/merge_test.cpp: merged partial results against float64
//
// The host build of these kernels is the same for every family; ../emulator runs the same tests on
// AMD's code objects.
#include "kernels/hip/merge.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/hip/launch/merge.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/support/partials.hpp"

namespace kernels::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

hip::Merge merge_of(const Partials& p) {
  return {p.outs.data(), p.lses.data(), static_cast<int64_t>(p.outs.size()), p.out, p.lse};
}

// Runs a merge as on a GPU of one multiprocessor. seed: of run_launch.
void run(const hip::Merge& merge, uint32_t seed = 0) {
  hip::Launch launch;
  std::string reason;
  ASSERT_EQ(hip::launches(merge, 1, &launch, &reason), 1) << reason;
  run_launch("sm_80", launch, seed);
}

void expect_right(const MergeShape& shape, DType dtype) {
  SCOPED_TRACE(testing::Message() << "dim " << shape.dim << ", count " << shape.count);
  Partials partials(shape, dtype);
  run(merge_of(partials), 3);
  partials.check(partials.expected());
  EXPECT_TRUE(partials.gaps_untouched());
}

class HipMerge : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, HipMerge, testing::Values(DType::f32, DType::f16, DType::bf16));

TEST_P(HipMerge, IsWithinTheDerivedBounds) {
  for (const int64_t dim : {1, 4, 7, 64, 130, 257}) {
    for (const int64_t count : {1, 2, 3, 70})
      expect_right({.batch = 1, .dim = dim, .count = count}, GetParam());
  }
}

TEST_P(HipMerge, AsManyPartialsAsOneLaunchTakes) {
  expect_right({.batch = 1, .seq = 2, .dim = 12, .count = hip::kMaxPartials}, GetParam());
}

// Rows that start at multiples of 16 bytes and rows that do not; the last columns are fewer than 4.
TEST_P(HipMerge, TakesAnyStrides) {
  for (const int64_t gap : {1, 4, 5}) {
    expect_right({.dim = 20, .heads_outside = true, .gap = gap}, GetParam());
    expect_right({.dim = 7, .gap = gap, .lse_stride = 3}, GetParam());
    expect_right({.batch = 1, .seq = 11, .dim = 12, .packed = true, .gap = gap}, GetParam());
  }
  expect_right({.batch = 1, .seq = 11, .packed = true, .heads_outside = true, .gap = 1},
               GetParam());
}

TEST_P(HipMerge, PartialsMayLieDifferently) {
  expect_right({.count = 5, .mixed = true}, GetParam());
  expect_right({.dim = 24, .count = hip::kMaxMergeLayouts, .gap_step = 4}, GetParam());
  expect_right({.dim = 24, .count = 6, .mixed = true, .gap_step = 1}, GetParam());
}

// More rows than the grid merges at a time.
TEST_P(HipMerge, WorkgroupsTakeSeveralRows) {
  expect_right({.batch = 3, .seq = 35, .heads = 7, .dim = 100, .count = 2}, GetParam());
}

TEST_P(HipMerge, OnePartialIsItsOwnMerge) {
  Partials partials({.dim = 36, .count = 1}, GetParam());
  run(merge_of(partials));
  std::vector<reference::MergedRow> exact = partials.expected();
  for (reference::MergedRow& row : exact) {
    if (GetParam() == DType::f32) std::fill(row.out_bound.begin(), row.out_bound.end(), 0);
    row.lse_bound = 0;
  }
  partials.check(exact);
}

// A partial that saw nothing does not count, whatever its row holds; a row of such partials alone
// is zeros.
TEST_P(HipMerge, WhatSawNothingDoesNotCount) {
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
  run(merge_of(partials));
  partials.check(expected);
  EXPECT_EQ(expected[0].lse, -kInfinity);
  EXPECT_EQ(expected[0].out_bound[3], 0);
  EXPECT_EQ(expected[5].lse, -1e4);
}

TEST_P(HipMerge, NanAndInfinityReachTheirRow) {
  Partials partials({}, GetParam());
  partials.lse_of(0, 1) = kNaN;  // first and last: neither order may lose it
  partials.lse_of(1, 1) = partials.lse_of(2, 1) = -kInfinity;
  partials.lse_of(2, 2) = kNaN;
  partials.lse_of(1, 3) = kInfinity;
  for (size_t i = 0; i < 3; ++i) partials.lse_of(i, 4) = kNaN;
  const auto expected = partials.expected();
  run(merge_of(partials));
  partials.check(expected);
  for (const size_t row : {1U, 2U, 3U, 4U}) EXPECT_TRUE(std::isnan(expected[row].lse));
}

// Large |lse|: weights must not be computed from the rounded lse. lses far apart: the smaller ones
// weigh next to nothing, but no power overflows.
TEST_P(HipMerge, LargeLseCostsNoAccuracy) {
  Partials partials({}, GetParam());
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (size_t row = 0; row < partials.rows(); ++row) {
    const auto part = [&](size_t i) -> float& { return partials.lse_of(i, row); };
    const float sign = row % 2 == 0 ? 1 : -1;
    for (size_t i = 0; i < 3; ++i) part(i) = sign * (30000 + 0.25F * static_cast<float>(i));
    if (row == 2) part(0) = -kLargest, part(1) = kLargest, part(2) = 0;
    if (row == 3) part(0) = -kLargest, part(1) = -kInfinity, part(2) = -kInfinity;
    if (row == 4) part(0) = 0, part(1) = -95, part(2) = -200;
  }
  run(merge_of(partials));
  partials.check(partials.expected());
}

// Their weighted sum is finite, and so is what it is computed from.
TEST_P(HipMerge, LargeValuesDoNotOverflow) {
  const float large = GetParam() == DType::f16 ? 65504 : 3e38F;
  Partials partials({.count = 9}, GetParam());
  for (size_t row = 0; row < partials.rows(); ++row) {
    for (size_t i = 0; i < 9; ++i) {
      partials.lse_of(i, row) = 2;
      std::fill_n(partials.out_of(i, row), 64, large);
    }
  }
  run(merge_of(partials));
  const auto expected = partials.expected();
  EXPECT_TRUE(std::isfinite(expected[0].out[0]));
  partials.check(expected);
}

TEST_P(HipMerge, EqualCallsGiveEqualBits) {
  std::string bits[2];
  for (const uint32_t seed : {0U, 9U}) {
    Partials partials({.dim = 72, .count = 8}, GetParam());
    run(merge_of(partials), seed);
    const auto bytes = 30 * 72 * element_bytes(GetParam());
    bits[seed / 9].assign(static_cast<const char*>(partials.out.data), static_cast<size_t>(bytes));
    bits[seed / 9].append(static_cast<const char*>(partials.lse.data), 30 * sizeof(float));
  }
  EXPECT_TRUE(bits[0] == bits[1]);
}

// out over one partial and lse over another: a row is read before anything of it is written,
// whatever the order of the threads.
TEST(HipMergeInPlace, AndWithoutLse) {
  for (const uint32_t seed : {0U, 1U, 2U}) {
    Partials partials({.dim = 300, .count = 4}, DType::f32);
    const auto expected = partials.expected();
    partials.out = partials.outs[1];
    partials.lse = partials.lses[2];
    run(merge_of(partials), seed);
    partials.check(expected);
  }
  Partials partials({.dim = 100}, DType::f32);
  partials.lse = {};
  run(merge_of(partials));
  partials.check(partials.expected());
  EXPECT_TRUE(partials.gaps_untouched());
}

// Offsets beyond 32 bits, in out, outs and lses. Only the rows' own pages are ever in memory.
TEST(HipMergeOffsets, HaveSixtyFourBits) {
  constexpr int64_t kStride = (int64_t{1} << 32) + 8;  // elements
  const auto far_apart = [&](DType dtype, int64_t columns) {
    const auto bytes = static_cast<size_t>((kStride + columns) * element_bytes(dtype));
    void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_NE(data, MAP_FAILED);
    return std::pair{data, bytes};
  };
  const auto [outs, outs_bytes] = far_apart(DType::f32, 4);
  const auto [out, out_bytes] = far_apart(DType::f16, 4);
  const auto [lses, lses_bytes] = far_apart(DType::f32, 1);
  for (const int64_t row : {0, 1}) {
    for (int64_t x = 0; x < 4; ++x)
      static_cast<float*>(outs)[row * kStride + x] = static_cast<float>(10 * row + x);
    static_cast<float*>(lses)[row * kStride] = static_cast<float>(row);
  }
  const Tensor partial{outs, DType::f32, 4, {2, 1, 1, 4}, {kStride, 4, 4, 1}};
  const Tensor partial_lse{lses, DType::f32, 3, {2, 1, 1}, {kStride, 1, 1}};
  const Tensor result{out, DType::f16, 4, {2, 1, 1, 4}, {kStride, 4, 4, 1}};
  run({&partial, &partial_lse, 1, result, {}});
  for (const int64_t row : {0, 1}) {
    for (int64_t x = 0; x < 4; ++x)
      EXPECT_EQ(load_float(DType::f16, out, row * kStride + x), static_cast<float>(10 * row + x));
  }
  munmap(outs, outs_bytes), munmap(out, out_bytes), munmap(lses, lses_bytes);
}

// Numbers of rows in 32 bits and above.
TEST(HipMergeRows, AreCountedThroughBatchSeqAndHeads) {
  hip::MergeParams p{};
  p.seq = 1000003, p.heads = 7;
  for (const int64_t batch : {3, 1000}) {
    p.rows = batch * p.seq * p.heads;
    const hip::MergePlace last = hip::merge_place(p, p.rows - 1);
    EXPECT_EQ(last.batch, batch - 1);
    EXPECT_EQ(last.row, p.seq - 1);
    EXPECT_EQ(last.head, p.heads - 1);
    const hip::MergePlace other = hip::merge_place(p, p.rows - 8);
    EXPECT_EQ(other.row, p.seq - 2);
    EXPECT_EQ(other.head, p.heads - 1);
  }
}

TEST(HipMergeLaunch, NothingToDo) {
  for (const MergeShape& shape : {MergeShape{.batch = 0}, MergeShape{.seq = 0},
                                  MergeShape{.heads = 0}, MergeShape{.dim = 0}}) {
    const Partials partials(shape, DType::f32);
    hip::Launch launch;
    std::string reason;
    EXPECT_EQ(hip::launches(merge_of(partials), 1, &launch, &reason), 0) << reason;
  }
}

TEST(HipMergeLaunch, SaysWhatItDoesNotTake) {
  hip::Launch launch;
  std::string reason;
  const Partials many({.batch = 1, .dim = 4, .count = hip::kMaxPartials + 1}, DType::f32);
  EXPECT_EQ(hip::launches(merge_of(many), 1, &launch, &reason), -1);
  EXPECT_EQ(reason, "count: found 161, expected at most 160");
  const Partials mixed({.batch = 1, .dim = 4, .count = hip::kMaxMergeLayouts + 1, .gap_step = 1},
                       DType::f32);
  EXPECT_EQ(hip::launches(merge_of(mixed), 1, &launch, &reason), -1);
  EXPECT_EQ(reason, "outs and lses: found more than 16 different layouts, expected at most that");
}

// Strides of dimensions of one element say nothing about a layout.
TEST(HipMergeLaunch, StridesThatAreNeverUsedDoNotCount) {
  Partials partials({.batch = 1, .seq = 1, .heads = 1, .dim = 8, .count = 20}, DType::f32);
  for (size_t i = 0; i < 20; ++i) {
    partials.outs[i].stride[1] = static_cast<int64_t>(i);
    partials.lses[i].stride[0] = static_cast<int64_t>(i);
  }
  run(merge_of(partials));
  partials.check(partials.expected());
}

TEST(HipMergeLaunch, RowsAreReadWideOnlyWhereTheyAreAligned) {
  const auto is_wide = [](const Partials& partials) {
    hip::Launch launch;
    std::string reason;
    EXPECT_EQ(hip::launches(merge_of(partials), 1, &launch, &reason), 1) << reason;
    hip::MergeParams params;
    std::memcpy(&params, launch.params, sizeof params);
    return params.wide != 0;
  };
  EXPECT_TRUE(is_wide(Partials({.dim = 7, .gap = 1}, DType::f16)));
  EXPECT_FALSE(is_wide(Partials({.dim = 8, .gap = 1}, DType::f16)));
  const auto shifted = [](Tensor& tensor, int64_t elements) {
    tensor.data = static_cast<char*>(tensor.data) + elements * element_bytes(tensor.dtype);
  };
  Partials partials({.dim = 8}, DType::bf16);
  shifted(partials.outs[2], 2);
  EXPECT_FALSE(is_wide(partials));
  Partials result({.dim = 8}, DType::bf16);
  shifted(result.out, 2);
  EXPECT_FALSE(is_wide(result));
  shifted(result.out, 2);
  EXPECT_TRUE(is_wide(result)) << "at 8 bytes";
}

// ---- The core, as other kernels call it ----

// Rows of one number.
struct Numbers {
  const float* lses;
  const float* outs;
  float lse(int i) const { return lses[i]; }
  const float* row(int i) const { return outs + i; }
};

// A sink is one more partial, whose row is zeros.
TEST(HipMergeColumns, ASinkIsOneMorePartial) {
  const float outs[] = {2, -3, 0};
  for (const float sink : {-kInfinity, -40.0F, 0.5F, 60.0F}) {
    for (const bool nothing : {false, true}) {
      const float lses[] = {nothing ? -kInfinity : 1.25F, -kInfinity, sink};
      Numbers numbers{lses, outs};
      const hip::MergedColumns found = hip::merge_columns(numbers, 2, 0, 1, false, sink);
      const float* const rows[] = {&outs[0], &outs[1], &outs[2]};
      const auto right = reference::merge_row(rows, lses, 3, 1, DType::f32);
      EXPECT_LE(std::fabs(found.out[0] - right.out[0]), right.out_bound[0]) << sink;
      if (std::isinf(right.lse)) {
        EXPECT_EQ(found.lse, -kInfinity);
      } else {
        EXPECT_LE(std::fabs(found.lse - right.lse), right.lse_bound) << sink;
      }
      EXPECT_EQ(found.out[1], 0);
    }
  }
  const float lses[] = {1, 2};
  Numbers numbers{lses, outs};
  const hip::MergedColumns nan = hip::merge_columns(numbers, 2, 0, 1, false, kNaN);
  EXPECT_TRUE(std::isnan(nan.out[0]) && std::isnan(nan.lse));
}

// The small value comes after the large ones, which cancel; before them it would be lost.
TEST(HipMergeColumns, PartialsAreSummedInTheOrderOfTheirNumbers) {
  const float outs[] = {1e8F, -1e8F, 1, 0}, lses[] = {2, 2, 2, 2};
  Numbers numbers{lses, outs};
  EXPECT_EQ(hip::merge_columns(numbers, 4, 0, 1, false).out[0], 0.25F);
}

TEST(ExpBelowZero, IsOffByOneUnitInTheLastPlaceAtMost) {
  double worst = 0;
  for (uint32_t bits = 0x80000000; bits < 0xC2D20000; bits += 997) {  // -0 to -105
    float x;
    std::memcpy(&x, &bits, sizeof x);
    const double exact = std::exp(static_cast<double>(x));
    const double unit = std::max(std::ldexp(1, std::ilogb(exact) - 23), 0x1p-149);
    worst = std::max(worst, std::fabs(hip::exp_below_zero(x) - exact) / unit);
  }
  EXPECT_LE(worst, 1);
  EXPECT_EQ(hip::exp_below_zero(0), 1);
  EXPECT_EQ(hip::exp_below_zero(-kInfinity), 0);
  EXPECT_EQ(hip::exp_below_zero(-std::numeric_limits<float>::max()), 0);
  EXPECT_TRUE(std::isnan(hip::exp_below_zero(kNaN)));
  EXPECT_TRUE(std::isnan(hip::exp_below_zero(-kNaN)));
}

}  // namespace
}  // namespace kernels::test
