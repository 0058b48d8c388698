// kernels/hip/launch/family.hpp: which tile serves an architecture and a problem
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"
#include "kernels/hip/tile_shapes.hpp"

namespace kernels::hip {

// A tile's sizes, as a launch needs them.
struct TileFacts {
  uint32_t threads, rows, keys, shared_bytes;
  uint32_t qk_shared_bytes;      // workgroup memory of the unfused first product
  uint32_t stored_shared_bytes;  // the same with K and V of 8 bits; 0 for f32
};

// The family of an architecture: "gfx1100" is of wmma_gfx11, "sm_86" of mma_sm80, "sm_90a" of
// wgmma_sm90. One without matrix instructions that a tile uses is of valu32 or valu64.
Family family_of(const char* arch);

// dim: head_dim, padded to one of kDims. wgmma_sm90's are those of mma_sm80, which serves it where
// the loop of sm_90a does not.
TileFacts tile_facts(Family family, DType dtype, int dim);

// The dim of a problem's tile: of head_dim and head_dim_v the larger, padded.
inline int padded_dim(const Problem& p) {
  return padded_dim(p.head_dim > p.head_dim_v ? p.head_dim : p.head_dim_v);
}

// Whether the kernels can solve the problem; if not, says why in reason. max_dim: the largest
// head_dim and head_dim_v. lists: whether the kernels that take their work from a list are among
// them.
bool supported(const Problem& problem, int max_dim, bool lists, std::string* reason);

}  // namespace kernels::hip
