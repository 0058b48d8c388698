// kernels/reference/tolerance.cpp: the formulas that tolerance.hpp derives
#include "kernels/reference/tolerance.hpp"

#include <algorithm>
#include <cmath>

namespace kernels::reference {
namespace {

// e in the derivation: the unit roundoff of what scores and sums are kept in.
constexpr double kEpsilon = unit_roundoff(DType::f32);

// Relative to the row's largest weight. A smaller weight is below the last bit of the row's sum in
// f32.
constexpr double kNegligibleWeight = 0x1p-23;

// Roundings of exp, of rescaling between blocks of keys, and of the division.
constexpr double kRoundings = 8;

}  // namespace

void RowSize::add_key(double key_norms, double key_score, double weight) {
  keys += 1;
  if (weight < kNegligibleWeight) return;
  norms = std::max(norms, key_norms);
  if (std::abs(key_score) < kLowestMask) score = std::max(score, std::abs(key_score));
}

double score_error(const RowSize& row) { return kEpsilon * (row.norms + 4 * row.score + row.sink); }

double weights_error(const RowSize& row) {
  return std::min(1.0, 2 * score_error(row) + kEpsilon * (std::sqrt(row.keys) + kRoundings));
}

double out_floor(DType dtype, const RowSize& row) {
  const double subnormal = dtype == DType::f16 ? 0x1p-25 : 0;
  return unit_roundoff(dtype) * row.out + subnormal + row.value * weights_error(row);
}

double lse_floor(const RowSize& row) {
  return score_error(row) + kEpsilon * (std::sqrt(row.keys) + kRoundings +
                                        std::max(row.score, row.sink) + std::log(1 + row.keys));
}

double difference_bound(DType dtype, DType out_dtype, const RowSize& row) {
  constexpr double kLeastNormal = 0x1p-126;
  return 6 * out_floor(out_dtype, row) + 4 * unit_roundoff(dtype) * row.value + 2 * kLeastNormal;
}

double lse_difference_bound(DType dtype, const RowSize& row) {
  return 6 * lse_floor(row) + 2 * rounded_sum_error(dtype);
}

double rounded_sum_error(DType dtype) { return dtype == DType::f32 ? 0 : unit_roundoff(dtype); }

}  // namespace kernels::reference
