// tests/kernels/cpu/merge_test.cpp: merged partial results, on every target, against float64
#include "kernels/cpu/merge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/common/half.hpp"
#include "kernels/reference/merge.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  int64_t batch = 2, seq = 3, heads = 5, dim = 64;
  int64_t count = 3;
  bool packed = false;         // batch is 1 then
  bool heads_outside = false;  // in memory: [batch, heads, seq, dim]
  int64_t gap = 0;             // elements between rows
  int64_t rows() const { return batch * seq * heads; }
};

// The partials of one merge, and room for its result.
class Partials {
 public:
  Partials(const Shape& shape, DType dtype, uint32_t seed = 1) : shape_(shape), random_(seed) {
    std::uniform_real_distribution<float> value(-2, 2), lse(-30, 30);
    for (int64_t i = 0; i < shape.count; ++i) {
      outs_.push_back(std::vector<float>(row_floats() * rows(), kNaN));
      lses_.push_back(std::vector<float>(rows()));
      for (size_t row = 0; row < rows(); ++row) {
        for (int64_t x = 0; x < shape.dim; ++x) outs_.back()[row_at(row) + x] = value(random_);
        lses_.back()[lse_at(row)] = random_() % 7 == 0 ? -kInfinity : lse(random_);
      }
    }
    out_.resize(rows() * row_floats() * sizeof(float), char(0x7f));
    lse_.resize(rows(), 77);
    for (auto& each : outs_) out_tensors_.push_back(rows_tensor(each.data(), DType::f32));
    for (auto& each : lses_) lse_tensors_.push_back(lse_tensor(each.data()));
    merge = {out_tensors_.data(), lse_tensors_.data(), shape.count, rows_tensor(out_.data(), dtype),
             lse_tensor(lse_.data())};
  }

  size_t rows() const { return static_cast<size_t>(shape_.rows()); }
  float& lse_of(int64_t i, size_t row) { return lses_[static_cast<size_t>(i)][lse_at(row)]; }
  float* out_of(int64_t i, size_t row) { return &outs_[static_cast<size_t>(i)][row_at(row)]; }

  // What the merge must give, from the partials as they are now.
  std::vector<reference::MergedRow> expected() {
    std::vector<reference::MergedRow> all;
    for (size_t row = 0; row < rows(); ++row) {
      std::vector<const float*> outs;
      std::vector<float> lses;
      for (int64_t i = 0; i < shape_.count; ++i) {
        outs.push_back(out_of(i, row));
        lses.push_back(lse_of(i, row));
      }
      all.push_back(reference::merge_row(outs.data(), lses.data(), shape_.count, shape_.dim,
                                         merge.out.dtype));
    }
    return all;
  }

  // Compares out and lse with what was expected, and expects that nothing lies between the rows.
  void check(const std::vector<reference::MergedRow>& expected) const {
    for (size_t row = 0; row < rows(); ++row) {
      const reference::MergedRow& right = expected[row];
      for (int64_t x = 0; x < shape_.dim; ++x) {
        const double found = static_cast<double>(
            load_float(merge.out.dtype, merge.out.data, static_cast<int64_t>(row_at(row)) + x));
        const double exact = right.out[static_cast<size_t>(x)];
        if (std::isnan(exact)) {
          EXPECT_TRUE(std::isnan(found)) << row << ' ' << x;
        } else {
          EXPECT_LE(std::fabs(found - exact), right.out_bound[static_cast<size_t>(x)])
              << "row " << row << ", column " << x << ": " << found << ", exactly " << exact;
        }
      }
      if (merge.lse.data == nullptr) continue;
      const double lse = static_cast<double>(static_cast<float*>(merge.lse.data)[lse_at(row)]);
      if (std::isnan(right.lse)) {
        EXPECT_TRUE(std::isnan(lse)) << row;
      } else if (std::isinf(right.lse)) {
        EXPECT_EQ(lse, right.lse) << row;
      } else {
        EXPECT_LE(std::fabs(lse - right.lse), right.lse_bound) << row;
      }
    }
  }

  // Whether each byte of the result's memory that belongs to no row is as it was.
  bool gaps_untouched() const {
    const int64_t bytes = element_bytes(merge.out.dtype);
    std::vector<bool> is_row(out_.size());
    for (size_t row = 0; row < rows(); ++row) {
      for (int64_t n = 0; n < shape_.dim * bytes; ++n)
        is_row[static_cast<size_t>(static_cast<int64_t>(row_at(row)) * bytes + n)] = true;
    }
    for (size_t n = 0; n < out_.size(); ++n) {
      if (!is_row[n] && out_[n] != char(0x7f)) return false;
    }
    return true;
  }

