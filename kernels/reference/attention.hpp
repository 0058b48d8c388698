// kernels/reference/attention.hpp: the exact answer to an attention problem, the specification
#pragma once

#include "kernels/common/sequence.hpp"

namespace kernels::reference {

// Evaluates in float64, one row after another, and writes out and, unless it is null, lse. Both are
// dense:
//     out: [batch, seq_q, heads_q, head_dim_v], varlen [total_q, heads_q, head_dim_v]
//     lse: [batch, heads_q, seq_q], varlen [heads_q, total_q]
// Rows that belong to no sequence are left untouched; so are args.out and args.lse.
// REQUIRES: args agree with problem, and their index arrays are in range.
void attention(const Problem& problem, const Args& args, double* out, double* lse);

// Evaluates query i of one head of sequence b, and writes its head_dim_v values. RETURNS its lse.
// REQUIRES: as attention().
double attend(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
              int64_t i, int64_t head, double* out);

// Return where attention() writes a row: the index of its first value in out, and of its value in
// lse.
int64_t out_index(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                  int64_t i, int64_t head);
int64_t lse_index(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                  int64_t i, int64_t head);

// Returns the key opposite query i of sequence b, from which causal, windows and ALiBi count. There
// may be no such key.
int64_t diagonal(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                 int64_t i);

// Whether query i sees key j.
// REQUIRES: key j exists.
bool visible(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
             int64_t i, int64_t head, int64_t j);

}  // namespace kernels::reference
