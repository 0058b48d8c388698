// kernels/hip/tile/wmma_gfx12.hpp: WMMA of RDNA4 (gfx1200, gfx1201), 16 x 16 x 16, wave32
//
// Which lane l holds which element; l / 16 is its group, 0 or 1:
//
//   A  row l % 16, k 8 (l / 16) and the next seven (4 words)
//   B  column l % 16, k 8 (l / 16) and the next seven (4 words)
//   C  element e of 8: row 8 (l / 16) + e, column l % 16
//
//                 column 0  column 1  ...  column 15
//   C  rows 0-7     lane 0    lane 1         lane 15
//      rows 8-15    lane 16   lane 17        lane 31
//
// A lane's rows of C are the k that it holds of B, so weights become operand B as they are.
#pragma once

#include "kernels/hip/tile/matrix.hpp"

namespace kernels::hip {

struct WmmaGfx12 {
  static constexpr int kWave = 32, kM = 16, kN = 16, kK = 16, kA = 4, kB = 4, kC = 8;
  static constexpr bool kReplicated = false;
  static constexpr int a_lane(int row, int k) { return k / 8 * 16 + row; }
  static constexpr int a_element(int, int k) { return k % 8; }
  static constexpr int b_lane(int k, int col) { return k / 8 * 16 + col; }
  static constexpr int b_element(int k, int) { return k % 8; }
  static constexpr int c_row(int lane, int e) { return lane / 16 * 8 + e; }
  static constexpr int c_col(int lane, int) { return lane % 16; }

  // Group and element of the lane that holds a row of C.
  GPU_DEVICE static int group_of_row(int row) { return row / 8; }
  GPU_DEVICE static int element_of_row(int row) { return row % 8; }

  template <class T>
  GPU_DEVICE static void multiply(const uint32_t (&a)[kA], const uint32_t (&b)[kB],
                                  gpu::Floats<kC>& c) {
#if defined(GPU_ON_HOST)
    matrix_multiply<WmmaGfx12, T>(a, b, c.element);
#elif defined(__GFX12__)
    typedef uint32_t Words __attribute__((ext_vector_type(4)));
    typedef _Float16 Halves __attribute__((ext_vector_type(8)));
    typedef short Shorts __attribute__((ext_vector_type(8)));
    const Words wa = {a[0], a[1], a[2], a[3]}, wb = {b[0], b[1], b[2], b[3]};
    if constexpr (__is_same(T, F16)) {
      c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(__builtin_bit_cast(Halves, wa),
                                                           __builtin_bit_cast(Halves, wb), c);
    } else {
      c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(__builtin_bit_cast(Shorts, wa),
                                                            __builtin_bit_cast(Shorts, wb), c);
    }
#endif
  }

  // Turns packed elements of a lane's C into its B.
  GPU_DEVICE static void operand_of(const uint32_t (&own)[4], int, uint32_t (&b)[kB]) {
    GPU_UNROLL for (int i = 0; i < 4; ++i) b[i] = own[i];
  }
};

}  // namespace kernels::hip
