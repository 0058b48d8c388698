// kernels/cpu/simd/softmax.inl: online softmax, which turns a row's scores of one tile into weights
// and updates the row's maximum and sum
//
//   new_max = max(max, scores of the tile)
//   weight  = 2^((score - new_max) * exponent_scale)
//   factor  = 2^((max - new_max) * exponent_scale)      scales what the row has accumulated
//   sum     = sum * factor + sum of weights
//
// Plain scores are bare products of q and k. If new_max * exponent_scale is small, one multiply-add
// computes the exponent: score * exponent_scale - new_max * exponent_scale, which exceeds 0 by no
// more than the rounding of that product. In two cases the maximum is subtracted first instead,
// which is exact for the maximum itself: if the product is large, because its rounding would be
// large too, and for adjusted scores, because the lowest finite score must not overflow.
//
// Invariant: weights of hidden keys (-inf) are 0, the weight of the maximum is 1 or nearly so, NaN
// stays NaN. A row whose keys are all hidden so far has max = -inf: any finite number serves then,
// since 2^(-inf - 0) = 0 and 2^(-inf + inf) would be NaN.
#if defined(KERNELS_CPU_SIMD_SOFTMAX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_SOFTMAX_INL
#undef KERNELS_CPU_SIMD_SOFTMAX_INL
#else
#define KERNELS_CPU_SIMD_SOFTMAX_INL
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/mask.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// 1 + c[n - 1] f + ... + c[0] f^n.
template <size_t kDegree>
inline Vector polynomial(const float (&c)[kDegree], Vector f) {
  const Floats d;
  Vector p = hn::Set(d, c[0]);
  HWY_UNROLL(4)
  for (size_t n = 1; n < kDegree; ++n) p = hn::MulAdd(p, f, hn::Set(d, c[n]));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

// Coefficients of polynomials that approximate 2^f with the smallest maximum relative error: for f
// from 0 to 1, and for f from -1/2 to 1/2.
struct Exp2 {  // relative error below 1.1e-7
  static constexpr float k0To1[] = {0x1.e974fcp-10f, 0x1.277854p-7f, 0x1.c91ce6p-5f, 0x1.ebdb56p-3f,
                                    0x1.62e4bap-1f};
  static constexpr float kHalfs[] = {0x1.5bba14p-10f, 0x1.3cea88p-7f, 0x1.c6b752p-5f,
                                     0x1.ebf9bcp-3f, 0x1.62e42ap-1f};
};
// Relative error below 3e-6, a fifth of what rounding to two bf16 parts may lose.
struct Exp2For16Bits {
  static constexpr float k0To1[] = {0x1.b7f732p-7f, 0x1.abf868p-5f, 0x1.ee2452p-3f, 0x1.62d6c6p-1f};
  static constexpr float kHalfs[] = {0x1.3a02cep-7f, 0x1.c9fc46p-5f, 0x1.ec0378p-3f,
                                     0x1.62e12cp-1f};
};

// Returns 2^y for y < 127; for larger y the result is unspecified. The relative error of normal
// results is below 2e-7 (Exp2For16Bits: 3.1e-6): the polynomial's and that of float rounding.
// Exactly 1 at 0. Results below 2^-126.5 are 0, and those from there to 2^-126 may be.
template <class Polynomial = Exp2>
inline Vector exp2(Vector y) {
#if KERNELS_CPU_AVX512
  // Highway has no names for vreduceps (here y - floor(y)) and vscalefps (p 2^floor(y)).
  constexpr int kFloor = 0x09;
  const __mmask16 normal =
      _mm512_cmp_ps_mask(y.raw, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);  // or NaN
  const Vector p = polynomial(Polynomial::k0To1, Vector{_mm512_reduce_ps(y.raw, kFloor)});
  return Vector{_mm512_maskz_scalef_ps(normal, p.raw, y.raw)};
#else
  const Floats d;
  const hn::Rebind<int32_t, Floats> d32;
  // If Max does not return a NaN in its second operand, the comparison of y with itself does.
  const Vector lowest = hn::Set(d, -127.0f);
  const Vector clamped =
      kMaxKeepsNan ? hn::Max(lowest, y) : hn::IfThenElse(hn::Eq(y, y), hn::Max(lowest, y), y);
  // Adding this rounds y to an integer and leaves round(y) + 127 in the low bits: the exponent
  // field of 2^round(y), which is 0 for 2^-127 and below.
  const Vector magic = hn::Set(d, 0x1.8p23f + 127.0f);
  const Vector shifted = hn::Add(clamped, magic);
  const Vector p = polynomial(Polynomial::kHalfs, hn::Sub(clamped, hn::Sub(shifted, magic)));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted))));
