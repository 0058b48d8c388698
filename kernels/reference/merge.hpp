// kernels/reference/merge.hpp: what merging results over parts of the keys means, in float64
//
// For each row (one query of one head), with a row out_i and a number lse_i of each partial:
//     lse = log(sum over i of exp(lse_i))      out = sum over i of exp(lse_i - lse) out_i
// A partial whose lse_i is -inf saw nothing, and its out_i does not count, whatever it holds. If
// all did, out is zeros and lse -inf. NaN or +inf in an lse_i makes the whole row NaN.
//
// How far from that a right result in f32 may be, with e = 2^-24, w_i the weights, d_i how far
// lse_i lies below the largest, D = sum of w_i d_i, and n the number of partials:
//     the difference to the largest lse_i has the relative error e: a weight gets d_i e
//     exp, of at most one unit in the last place, adds                            2 e
//     the sum of n weights carries their mean error and that of n - 1 additions   (D + n + 1) e
//     the division and what is left of second order                               2 e
//     n products and sums add, relative to the sum of |w_i out_i|,                (n + 1) e
// So |error of out| <= e sum of w_i |out_i| (d_i + D + 2 n + 6), and out's own rounding. lse =
// largest + log(sum): the sum's error, that of log, and two roundings.
//
// Where the partials are themselves off, each value of out_i by at most B and each lse_i by at most
// L, an exact merge of them is off as well:
//     a weight is exp(lse_i) over a sum of such, so its factor is    exp(-2 L) to exp(2 L)
//     out: the values' error, and that of weights that add up to 1   B + (exp(2 L) - 1) max |out_i|
//     lse: the log of a sum whose factor is exp(-L) to exp(L)        L
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/common/problem.hpp"

namespace kernels::reference {

struct MergedRow {
  std::vector<double> out;
  std::vector<double> out_bound;  // the largest error of each value; 0: it must be exact
  double lse = 0;
  double lse_bound = 0;
};

// Merges one row of count partials, each `width` values long. dtype: of the result's out.
MergedRow merge_row(const float* const* outs, const float* lses, int64_t count, int64_t width,
                    DType dtype);

// The largest error of out where the partials are off. largest: of all |out_i|, which are off.
inline double merged_out_error(double out_error, double lse_error, double largest) {
  return out_error + std::expm1(2 * lse_error) * largest;
}

}  // namespace kernels::reference
