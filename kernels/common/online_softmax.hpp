// kernels/common/online_softmax.hpp: the state of a softmax that sees its scores piece by piece
//
// A state stands for the scores seen so far: sum = sum of exp(s - max). It begins as {-inf, 0}.
#pragma once

#include <cmath>

#include "kernels/common/problem.hpp"

namespace kernels {

struct SoftmaxState {
  float max = -INFINITY;
  float sum = 0;
};

// A sink is a key of value zero: the state starts with it as if it had been seen. The sum is NaN if
// the sink is, so that it reaches out even if no key follows.
KERNELS_HD inline SoftmaxState start_with_sink(float sink) {
  if (sink == -INFINITY) return SoftmaxState{};
  return SoftmaxState{sink, sink == sink ? 1.0f : sink};
}

// The log of the denominator; -inf if nothing was visible.
KERNELS_HD inline float log_sum_exp(SoftmaxState state) {
  return state.sum == 0 ? -INFINITY : state.max + logf(state.sum);
}

}  // namespace kernels
