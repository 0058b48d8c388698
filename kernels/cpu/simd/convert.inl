// kernels/cpu/simd/convert.inl: converts rows of f32, f16, bf16, i8 or 8-bit floats to floats, and
// floats back to f32, f16 or bf16
//
//   widen      one vector, in registers
//   load_row   tensor elements -> floats, zero-padded:  e0 e1 ... en-1  ->  f0 f1 ... fn-1 0 ... 0
//   store_row  floats -> tensor elements, each rounded to nearest even
//
// Invariant: exactly n elements of a tensor are read or written. Beyond them may be another row, or
// the end of the memory.
//
// bf16 is the upper half of a float, so widening is a shift. Rounding to it adds 0x7FFF and the
// lowest bit that stays: that carries into the upper half exactly if the nearest even is above. A
// NaN is made quiet instead, since the carry could turn it into infinity.
//
// An e4m3 number (float8.hpp) has its sign, exponent and mantissa in the order of a float:
//
//   byte    s eeee mmm
//   float   s 0000eeee mmm00000000000000000000    + (127 - bias) in the exponent: right if e > 0
//
// If e is 0 the number has no leading 1, and its exponent is that of e = 1: with x what the line
// above gives, 2^(-bias) (1 + m/8), it is 2 x - 2^(1 - bias). No operand is ever a subnormal float,
// which a processor may treat as 0 or compute slowly.
#if defined(KERNELS_CPU_SIMD_CONVERT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_CONVERT_INL
#undef KERNELS_CPU_SIMD_CONVERT_INL
#else
#define KERNELS_CPU_SIMD_CONVERT_INL
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/common/half.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Converts kLanes e4m3 numbers to floats. kBias: 7 (e4m3fn) or 8 (e4m3fnuz).
template <int kBias>
inline Vector widen_e4m3(const uint8_t* from) {
  const Floats d;
  const hn::Rebind<int8_t, Floats> d8;
  const hn::Rebind<int32_t, Floats> d32;
  const auto byte = hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const int8_t*>(from)));
  const auto placed = hn::And(hn::ShiftLeft<20>(byte), hn::Set(d32, int32_t(0x87F00000u)));
  const Vector x = hn::BitCast(d, hn::Add(placed, hn::Set(d32, (127 - kBias) << 23)));
  const auto no_exponent = hn::Eq(hn::And(byte, hn::Set(d32, 0x78)), hn::Zero(d32));
  const Vector one = hn::Set(d, kBias == 7 ? 0x1p-6f : 0x1p-7f);
  const Vector subnormal = hn::MulSub(x, hn::Set(d, 2.0f), hn::CopySign(one, x));
  const auto nan = kBias == 7 ? hn::Eq(hn::And(byte, hn::Set(d32, 0x7F)), hn::Set(d32, 0x7F))
                              : hn::Eq(byte, hn::Set(d32, -128));
  return hn::IfThenElse(hn::RebindMask(d, nan), hn::Set(d, __builtin_nanf("")),
                        hn::IfThenElse(hn::RebindMask(d, no_exponent), subnormal, x));
}

// Loads elements [x, x + kLanes) of a row as floats.
template <DType kDType>
inline Vector widen(const void* row, int64_t x) {
  const Floats d;
  if constexpr (kDType == DType::f32) {
    return hn::LoadU(d, static_cast<const float*>(row) + x);
  } else if constexpr (kDType == DType::bf16) {
    const hn::Rebind<uint16_t, Floats> d16;
    const hn::Rebind<uint32_t, Floats> d32;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, static_cast<const uint16_t*>(row) + x));
    return hn::BitCast(d, hn::ShiftLeft<16>(bits));
  } else if constexpr (kDType == DType::i8) {
    const hn::Rebind<int8_t, Floats> d8;
    const hn::Rebind<int32_t, Floats> d32;
    return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, static_cast<const int8_t*>(row) + x)));
  } else if constexpr (kDType == DType::f8_e4m3fn) {
    return widen_e4m3<7>(static_cast<const uint8_t*>(row) + x);
  } else if constexpr (kDType == DType::f8_e4m3fnuz) {
    return widen_e4m3<8>(static_cast<const uint8_t*>(row) + x);
  } else if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, Floats> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, static_cast<const hwy::float16_t*>(row) + x));
  } else {
    HWY_ALIGN float floats[kLanes];
    for (int64_t n = 0; n < kLanes; ++n)
      floats[n] = f16_to_f32(static_cast<const uint16_t*>(row)[x + n]);
    return hn::Load(d, floats);
  }
}

// Calls f with a dtype of k and v as a constant.
template <class F>
inline void with_kv_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32: return f(std::integral_constant<DType, DType::f32>());
    case DType::f16: return f(std::integral_constant<DType, DType::f16>());
    case DType::i8: return f(std::integral_constant<DType, DType::i8>());
    case DType::f8_e4m3fn: return f(std::integral_constant<DType, DType::f8_e4m3fn>());
    case DType::f8_e4m3fnuz: return f(std::integral_constant<DType, DType::f8_e4m3fnuz>());
    default: return f(std::integral_constant<DType, DType::bf16>());
  }
}

// Writes n floats, and zeros up to the next multiple of kPadFloats. Reads exactly n elements.
inline void load_row(DType dtype, const void* row, int64_t n, float* to) {
  const Floats d;
  int64_t x = 0;
  if (dtype == DType::f32) {
    memcpy(to, row, static_cast<size_t>(n) * sizeof(float));
    x = n;
  } else {
    with_kv_dtype(dtype, [&](auto constant) HWY_ATTR {
      for (; x + kLanes <= n; x += kLanes) hn::StoreU(widen<constant()>(row, x), d, to + x);
    });
  }
  for (; x < n; ++x) to[x] = load_float(dtype, row, x);
  for (const int64_t padded = round_up(n, kPadFloats); x < padded; ++x) to[x] = 0;
}

// Rounds n floats to the dtype. Writes exactly n elements.
inline void store_row(DType dtype, const float* from, int64_t n, void* row) {
  const Floats d;
  if (dtype == DType::f32) {
    memcpy(row, from, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  int64_t x = 0;
  if (dtype == DType::bf16) {
    const hn::Rebind<uint16_t, Floats> d16;
    const hn::Rebind<int32_t, Floats> d32;
    uint16_t* to = static_cast<uint16_t*>(row);
    for (; x + kLanes <= n; x += kLanes) {
      const Vector v = hn::LoadU(d, from + x);
      const auto bits = hn::BitCast(d32, v);
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
      const auto rounded = hn::Add(bits, hn::Add(hn::Set(d32, 0x7FFF), odd));
      const auto quiet_nan = hn::Or(bits, hn::Set(d32, 0x400000));
      const auto chosen = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet_nan, rounded);
      const hn::Rebind<uint32_t, Floats> du32;
      hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(hn::BitCast(du32, chosen))), d16, to + x);
    }
  } else if constexpr (kHasF16) {
    const hn::Rebind<hwy::float16_t, Floats> d16;
    hwy::float16_t* to = static_cast<hwy::float16_t*>(row);
    for (; x + kLanes <= n; x += kLanes)
      hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, from + x)), d16, to + x);
  }
  for (; x < n; ++x) store_float(dtype, row, x, from[x]);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_CONVERT_INL
