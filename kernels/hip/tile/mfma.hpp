// kernels/hip/tile/mfma.hpp: MFMA of CDNA2 and CDNA3 (gfx90a, gfx942), 16 x 16 x 16, wave64
//
// Which lane l holds which element; l / 16 is its group, 0 to 3:
//
//   A  row l % 16, k 4 (l / 16) and the next three (2 words)
//   B  column l % 16, k 4 (l / 16) and the next three (2 words)
//   C  element e of 4: row 4 (l / 16) + e, column l % 16
//
//                column 0  column 1  ...  column 15
//   C  rows 0-3    lane 0    lane 1         lane 15
//      rows 4-7    lane 16   lane 17        lane 31
//      ...
//
// A lane's rows of C are the k that it holds of B, so weights become operand B as they are.
#pragma once

#include "kernels/hip/tile/matrix.hpp"

namespace kernels::hip {

struct Mfma {
  static constexpr int kWave = 64, kM = 16, kN = 16, kK = 16, kA = 2, kB = 2, kC = 4;
  static constexpr bool kReplicated = false;
  static constexpr int a_lane(int row, int k) { return k / 4 * 16 + row; }
  static constexpr int a_element(int, int k) { return k % 4; }
  static constexpr int b_lane(int k, int col) { return k / 4 * 16 + col; }
  static constexpr int b_element(int k, int) { return k % 4; }
  static constexpr int c_row(int lane, int e) { return lane / 16 * 4 + e; }
  static constexpr int c_col(int lane, int) { return lane % 16; }

  // Group and element of the lane that holds a row of C.
  GPU_DEVICE static int group_of_row(int row) { return row / 4; }
  GPU_DEVICE static int element_of_row(int row) { return row % 4; }

  template <class T>
  GPU_DEVICE static void multiply(const uint32_t (&a)[kA], const uint32_t (&b)[kB],
                                  gpu::Floats<kC>& c) {
#if defined(GPU_ON_HOST)
    matrix_multiply<Mfma, T>(a, b, c.element);
#elif defined(__GFX9__)
    typedef uint32_t Words __attribute__((ext_vector_type(2)));
    typedef _Float16 Halves __attribute__((ext_vector_type(4)));
    typedef short Shorts __attribute__((ext_vector_type(4)));
    const Words wa = {a[0], a[1]}, wb = {b[0], b[1]};
    if constexpr (__is_same(T, F16)) {
      c = __builtin_amdgcn_mfma_f32_16x16x16f16(__builtin_bit_cast(Halves, wa),
                                                __builtin_bit_cast(Halves, wb), c, 0, 0, 0);
    } else {
      c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(Shorts, wa),
                                                    __builtin_bit_cast(Shorts, wb), c, 0, 0, 0);
    }
#endif
  }

  // Turns packed elements of a lane's C into its B.
  GPU_DEVICE static void operand_of(const uint32_t (&own)[2], int, uint32_t (&b)[kB]) {
    GPU_UNROLL for (int i = 0; i < 2; ++i) b[i] = own[i];
  }
};

}  // namespace kernels::hip
