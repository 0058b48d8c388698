// kernels/common/online_softmax.hpp: running maximum and sum of a softmax that sees its scores piece by piece
//
// A state stands for the scores seen so far: sum = sum of exp(s - max). Nothing seen is {-inf, 0}. Both pieces of a merge
// and every accumulated output must be scaled by the factor that belongs to them.
#pragma once

#include <cmath>

#include "kernels/common/problem.hpp"

namespace kernels {

struct SoftmaxState {
  float max = -INFINITY;
  float sum = 0;
};

// exp(from - to) of two maxima where `to` >= `from`. Two empty states give 1, not exp(-inf + inf). The argument is clamped
// at 0: a maximum that was rounded on another road must not blow up huge logits.
KERNELS_HD inline float rescale(float from, float to) {
  if (from == to) return 1.0f;
  const float difference = from - to;
  return expf(difference > 0 ? 0.0f : difference);
}

// Joins two disjoint pieces; a_factor and b_factor scale what was accumulated under each.
KERNELS_HD inline SoftmaxState merge(SoftmaxState a, SoftmaxState b, float* a_factor, float* b_factor) {
  const float max = a.max < b.max ? b.max : a.max;
  *a_factor = rescale(a.max, max);
  *b_factor = rescale(b.max, max);
  return {max, a.sum * *a_factor + b.sum * *b_factor};
}

// A sink is a key of value zero: the state starts with it as if it had been seen.
KERNELS_HD inline SoftmaxState start_with_sink(float sink) {
  return sink == -INFINITY ? SoftmaxState{} : SoftmaxState{sink, 1.0f};
}

// log of the denominator; -inf where nothing was visible.
KERNELS_HD inline float log_sum_exp(SoftmaxState state) {
  return state.sum == 0 ? -INFINITY : state.max + logf(state.sum);
}

}  // namespace kernels