  cpu::Merge merge{};

 private:
  size_t row_floats() const { return static_cast<size_t>(shape_.dim + shape_.gap); }
  // Offsets of a row, which is counted through batch, seq and heads.
  size_t row_at(size_t row) const {
    const auto heads = static_cast<size_t>(shape_.heads), seq = static_cast<size_t>(shape_.seq);
    const size_t h = row % heads, s = row / heads % seq, b = row / heads / seq;
    return (shape_.heads_outside ? (b * heads + h) * seq + s : row) * row_floats();
  }
  size_t lse_at(size_t row) const {
    const auto heads = static_cast<size_t>(shape_.heads), seq = static_cast<size_t>(shape_.seq);
    return (row / heads / seq * heads + row % heads) * seq + row / heads % seq;
  }
  Tensor rows_tensor(void* data, DType dtype) const {
    const auto width = static_cast<int64_t>(row_floats());
    const int64_t seq = shape_.heads_outside ? width : width * shape_.heads;
    const int64_t head = shape_.heads_outside ? width * shape_.seq : width;
    if (shape_.packed)
      return {data, dtype, 3, {shape_.seq, shape_.heads, shape_.dim}, {seq, head, 1}};
    return {data,
            dtype,
            4,
            {shape_.batch, shape_.seq, shape_.heads, shape_.dim},
            {width * shape_.heads * shape_.seq, seq, head, 1}};
  }
  Tensor lse_tensor(float* data) const {
    if (shape_.packed) return {data, DType::f32, 2, {shape_.heads, shape_.seq}, {shape_.seq, 1}};
    return {data,
            DType::f32,
            3,
            {shape_.batch, shape_.heads, shape_.seq},
            {shape_.heads * shape_.seq, shape_.seq, 1}};
  }

  Shape shape_;
  std::mt19937 random_;
  std::vector<std::vector<float>> outs_, lses_;
  std::vector<Tensor> out_tensors_, lse_tensors_;
  std::vector<char> out_;
  std::vector<float> lse_;
};

void expect_right(const Shape& shape, DType dtype) {
  for (const cpu::Target* target : targets()) {
    for (const int32_t thread_count : {1, 3}) {
      SCOPED_TRACE(testing::Message()
                   << target_name(*target) << ", " << thread_count << " threads");
      Partials partials(shape, dtype);
      cpu::merge(partials.merge, *target, threads(thread_count));
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
    for (int64_t i = 0; i < 66; ++i) {
      for (const size_t row : {size_t{0}, size_t{5}}) {
        if (row == 5 && i == 65) continue;  // the one that counts
        partials.lse_of(i, row) = -kInfinity;
        partials.out_of(i, row)[3] = kNaN;
      }
    }
    partials.lse_of(65, 5) = -1e4F;
    const auto expected = partials.expected();
    cpu::merge(partials.merge, *target, {});
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
    cpu::merge(partials.merge, *target, {});
    partials.check(expected);
    for (const size_t row : {1U, 2U, 3U}) EXPECT_TRUE(std::isnan(expected[row].lse));
  }
}

// Large |lse|: weights must not be computed from the rounded lse.
TEST_P(CpuMerge, LargeLseCostsNoAccuracy) {
  for (const cpu::Target* target : targets()) {
    Partials partials({}, GetParam());
    for (size_t row = 0; row < partials.rows(); ++row) {
      for (int64_t i = 0; i < 3; ++i)
        partials.lse_of(i, row) = 30000 + 0.25F * static_cast<float>(i);
    }
    cpu::merge(partials.merge, *target, {});
    partials.check(partials.expected());
  }
}

TEST(CpuMergeInPlace, AndWithoutLse) {
  for (const cpu::Target* target : targets()) {
    Partials partials({.dim = 100}, DType::f32);
    const auto expected = partials.expected();
    partials.merge.out = partials.merge.outs[1];
    partials.merge.lse = partials.merge.lses[1];
    cpu::merge(partials.merge, *target, threads(2));
    partials.check(expected);

    Partials others({.dim = 100}, DType::f32);
    others.merge.lse = {};
    cpu::merge(others.merge, *target, {});
    others.check(expected);
  }
}

}  // namespace
}  // namespace kernels::test
