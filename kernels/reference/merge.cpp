// kernels/reference/merge.cpp: what merging results over parts of the keys means, in float64
#include "kernels/reference/merge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/tolerance.hpp"

namespace kernels::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kRoundoff = 0x1p-24;   // e
constexpr double kLeastF16 = 0x1p-24;   // the least subnormal number of f16
constexpr double kLeastF32 = 0x1p-149;  // and of f32

// The error of rounding `value` to the dtype.
double rounding(DType dtype, double value) {
  const double relative = unit_roundoff(dtype) * std::fabs(value);
  return std::max(relative, dtype == DType::f16 ? kLeastF16 / 2 : kLeastF32);
}

}  // namespace

MergedRow merge_row(const float* const* outs, const float* lses, int64_t count, int64_t width,
                    DType dtype) {
  const auto columns = static_cast<size_t>(width);
  MergedRow row{std::vector<double>(columns), std::vector<double>(columns), -kInfinity, 0};
  double largest = -kInfinity;
  for (int64_t i = 0; i < count; ++i) {
    if (!(lses[i] < std::numeric_limits<float>::infinity())) {  // +inf or NaN
      std::fill(row.out.begin(), row.out.end(), kNaN);
      row.lse = kNaN;
      return row;
    }
    largest = std::max(largest, static_cast<double>(lses[i]));
  }
  if (largest == -kInfinity) return row;
  double sum = 0, mean_distance = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(lses[i] - largest);
  row.lse = largest + std::log(sum);
  const auto weight = [&](int64_t i) { return std::exp(lses[i] - largest) / sum; };
  const auto n = static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) {
    if (weight(i) > 0) mean_distance += weight(i) * (largest - lses[i]);
  }
  for (size_t x = 0; x < columns; ++x) {
    double& out = row.out[x];
    double& bound = row.out_bound[x];
    for (int64_t i = 0; i < count; ++i) {
      if (lses[i] == -std::numeric_limits<float>::infinity()) continue;
      const double part = weight(i) * outs[i][x];
      out += part;
      if (part == 0) continue;  // far below the largest: the distance times nothing
      bound += kRoundoff * std::fabs(part) * (largest - lses[i] + mean_distance + 2 * n + 6);
    }
    bound += rounding(dtype, out);
  }
  row.lse_bound =
      kRoundoff * (mean_distance + n + 3 + 2 * std::fabs(std::log(sum)) + 2 * std::fabs(row.lse));
  return row;
}

}  // namespace kernels::reference
