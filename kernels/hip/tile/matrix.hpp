// kernels/hip/tile/matrix.hpp: a matrix instruction on the CPU, from its documented fragment layout
// (host build only)
//
// D = A B + C with A [M, K], B [K, N], C and D [M, N], all in the registers of one wave. A layout
// says:
//
//   kWave, kM, kN, kK                      lanes of a wave; sizes of the product
//   kA, kB                                 words of A and B in a lane, two elements each, low first
//   kC                                     floats of C in a lane
//   a_lane(row, k), a_element(row, k)      which lane holds an element of A, as which of its own
//   b_lane(k, col), b_element(k, col)      the same for B
//   c_row(lane, e), c_col(lane, e)         which element of C the lane's float e is
//   kReplicated                            lanes 16-31 of A and B must repeat lanes 0-15
#pragma once

#include "kernels/hip/dtype.hpp"

#if defined(GPU_ON_HOST)
#include <cstdio>
#include <cstdlib>

namespace kernels::hip {

// Multiplies for the calling lane; every lane of the wave calls it. Each lane hands its elements to
// the others as floats, so that each element is converted once.
template <class Layout, class T>
void matrix_multiply(const uint32_t* a, const uint32_t* b, float* c) {
  constexpr int kFromB = 2 * Layout::kA, kCount = kFromB + 2 * Layout::kB;
  uint32_t mine[kCount];
  for (int i = 0; i < kCount; ++i) {
    const uint32_t word = i < kFromB ? a[i / 2] : b[(i - kFromB) / 2];
    mine[i] = __builtin_bit_cast(uint32_t, i % 2 == 0 ? low_half<T>(word) : high_half<T>(word));
  }
  gpu::host::Thread& thread = gpu::host::current();
  const uint32_t* all = thread.gather(mine, kCount, Layout::kWave);
  const int lane = static_cast<int>(thread.thread) % Layout::kWave;
  if constexpr (Layout::kReplicated) {
    for (int i = 0; i < kCount; ++i) {
      if (all[lane % 16 * kCount + i] == mine[i]) continue;
      std::fprintf(stderr,
                   "matrix_multiply: lane %d element %d differs from lane %d's: operands must "
                   "repeat in lanes 16-31\n",
                   lane, i, lane % 16);
      std::abort();
    }
  }
  const auto element = [&](int of_lane, int i) {
    return __builtin_bit_cast(float, all[of_lane * kCount + i]);
  };
  for (int e = 0; e < Layout::kC; ++e) {
    const int row = Layout::c_row(lane, e), col = Layout::c_col(lane, e);
    float sum = c[e];
    for (int k = 0; k < Layout::kK; ++k) {
      sum += element(Layout::a_lane(row, k), Layout::a_element(row, k)) *
             element(Layout::b_lane(k, col), kFromB + Layout::b_element(k, col));
    }
    c[e] = sum;
  }
}

}  // namespace kernels::hip
#endif
