// kernels/hip/launch/family.hpp: an architecture's name and a problem into the tile that serves it, on the host
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/problem.hpp"
#include "kernels/hip/tile_shapes.hpp"

namespace kernels::hip {

// What a launch needs to know of a tile.
struct TileFacts {
  uint32_t threads, rows, keys, shared_bytes;
  uint32_t qk_shared_bytes;  // of the unfused first product
};

// "gfx1100" -> wmma_gfx11, "sm_86" -> mma_sm80; what has no matrix instruction here -> valu32 or valu64.
Family family_of(const char* arch);

// dim: one of kDims.
TileFacts tile_facts(Family family, DType dtype, int dim);

// Whether the kernels can do the problem; both plugins' are alike in that.
bool supported(const Problem& problem, std::string* reason);

}  // namespace kernels::hip
