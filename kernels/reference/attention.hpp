// kernels/reference/attention.hpp: an attention problem into its exact answer, the specification of every kernel
#pragma once

#include "kernels/common/problem.hpp"

namespace kernels::reference {

// Evaluates in float64, one row after another.
// REQUIRES: args agree with problem and their index arrays are in range; args.out and
//           args.lse are not touched.
// out: [batch, seq_q, heads_q, head_dim_v], varlen [total_q, heads_q, head_dim_v]; lse: [batch, heads_q, seq_q], varlen
// [heads_q, total_q], or null. Both dense; rows that belong to no sequence are left untouched.
void attention(const Problem& problem, const Args& args, double* out, double* lse);

}  // namespace kernels::reference
