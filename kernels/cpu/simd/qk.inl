// kernels/cpu/simd/qk.inl: multiplies packed queries and keys: scores of one row group against one
// panel of keys
//
//   scores[r][j] = sum over x of q[r][x] * k[j][x]        r < kRows, j < kPanel
//
//               keys (panel)
//             x | V0  V1  ...
//   q   ------+---------------
//   r0    b0  | s00 s01
//   r1    b1  | s10 s11
//
// A register block: kRows x kVectors vectors of sums stay in registers over all of head_dim. Each
// step x loads kVectors vectors of keys and broadcasts one number of each row, for
// kRows * kVectors multiply-adds. Six rows fill the registers: see kVectors.
//
// Rows of `scores` are kTileKeys apart. Each product and sum is one fused operation, in the order
// of x.
#if defined(KERNELS_CPU_SIMD_QK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_QK_INL
#undef KERNELS_CPU_SIMD_QK_INL
#else
#define KERNELS_CPU_SIMD_QK_INL
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/simd/vectors.inl"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

template <int kRows>
inline void qk_panel(const float* HWY_RESTRICT q, int64_t q_stride, const float* HWY_RESTRICT keys,
                     int64_t head_dim, float* HWY_RESTRICT scores) {
  const Floats d;
  Vector sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) sum[r][n] = hn::Zero(d);
  }
  for (int64_t x = 0; x < head_dim; ++x) {
    Vector key[kVectors];
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) key[n] = hn::Load(d, keys + x * kPanel + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector query = hn::Set(d, q[r * q_stride + x]);
      HWY_UNROLL(8)
      for (int n = 0; n < kVectors; ++n) sum[r][n] = hn::MulAdd(query, key[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kVectors; ++n) hn::Store(sum[r][n], d, scores + r * kTileKeys + n * kLanes);
  }
}

// qk_panel for a number of rows that is known only at run time, 1 to kGroupRows.
inline void qk_rows(int64_t rows, const float* q, int64_t q_stride, const float* keys,
                    int64_t head_dim, float* scores) {
  switch (rows) {
    case 1: return qk_panel<1>(q, q_stride, keys, head_dim, scores);
    case 2: return qk_panel<2>(q, q_stride, keys, head_dim, scores);
    case 3: return qk_panel<3>(q, q_stride, keys, head_dim, scores);
    case 4: return qk_panel<4>(q, q_stride, keys, head_dim, scores);
    case 5: return qk_panel<5>(q, q_stride, keys, head_dim, scores);
    default: return qk_panel<6>(q, q_stride, keys, head_dim, scores);
  }
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_QK_INL
