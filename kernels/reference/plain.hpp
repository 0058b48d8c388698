// kernels/reference/plain.hpp: the plain evaluation of a row in the problem's dtype
//
// It shows the errors that the dtype costs even without mistakes, and does nothing to reduce them:
// scores and sums in f32, every sum in the order of the keys, each weight rounded to the dtype
// before it meets v, and one rounding to out's dtype at the end. Stored keys and values are exact
// in f32, and a scale multiplies a row's score or its values:
//     s_j = the score as attention.hpp defines it        m = max(s_j, sink)
//     w_j = exp(s_j - m)                                 sum = exp(sink - m) + sum of w_j
//     out = rounded(sum of rounded(w_j) v_j / sum)       lse = m + log(sum)
#pragma once

#include <vector>

#include "kernels/common/sequence.hpp"
#include "kernels/reference/tolerance.hpp"

namespace kernels::reference {

struct PlainRow {
  std::vector<float> out;  // [head_dim_v], zeros (NaN with a NaN sink) if the row sees nothing
  float lse;
  RowSize size;  // what the row's floors are derived from
  bool empty() const { return size.keys == 0; }
};

// Evaluates query i of one head of sequence b.
// REQUIRES: as attention().
PlainRow plain_row(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                   int64_t i, int64_t head);

}  // namespace kernels::reference