#endif
}

// Turns scores [begin, end) into weights in place, updates max and the sums by lane, and returns
// the factor for what the row has accumulated. REQUIRES: begin and end are multiples of kLanes;
// hidden scores are -inf.
template <bool kPlain>
inline float online_softmax(float exponent_scale, float* HWY_RESTRICT scores, int64_t begin,
                            int64_t end, float* HWY_RESTRICT max, float* HWY_RESTRICT sum) {
  const Floats d;
  const Vector scale = hn::Set(d, exponent_scale);
  const Vector lowest = hn::Set(d, -INFINITY);
  Vector highest = lowest, highest2 = lowest;
  int64_t j = begin;
  for (; j + 2 * kLanes <= end; j += 2 * kLanes) {
    highest = hn::Max(highest, hn::Load(d, scores + j));
    highest2 = hn::Max(highest2, hn::Load(d, scores + j + kLanes));
  }
  if (j < end) highest = hn::Max(highest, hn::Load(d, scores + j));
  const float tile_max = hn::GetLane(hn::MaxOfLanes(d, hn::Max(highest, highest2)));
  const float old_max = *max;
  const float new_max = old_max < tile_max ? tile_max : old_max;
  const float finite_max = new_max == -INFINITY ? 0.0f : new_max;
  constexpr float kLargeOffset = 32;  // an exponent; half an ulp of it is 2e-6
  const float exponent_offset = finite_max * exponent_scale;
  if (kPlain && !(std::abs(exponent_offset) <= kLargeOffset)) {
    return online_softmax<false>(exponent_scale, scores, begin, end, max, sum);
  }
  const Vector offset = hn::Set(d, kPlain ? exponent_offset : finite_max);
  const auto weight = [&](int64_t at) HWY_ATTR {
    const Vector s = hn::Load(d, scores + at);
    return exp2(kPlain ? hn::MulSub(s, scale, offset) : hn::Mul(hn::Sub(s, offset), scale));
  };
  Vector tile_sum = hn::Zero(d), tile_sum2 = hn::Zero(d);
  for (j = begin; j + 2 * kLanes <= end; j += 2 * kLanes) {
    const Vector p = weight(j);
    const Vector p2 = weight(j + kLanes);
    tile_sum = hn::Add(tile_sum, p);
    tile_sum2 = hn::Add(tile_sum2, p2);
    hn::Store(p, d, scores + j);
    hn::Store(p2, d, scores + j + kLanes);
  }
  if (j < end) {
    const Vector p = weight(j);
    tile_sum = hn::Add(tile_sum, p);
    hn::Store(p, d, scores + j);
  }
  tile_sum = hn::Add(tile_sum, tile_sum2);
  float factor = 1.0f;
  if (new_max != old_max) {
    factor = hn::GetLane(exp2(hn::Mul(hn::Set(d, old_max - finite_max), scale)));
    *max = new_max;
  }
  hn::Store(hn::MulAdd(hn::Load(d, sum), hn::Set(d, factor), tile_sum), d, sum);
  return factor;
}

// Turns one row's adjusted scores, those of `panels` of the tile at `first`, into weights in place.
// Leaves in scratch.rescale what the row's out is to be multiplied by.
inline void softmax_row(const Block& block, const Scratch& scratch, int64_t row, int64_t first,
                        KeyRange panels, float* scores) {
  const Run& run = *block.run;
  hide_outside(scratch.visible[row], first + panels.begin, panels.end - panels.begin,
               scores + panels.begin);
  float* max = scratch.max + row;
  float* sum = scratch.sum + row * kSumLanes;
  const float exponent_scale = run.exponent_scale;
  scratch.rescale[row] =
      run.plain_scores
          ? online_softmax<true>(exponent_scale, scores, panels.begin, panels.end, max, sum)
          : online_softmax<false>(exponent_scale, scores, panels.begin, panels.end, max, sum);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_SOFTMAX_INL
