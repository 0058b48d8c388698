// runtime/cli/bench/work.hpp: the least arithmetic and memory traffic that a problem costs
#pragma once

#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// The work that no backend can avoid.
//
//   flop   2 for each multiply-add of q k and of weights v, for every score that causal and windows
//          leave visible. A mask tensor saves nothing, because a backend has to read it first.
//   bytes  each tensor moved once. Keys and values that no query can see are not counted, nor are
//          tensors as small as scales of heads.
struct Work {
  double flop = 0, bytes = 0;
};

Work work_of(const core::Problem& problem);

}  // namespace attnrt::cli::bench
