// tests/kernels/support/tolerance.hpp: the size of a row's numbers into how far a kernel may be off; the one place for it
//
// The rule, against float64:
//   largest error of the kernel <= 2   * largest error of a plain evaluation in the same dtype + floor of the row
//   mean error of the kernel    <= 1.5 * mean error of that plain evaluation + a quarter of the mean floor
// The plain evaluation carries how hard the problem is; the factors leave room for another order of summation and another
// exp. The floor is for problems where the plain evaluation happens to be right: one row, one key, few columns.
//
// The floor. u is the dtype's unit roundoff (2^-24, 2^-11, 2^-8), e = 2^-24 that of the float32 that scores and sums are
// kept in, V the largest |v| that the row sees, n the number of its keys.
//   out is rounded once to the dtype:                          u max |out|  (and half the least subnormal)
//   a score is a sum of head_dim rounded products. Rounding errors are independent, so they add as a random walk: with
//   partial sums of a standard deviation of at most scale |q||k| / sqrt(head_dim) * sqrt(terms), that is
//   e scale |q||k| / sqrt(2); scaling, softcap, mask and ALiBi each round a number of at most S = the largest |score|:
//                                                                         d = e (scale |q||k| + 4 S)
//   exp turns d into a relative error of a weight; numerator and denominator of out each carry it:   2 d V
//   the sums over n keys walk too:                                        e sqrt(n) V
//   exp, the rescaling of tiles, the division: a handful of roundings:    8 e V
// Scores beyond 1e30 are a finite but lowest mask value: those keys' weights are equal or nothing, whatever the score was
// rounded from, so they do not count towards S.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/common/problem.hpp"

namespace kernels::test {

struct RowSize {
  double norms = 0;  // scale |q||k|, the largest of the row
  double score = 0;  // the largest |score|
  double value = 0;  // the largest |v|
  double out = 0;    // the largest |out|
  double keys = 0;

  void add_score(double s) {
    if (std::abs(s) < 1e30) score = std::max(score, std::abs(s));
  }
};

inline double unit_roundoff(DType dtype) {
  return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
}

inline double score_floor(const RowSize& row) { return 0x1p-24 * (row.norms + 4 * row.score); }

inline double out_floor(DType dtype, const RowSize& row) {
  const double subnormal = dtype == DType::f16 ? 0x1p-25 : 0;
  return unit_roundoff(dtype) * row.out + subnormal +
         row.value * (2 * score_floor(row) + 0x1p-24 * (std::sqrt(row.keys) + 8));
}

// lse = max + log(sum): the score's error, the sum's relative error, and the rounding of lse itself (|lse| <= S + log n).
inline double lse_floor(const RowSize& row) {
  return score_floor(row) +
         0x1p-24 * (std::sqrt(row.keys) + 8 + row.score + std::log(1 + row.keys));
}

}  // namespace kernels::test
