// runtime/cli/bench/work.hpp: the least arithmetic and memory traffic that a problem costs
#pragma once

#include "cli/bench/lengths.hpp"

namespace attnrt::cli::bench {

// The work that no backend can avoid.
//
//   flop      2 for each multiply-add of q k and of weights v, for every score that lengths, causal
//             and windows leave visible. A mask tensor saves nothing, because a backend has to read
//             it first.
//   bytes     each tensor moved once. Keys and values that no query sees are not counted, nor are
//             tensors as small as scales of heads.
//   kv_bytes  the part of bytes that k, v and their scales of tokens are.
struct Work {
  double flop = 0, bytes = 0, kv_bytes = 0;
};

Work work_of(const GridProblem& grid_problem);

}  // namespace attnrt::cli::bench
