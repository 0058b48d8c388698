// kernels/cpu/simd/pv.inl: multiplies weights and a tile of V, and adds the result to the rows' out
//
//   out[r][x] = out[r][x] * rescale[r] + sum over keys j of weights[r][j] * v[j][x]
//
// The register block is that of qk.inl: kRows rows by kCount vectors of columns x stay in registers
// over all keys. Each key loads kCount vectors of V and broadcasts one weight of each row.
//
//                  v[j]: V0  V1  ...
//   weights[0][j]        o00 o01
//   weights[1][j]        o10 o11
//
// Rescaling costs nothing extra: out is loaded and multiplied once a tile anyway.
//
// Keys [begin, end) only: outside, weights may be stale and V may not exist.
#if defined(KERNELS_CPU_SIMD_PV_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_PV_INL
#undef KERNELS_CPU_SIMD_PV_INL
#else
#define KERNELS_CPU_SIMD_PV_INL
#endif

#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/simd/vectors.inl"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

template <int kRows, int kCount>
inline void pv_panel(const float* HWY_RESTRICT weights, const float* HWY_RESTRICT values,
                     int64_t v_stride, int64_t begin, int64_t end,
                     const float* HWY_RESTRICT rescale, float* HWY_RESTRICT out,
                     int64_t out_stride) {
  const Floats d;
  Vector sum[kRows][kCount];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const Vector factor = hn::Set(d, rescale[r]);
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n)
      sum[r][n] = hn::Mul(factor, hn::Load(d, out + r * out_stride + n * kLanes));
  }
  for (int64_t j = begin; j < end; ++j) {
    Vector value[kCount];
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) value[n] = hn::LoadU(d, values + j * v_stride + n * kLanes);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Vector weight = hn::Set(d, weights[r * kTileKeys + j]);
      HWY_UNROLL(8)
      for (int n = 0; n < kCount; ++n) sum[r][n] = hn::MulAdd(weight, value[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int n = 0; n < kCount; ++n) hn::Store(sum[r][n], d, out + r * out_stride + n * kLanes);
  }
}

// pv_panel for a number of rows that is known only at run time, 1 to kGroupRows.
template <int kCount>
inline void pv_rows(int64_t rows, const float* weights, const float* values, int64_t v_stride,
                    int64_t begin, int64_t end, const float* rescale, float* out,
                    int64_t out_stride) {
  const auto panel = [&](auto count) HWY_ATTR {
    pv_panel<count(), kCount>(weights, values, v_stride, begin, end, rescale, out, out_stride);
  };
  switch (rows) {
    case 1: return panel(std::integral_constant<int, 1>());
    case 2: return panel(std::integral_constant<int, 2>());
    case 3: return panel(std::integral_constant<int, 3>());
    case 4: return panel(std::integral_constant<int, 4>());
    case 5: return panel(std::integral_constant<int, 5>());
    default: return panel(std::integral_constant<int, 6>());
  }
}

// The same for `vectors` vectors of columns, 1 to kVectors.
inline void pv_columns(int64_t vectors, int64_t rows, const float* weights, const float* values,
                       int64_t v_stride, int64_t begin, int64_t end, const float* rescale,
                       float* out, int64_t out_stride) {
  if constexpr (kVectors == 4) {
    if (vectors == 4)
      return pv_rows<4>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
    if (vectors == 3)
      return pv_rows<3>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
  }
  if (vectors == 2)
    return pv_rows<2>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
  return pv_rows<1>(rows, weights, values, v_stride, begin, end, rescale, out, out_stride);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_PV_INL
