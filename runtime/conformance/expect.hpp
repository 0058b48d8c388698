// runtime/conformance/expect.hpp: a case's tensors into the exact answer and how far from it a plugin may be
//
// The one place of tolerances. An output is right if
//     |out - exact| <= 2 * (largest error of the plain evaluation) + floor(row)
// The plain evaluation is what the dtype costs anybody: scores and sums in f32, weights rounded to the dtype before they
// meet v, one rounding at the end. The floor is what f32 arithmetic in any order may add to that row:
//     magnitude = largest of scale * sum |q| |k| + |mask| + alibi over the keys that count
//     score error d = (2 + sqrt(head_dim)) * eps_f32 * magnitude
//     floor = max |v| * (2 d + (4 + sqrt(keys)) * eps_f32) + eps_dtype * max |exact|
// Over all cases of a dtype, the mean error is at most 1.5 times that of the plain evaluation, plus a quarter of the
// floors' mean. lse is right within d + (4 + sqrt(keys)) eps_f32 + 4 eps_f32 |lse|, plus eps_dtype / 2 where the dtype is
// not f32: a sum of rounded weights is legitimate.
#pragma once

#include <vector>

#include "conformance/tensors.hpp"

namespace attnrt::cli::verify {

// One row (sequence b, query i, head h): where it lies in the dense exact answer, and what is allowed.
struct Row {
  int64_t b, i, h;
  int64_t at;      // of its first value in `exact`
  int64_t lse_at;  // in `exact_lse`
  bool empty;      // sees nothing
  double floor, lse_tolerance;
};

struct Expectation {
  std::vector<double> exact, exact_lse;  // dense, as kernels::reference gives them
  std::vector<Row> rows;
  double plain_largest = 0, plain_sum = 0,
         floor_sum = 0;  // of the plain evaluation's errors; sums over values
  double magnitude = 0;  // largest |exact|: what the sums are relative to
  int64_t values = 0;
  double tolerance(const Row& row) const { return 2 * plain_largest + row.floor; }
};

Expectation expect(const Case& drawn, Tensors& tensors);

// One unit in the last place at 1.
double epsilon(attnrt_dtype dtype);

}  // namespace attnrt::cli::verify
