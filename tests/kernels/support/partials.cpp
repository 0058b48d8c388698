// tests/kernels/support/partials.cpp: drawn partial results, and what their merge must be
#include "tests/kernels/support/partials.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"

namespace kernels::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr char kUntouched = 0x7f;
constexpr float kUntouchedLse = 77;

}  // namespace

Partials::Partials(const MergeShape& shape, DType dtype, uint32_t seed) : shape_(shape) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-2, 2), lse_value(-30, 30);
  for (int64_t i = 0; i < shape.count; ++i) {
    const int64_t gap = shape.gap + i * shape.gap_step;
    const bool heads_outside = shape.heads_outside != (shape.mixed && i % 2 == 1);
    out_memory_.push_back(std::vector<float>(row_elements(gap) * rows(), kNaN));
    lse_memory_.push_back(std::vector<float>(lse_elements(), kNaN));
    outs.push_back(rows_tensor(out_memory_.back().data(), DType::f32, heads_outside, gap));
    lses.push_back(lse_tensor(lse_memory_.back().data()));
    for (size_t row = 0; row < rows(); ++row) {
      float* const to = out_of(static_cast<size_t>(i), row);
      for (int64_t x = 0; x < shape.dim; ++x) to[x] = value(random);
      lse_of(static_cast<size_t>(i), row) = random() % 7 == 0 ? -kInfinity : lse_value(random);
    }
  }
  result_.resize(rows() * row_elements(shape.gap) * sizeof(float), kUntouched);
  lse_result_.resize(lse_elements(), kUntouchedLse);
  out = rows_tensor(result_.data(), dtype, shape.heads_outside, shape.gap);
  lse = lse_tensor(lse_result_.data());
}

float& Partials::lse_of(size_t i, size_t row) const {
  return static_cast<float*>(lses[i].data)[lse_at(lses[i], row)];
}

float* Partials::out_of(size_t i, size_t row) const {
  return static_cast<float*>(outs[i].data) + row_at(outs[i], row);
}

std::vector<reference::MergedRow> Partials::expected() const {
  std::vector<reference::MergedRow> all;
  for (size_t row = 0; row < rows(); ++row) {
    std::vector<const float*> row_outs;
    std::vector<float> row_lses;
    for (size_t i = 0; i < outs.size(); ++i) {
      row_outs.push_back(out_of(i, row));
      row_lses.push_back(lse_of(i, row));
    }
    all.push_back(reference::merge_row(row_outs.data(), row_lses.data(), shape_.count, shape_.dim,
                                       out.dtype));
  }
  return all;
}

void Partials::check(const std::vector<reference::MergedRow>& expected) const {
  for (size_t row = 0; row < rows(); ++row) {
    const reference::MergedRow& right = expected[row];
    for (int64_t x = 0; x < shape_.dim; ++x) {
      const double found = load_float(out.dtype, out.data, row_at(out, row) + x);
      const double exact = right.out[static_cast<size_t>(x)];
      if (std::isnan(exact)) {
        EXPECT_TRUE(std::isnan(found)) << row << ' ' << x;
      } else {
        EXPECT_LE(std::fabs(found - exact), right.out_bound[static_cast<size_t>(x)])
            << "row " << row << ", column " << x << ": " << found << ", exactly " << exact;
      }
    }
    if (lse.data == nullptr) continue;
    const double found = static_cast<float*>(lse.data)[lse_at(lse, row)];
    if (std::isnan(right.lse)) {
      EXPECT_TRUE(std::isnan(found)) << row;
    } else if (std::isinf(right.lse)) {
      EXPECT_EQ(found, right.lse) << row;
    } else {
      EXPECT_LE(std::fabs(found - right.lse), right.lse_bound) << row;
    }
  }
}

bool Partials::gaps_untouched() const {
  const int64_t bytes = element_bytes(out.dtype);
  std::vector<bool> is_row(result_.size()), is_lse(lse_result_.size());
  for (size_t row = 0; row < rows(); ++row) {
    for (int64_t n = 0; n < shape_.dim * bytes; ++n)
      is_row[static_cast<size_t>(row_at(out, row) * bytes + n)] = true;
    if (lse.data != nullptr) is_lse[static_cast<size_t>(lse_at(lse, row))] = true;
  }
  for (size_t n = 0; n < result_.size(); ++n) {
    if (!is_row[n] && result_[n] != kUntouched) return false;
  }
  for (size_t n = 0; n < lse_result_.size(); ++n) {
    if (!is_lse[n] && lse_result_[n] != kUntouchedLse) return false;
  }
  return true;
}

int64_t Partials::row_at(const Tensor& tensor, size_t row) const {
  const auto n = static_cast<int64_t>(row), query = n / shape_.heads;
  const int64_t* const stride = tensor.stride + tensor.ndim - 3;
  return query % shape_.seq * stride[0] + n % shape_.heads * stride[1] +
         (tensor.ndim == 4 ? query / shape_.seq * tensor.stride[0] : 0);
}

int64_t Partials::lse_at(const Tensor& tensor, size_t row) const {
  const auto n = static_cast<int64_t>(row), query = n / shape_.heads;
  const int64_t* const stride = tensor.stride + tensor.ndim - 2;
  return n % shape_.heads * stride[0] + query % shape_.seq * stride[1] +
         (tensor.ndim == 3 ? query / shape_.seq * tensor.stride[0] : 0);
}

Tensor Partials::rows_tensor(void* data, DType dtype, bool heads_outside, int64_t gap) const {
  const auto width = static_cast<int64_t>(row_elements(gap));
  const int64_t seq = heads_outside ? width : width * shape_.heads;
  const int64_t head = heads_outside ? width * shape_.seq : width;
  if (shape_.packed)
    return {data, dtype, 3, {shape_.seq, shape_.heads, shape_.dim}, {seq, head, 1}};
  return {data,
          dtype,
          4,
          {shape_.batch, shape_.seq, shape_.heads, shape_.dim},
          {width * shape_.heads * shape_.seq, seq, head, 1}};
}

Tensor Partials::lse_tensor(float* data) const {
  const int64_t row = shape_.lse_stride, head = row * shape_.seq, batch = head * shape_.heads;
  if (shape_.packed) return {data, DType::f32, 2, {shape_.heads, shape_.seq}, {head, row}};
  return {data, DType::f32, 3, {shape_.batch, shape_.heads, shape_.seq}, {batch, head, row}};
}

size_t Partials::row_elements(int64_t gap) const { return static_cast<size_t>(shape_.dim + gap); }
size_t Partials::lse_elements() const { return rows() * static_cast<size_t>(shape_.lse_stride); }

}  // namespace kernels::test
