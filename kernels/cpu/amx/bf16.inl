// kernels/cpu/amx/bf16.inl: rounds floats to bf16, or splits them into two bf16 parts
//
//   bits of a float   | s | exponent 8 | 7 bits | 16 bits |
//   one part          rounded to nearest even: | s | exponent 8 | 7 bits |
//                     loses at most 2^-8 of the number
//   two parts         high = the upper 16 bits, cut off, not rounded
//                     low  = (number - high), rounded to bf16
//                     high + low loses less than 2^-16 of the number
//
// An f16 has 11 significant bits, so high + low is exactly the f16. (number - high is exact: both
// share sign and exponent.) Infinity splits into infinity and NaN.
//
// A rounder is a function object that rounds two vectors and stores them: kLanes elements of the
// first, then of the second.
#if defined(KERNELS_CPU_AMX_BF16_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_AMX_BF16_INL
#undef KERNELS_CPU_AMX_BF16_INL
#else
#define KERNELS_CPU_AMX_BF16_INL
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/simd/vectors.inl"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE::amx {

// Returns the nearest bf16 as a float, by Veltkamp's splitting: v (2^16 + 1) makes the float adder
// itself round v to its upper 24 - 16 = 8 bits. NaN stays NaN.
inline Vector nearest_bf16(Vector v) {
  const Vector wide = hn::Mul(v, hn::Set(Floats(), 65537.0f));
  return hn::Sub(wide, hn::Sub(wide, v));
}

// Stores the upper halves of floats.
inline void store_upper(Vector v, uint16_t* to) {
  const hn::Rebind<uint16_t, Floats> d16;
  const hn::Rebind<uint32_t, Floats> d32;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::BitCast(d32, v))), d16, to);
}

struct RoundToBf16 {
  void operator()(Vector first, Vector second, uint16_t* to) const {
    store_upper(nearest_bf16(first), to);
    store_upper(nearest_bf16(second), to + kLanes);
  }
};

#if KERNELS_CPU_AVX512
// One instruction of AVX-512-BF16, which Highway 1.0 does not have; every processor with AMX has
// it. (vdpbf16ps, which multiplies bf16, is not used: on processors without AMX it was measured at
// half the speed of float multiply-adds.)
struct RoundToBf16Avx512 {
  void operator()(Vector first, Vector second, uint16_t* to) const {
    // As text: an intrinsic that needs more than this target's instructions would not be inlined.
    __m512i both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(second.raw), "v"(first.raw));
    _mm512_storeu_si512(to, both);
  }
};
#endif

// Splits two vectors into two bf16 parts each.
template <class Rounder>
inline void split_bf16(Vector first, Vector second, uint16_t* high, uint16_t* low) {
  const Floats d;
  const Vector upper = hn::BitCast(d, hn::Set(hn::Rebind<uint32_t, Floats>(), 0xFFFF0000u));
  const Vector first_high = hn::And(first, upper), second_high = hn::And(second, upper);
  Rounder()(first_high, second_high, high);
  Rounder()(hn::Sub(first, first_high), hn::Sub(second, second_high), low);
}

}  // namespace kernels::cpu::HWY_NAMESPACE::amx
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_AMX_BF16_INL
