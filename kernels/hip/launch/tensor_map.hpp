// kernels/hip/launch/tensor_map.hpp: describes q, k or v to the tensor copies of NVIDIA's sm_90
//
// Such a copy reads a box of a tensor through a tensor map, which the driver encodes. A launch
// carries requests for maps, so that what makes launches needs no driver.
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels::hip {

inline constexpr uint32_t kTensorMapBytes = 128, kTensorMapAlignment = 64;

// What a tensor map is encoded from. Elements have 16 bits; in workgroup memory the box's rows, of
// 128 or 64 bytes, are swizzled; elements past a size are zeros. Dimension 0 is the innermost.
struct TensorMapRequest {
  uint32_t at;         // where the map goes: its offset in the kernel's argument
  const void* base;    // a multiple of 16
  uint32_t rank;       // number of dimensions
  uint64_t size[5];    // of each dimension, in elements
  uint64_t stride[4];  // bytes from one index to the next, of dimensions 1 and on
  uint32_t box[5];     // elements of each dimension that one copy takes
};

// The elements of one copy: columns (64 or 32) of some rows, of one head or of several heads of one
// group.
struct Box {
  uint32_t columns, rows;
  uint32_t group = 0;  // heads of a group; 0: heads have no groups
  uint32_t heads = 0;  // of a group, in the box
};

// Describes tensor, [batch, seq, heads, columns]. Dimensions, and the box in them:
//
//   group 0       column, row, head, batch                       {columns, rows, 1, 1}
//   group above   column, head of the group, row, group, batch   {columns, heads, rows, 1, 1}
//
// A dimension of stride 0 is dropped: its size is 1, so a kernel copies from index 0 there.
// columns: head_dim, which v_in_k's tensor may exceed.
// RETURNS false if no map can describe it: a stride is 2^40 bytes or more, or a dimension in which
// the box has several elements has stride 0.
// REQUIRES: box.group divides the heads.
bool request_for(const Tensor& tensor, int64_t columns, const Box& box, uint32_t at,
                 TensorMapRequest* request);

}  // namespace kernels::hip
