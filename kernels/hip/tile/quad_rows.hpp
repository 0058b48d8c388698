// kernels/hip/tile/quad_rows.hpp: rows of scores and of O that four neighbouring lanes share, a
// quad (mma.sync and wgmma)
#pragma once

#include "kernels/hip/dtype.hpp"

namespace kernels::hip {

// RETURNS the maximum, or the sum, over the quad, in all of its lanes.
GPU_DEVICE float max_of_quad(float x) {
  x = gpu::max(x, gpu::exchange<32>(x, 1));
  return gpu::max(x, gpu::exchange<32>(x, 2));
}
GPU_DEVICE float sum_of_quad(float x) {
  x += gpu::exchange<32>(x, 1);
  return x + gpu::exchange<32>(x, 2);
}

// Stores a row of kDim columns, rounded to T, of which a lane holds columns u * 8 + lane % 4 * 2 +
// e as element(u, e), e 0 and 1. Columns from head_dim on are not stored, nor is a row that does
// not exist; its lanes take part.
//
// The lanes of a quad exchange words, a 4 x 4 transpose in two rounds, so that each stores 16
// bytes. All exchanges come before the first store: a store's condition would keep the compiler
// from overlapping them.
template <class T, int kDim, class F>
GPU_DEVICE void store_quad_row(int32_t head_dim, typename T::Storage* out, bool exists,
                               const F& element) {
  const int quad = static_cast<int>(gpu::thread()) % 4;
  gpu::Bits128 row[kDim / 32];
  GPU_UNROLL for (int u = 0; u < kDim / 8; u += 4) {
    gpu::Bits128& bits = row[u / 4];
    GPU_UNROLL for (int i = 0; i < 4; ++i) {
      bits.word[i] = pack2(T{}, element(u + i, 0), element(u + i, 1));
    }
    GPU_UNROLL for (int bit = 1; bit <= 2; bit *= 2) {
      const bool upper = (quad & bit) != 0;
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        if (i & bit) continue;
        const uint32_t got = gpu::exchange<32>(upper ? bits.word[i] : bits.word[i | bit], bit);
        if (upper) {
          bits.word[i] = got;
        } else {
          bits.word[i | bit] = got;
        }
      }
    }
  }
  typename T::Storage* const to = gpu::computed_here(out + quad * 8);
  GPU_UNROLL for (int u = 0; u < kDim / 8; u += 4) {
    if (exists && (u + quad) * 8 < head_dim) gpu::store128(to + u * 8, row[u / 4]);
  }
}

}  // namespace kernels::hip
