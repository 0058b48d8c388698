// kernels/cpu/merge.hpp: merges results over parts of the keys into one result
//
// A row is one query of one head. Of each partial i it has a row out_i and a number lse_i:
//     largest = max lse_i     sum = sum of exp(lse_i - largest)     lse = largest + log(sum)
//     out     = sum of exp(lse_i - largest) / sum * out_i
// Weights come from differences to the largest lse_i, not from the rounded lse, so that their error
// does not grow with |lse|. kernels/reference/merge.hpp says what holds for -inf, +inf and NaN, and
// how far from the exact answer a result may be.
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"
#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

// Shapes and strides are those of attnrt.merge/1: outs and out [batch, seq, heads, dim] or packed
// [rows, heads, dim], lses and lse [batch, heads, seq] or [heads, rows].
struct Merge {
  const Tensor* outs;  // count tensors, f32
  const Tensor* lses;  // count tensors, f32
  int64_t count;       // at least 1
  Tensor out;          // f32, f16 or bf16; may be one of outs
  Tensor lse;          // absent: not wanted; may be one of lses
};

// REQUIRES: the tensors fit together, and dim is dense.
void merge(const Merge& merge, const Target& target, const Workers& workers);

}  // namespace kernels::cpu
