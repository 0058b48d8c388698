// kernels/reference/tolerance.hpp: how far from the exact answer a right result may be
//
// This is the only derivation of tolerances in the tree. Four checks use it, each with the bound
// that it can evaluate:
//   the kernels' tests, tests/kernels/support/accuracy.cpp: each value of out and of lse, and the
//       mean of each
//   the conformance rules, runtime/conformance/judge.cpp, agreement_rules.cpp: each value of out,
//       its mean over all cases of a dtype, and each value of lse, which may in addition be the log
//       of a sum of rounded weights
//   `attnrt bench`, runtime/cli/bench/check.cpp: whole rows of out and each value of lse, from the
//       largest norms of q and k, because the rows themselves are not evaluated plainly
//   difference.hpp: each value of out and lse of two results, with no evaluation to compare with
//
// The rule, where the exact answer is attention.hpp's and the plain evaluation is plain.hpp's:
//     largest error <= 2   * largest error of the plain evaluation + floor of the row
//     mean error    <= 1.5 * mean error of the plain evaluation    + 1/4 of the mean floor
// The plain evaluation's largest error is that of the whole run. For lse, which differs in size
// from row to row, no more of it counts than the row's floor. The plain evaluation tells how hard
// the problem is in its dtype. The factors leave room for another order of summation and another
// exp. The floor is for problems where the plain evaluation is right by chance: one row, one key,
// few columns.
//
// The floor of a row. Let u be the dtype's unit roundoff, e = 2^-24 that of the f32 in which scores
// and sums are kept, n the number of keys that the row sees, and V the largest |v| of those keys.
//   out is rounded once to its own dtype, whose unit roundoff is this u, which costs u max|out|;
//       where f16 is subnormal, half of its least subnormal number.
//   A score is a sum of head_dim rounded products. Rounding errors are independent, so they add up
//       as a random walk does: e scale |q||k| / sqrt(2). The scale, k_scale, softcap, mask and
//       ALiBi each round a number of at most S, the largest |score|; five independent roundings add
//       up to e sqrt(5) S, which is below e 4 S. |k| and S are those of scaled keys: a stored
//       number and its product with a number of q's dtype are as exact as without a scale. The
//       difference from the row's maximum, which may be the sink, is rounded at the size of both.
//       Together:
//                                                         d = e (scale |q||k| + 4 S + |sink|)
//   A weight w is the exp of a score and so has the relative error d. The numerator and the
//       denominator of out each carry it:                            2 d
//   Sums over n keys are random walks, too:                          e sqrt(n)
//   exp, the rescaling between blocks of keys, the division and v_scale, which multiplies a value,
//       a weight or out once, are a handful of roundings:              8 e
//       V is the largest of the scaled values.
//   The last three add up to the relative error of a row of weights, which is 1 at most. It moves
//       out by up to V times itself.
// Two results. Without a plain evaluation, its largest error is replaced by a bound. The plain
// evaluation rounds each weight to the dtype, which moves out by up to u V, and its other errors
// are at most the floor. So a right result is off by at most
//     2 (floor + u V) + floor = 3 floor + 2 u V
// and two of them differ by at most                                 6 floor + 4 u V
// and by twice the least normal number of f32, if numbers below it are taken for 0.
// Their lse differ by at most 6 lse floors plus twice the error of a sum of rounded weights.
//
// Only keys that count enter S and scale |q||k|: those whose weight is not negligible beside the
// row's largest weight. Scores beyond 1e30 do not enter S. They come from a mask of the lowest
// finite number, which leaves the weights equal or zero, whatever the score was rounded from.
#pragma once

#include "kernels/common/problem.hpp"

namespace kernels::reference {

// A key whose score is so far below the row's largest does not count: exp(-16) is below the last
// bit of the row's sum in f32.
inline constexpr double kNegligibleScore = -16;

// A larger |score| comes from a mask of the lowest finite number.
inline constexpr double kLowestMask = 1e30;

// The sizes of one row's numbers that the floor is derived from.
struct RowSize {
  double norms = 0;  // the largest scale |q||k| of the keys that count
  double score = 0;  // the largest |score| of the keys that count
  double value = 0;  // the largest |v|
  double out = 0;    // the largest |out|
  double keys = 0;   // how many keys the row sees
  double sink = 0;   // |sink|; 0 if there is none or it is not finite

  // Enters one key. weight is relative to the row's largest weight.
  void add_key(double key_norms, double key_score, double weight);
};

// The largest relative error of rounding to the dtype: 2^-24, 2^-11, 2^-8.
constexpr double unit_roundoff(DType dtype) {
  return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
}

// d: the absolute error of a score.
double score_error(const RowSize& row);

// The relative error of a row of weights after their sum has been divided by.
double weights_error(const RowSize& row);

// The floor of each value of out, and of lse = max + log(sum): the score's error, the sum's
// relative error, and the rounding of lse itself, where |lse| <= max(S, |sink|) + log(1 + n).
double out_floor(DType dtype, const RowSize& row);
double lse_floor(const RowSize& row);

// What lse may be off by in addition where the denominator is the sum of weights that were rounded
// to the dtype.
double rounded_sum_error(DType dtype);

// The largest difference of two right results: of a value of out, which has out_dtype, and of lse.
double difference_bound(DType dtype, DType out_dtype, const RowSize& row);
double lse_difference_bound(DType dtype, const RowSize& row);

// The two bounds of the rule above. mean_bound takes two means or two sums over the same values.
constexpr double largest_bound(double plain_largest, double floor) {
  return 2 * plain_largest + floor;
}
constexpr double mean_bound(double plain_mean, double floor_mean) {
  return 1.5 * plain_mean + 0.25 * floor_mean;
}

}  // namespace kernels::reference
