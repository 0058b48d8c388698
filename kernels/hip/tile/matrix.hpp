// kernels/hip/tile/matrix.hpp: fragments in the lanes of a wave into a matrix product, by their documented layout
//
// The host build's matrix instruction. A layout gives, for D = A B + C with A [M, K], B [K, N], C and D [M, N]:
//   kWave, kM, kN, kK, kA, kB (words of A and B in a lane; a word holds two elements, low half first), kC (floats of C)
//   a_lane(row, k), a_element(row, k), b_lane(k, col), b_element(k, col): where an element stands
//   c_row(lane, e), c_col(lane, e): what element e of C and D is
//   kReplicated: lanes 16-31 of A and B must repeat lanes 0-15
#pragma once

#include "kernels/hip/dtype.hpp"

#if defined(GPU_ON_HOST)
#include <cstdio>
#include <cstdlib>

namespace kernels::hip {

template <class T>
float element_of(const uint32_t* words, int index) {
  const uint32_t word = words[index / 2];
  return index % 2 == 0 ? low_half<T>(word) : high_half<T>(word);
}

template <class Layout, class T>
void matrix_multiply(const uint32_t* a, const uint32_t* b, float* c) {
  constexpr int kWords = Layout::kA + Layout::kB;
  uint32_t mine[kWords];
  for (int i = 0; i < Layout::kA; ++i) mine[i] = a[i];
  for (int i = 0; i < Layout::kB; ++i) mine[Layout::kA + i] = b[i];
  gpu::host::Thread& thread = gpu::host::current();
  const uint32_t* all = thread.gather(mine, kWords, Layout::kWave);
  const int lane = static_cast<int>(thread.thread) % Layout::kWave;
  if constexpr (Layout::kReplicated) {
    for (int i = 0; i < kWords; ++i) {
      if (all[lane % 16 * kWords + i] == mine[i]) continue;
      std::fprintf(stderr,
                   "matrix_multiply: lane %d word %d differs from lane %d's: operands must repeat in lanes 16-31\n",
                   lane, i, lane % 16);
      std::abort();
    }
  }
  for (int e = 0; e < Layout::kC; ++e) {
    const int row = Layout::c_row(lane, e), col = Layout::c_col(lane, e);
    float sum = c[e];
    for (int k = 0; k < Layout::kK; ++k) {
      const uint32_t* from_a = all + Layout::a_lane(row, k) * kWords;
      const uint32_t* from_b = all + Layout::b_lane(k, col) * kWords + Layout::kA;
      sum += element_of<T>(from_a, Layout::a_element(row, k)) * element_of<T>(from_b, Layout::b_element(k, col));
    }
    c[e] = sum;
  }
}

}  // namespace kernels::hip
#endif
