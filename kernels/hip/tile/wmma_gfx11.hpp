// kernels/hip/tile/wmma_gfx11.hpp: WMMA of RDNA3 (gfx1100, gfx1101, gfx1102), 16 x 16 x 16, wave32
//
// Which lane l holds which element; l / 16 is its group, 0 or 1:
//
//   A  row l % 16, all 16 k in order (8 words); lanes 16-31 must repeat lanes 0-15
//   B  column l % 16, all 16 k in order (8 words); lanes 16-31 must repeat lanes 0-15
//   C  element e of 8: row 2 e + l / 16, column l % 16
//
//                      column 0  column 1  ...  column 15
//   C  even rows         lane 0    lane 1         lane 15
//      odd rows          lane 16   lane 17        lane 31
//
// A lane holds half of the rows of C and needs all k of B, so the two groups exchange their
// weights.
#pragma once

#include "kernels/hip/tile/matrix.hpp"

namespace kernels::hip {

struct WmmaGfx11 {
  static constexpr int kWave = 32, kM = 16, kN = 16, kK = 16, kA = 8, kB = 8, kC = 8;
  static constexpr bool kReplicated = true;
  static constexpr int a_lane(int row, int) { return row; }
  static constexpr int a_element(int, int k) { return k; }
  static constexpr int b_lane(int, int col) { return col; }
  static constexpr int b_element(int k, int) { return k; }
  static constexpr int c_row(int lane, int e) { return 2 * e + lane / 16; }
  static constexpr int c_col(int lane, int) { return lane % 16; }

  // Group and element of the lane that holds a row of C.
  GPU_DEVICE static int group_of_row(int row) { return row % 2; }
  GPU_DEVICE static int element_of_row(int row) { return row / 2; }

  template <class T>
  GPU_DEVICE static void multiply(const uint32_t (&a)[kA], const uint32_t (&b)[kB],
                                  gpu::Floats<kC>& c) {
#if defined(GPU_ON_HOST)
    matrix_multiply<WmmaGfx11, T>(a, b, c.element);
#elif defined(__GFX11__)
    typedef uint32_t Words __attribute__((ext_vector_type(8)));
    typedef _Float16 Halves __attribute__((ext_vector_type(16)));
    typedef short Shorts __attribute__((ext_vector_type(16)));
    const Words wa = {a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]};
    const Words wb = {b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]};
    if constexpr (__is_same(T, F16)) {
      c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(__builtin_bit_cast(Halves, wa),
                                                     __builtin_bit_cast(Halves, wb), c);
    } else {
      c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(Shorts, wa),
                                                      __builtin_bit_cast(Shorts, wb), c);
    }
#endif
  }

  // Turns packed elements of a lane's C into its B: k 0-7 are group 0's and k 8-15 group 1's. (A's
  // columns are permuted alike: see TransposedTile.)
  GPU_DEVICE static void operand_of(const uint32_t (&own)[4], int group, uint32_t (&b)[kB]) {
    GPU_UNROLL for (int i = 0; i < 4; ++i) {
      const uint32_t other = gpu::exchange<kWave>(own[i], 16);
      b[i] = group == 0 ? own[i] : other;
      b[4 + i] = group == 0 ? other : own[i];
    }
  }
};

}  // namespace kernels::hip
