// kernels/hip/launch/merge.hpp: the launch of a merge of results over parts of the keys
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/merge_params.hpp"

namespace kernels::hip {

// Shapes and strides are those of attnrt.merge/1: outs and out [batch, seq, heads, dim] or packed
// [rows, heads, dim], lses and lse [batch, heads, seq] or [heads, rows].
struct Merge {
  const Tensor* outs;  // count tensors, f32
  const Tensor* lses;  // count tensors, f32
  int64_t count;       // at least 1
  Tensor out;          // f32, f16 or bf16; may be one of outs
  Tensor lse;          // absent: not wanted; may be one of lses
};

// Writes the launch of a merge. multiprocessors: the GPU's, for the size of the grid.
// RETURNS 1; 0 if there is nothing to do; -1 if there are more partials or layouts than one launch
// takes, and reason says so. REQUIRES: the tensors fit together, and dim is dense.
int32_t launches(const Merge& merge, int32_t multiprocessors, Launch* out, std::string* reason);

}  // namespace kernels::hip
