// kernels/common/half.hpp: converts f16 and bf16 to float and back, to nearest even
#pragma once

#include <cstdint>

#include "kernels/common/float8.hpp"
#include "kernels/common/problem.hpp"

namespace kernels {

KERNELS_HD inline float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

KERNELS_HD inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

KERNELS_HD inline float bf16_to_f32(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

KERNELS_HD inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return static_cast<uint16_t>((bits >> 16) | 0x40u);  // quiet, so that NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

KERNELS_HD inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) return float_of_bits(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  if (magnitude >= 0x0400u) return float_of_bits(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;  // exact
  return float_of_bits(sign | bits_of_float(subnormal));
}

KERNELS_HD inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u)
    return static_cast<uint16_t>(sign | 0x7C00u);  // from 65520 on: infinity
  if (magnitude < 0x38800000u) {
    // Below the smallest normal f16, adding 0.5 rounds: its ulp is 2^-24, the spacing of f16's
    // subnormal numbers.
    const uint32_t rounded = bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
    return static_cast<uint16_t>(sign | rounded);
  }
  const uint32_t even = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xFFFu + even) >> 13));
}

// Loads element `index` of numbers of up to 8 bits, f16, bf16 or f32 as float. Exact.
KERNELS_HD inline float load_float(DType dtype, const void* data, int64_t index) {
  if (dtype == DType::f32) return static_cast<const float*>(data)[index];
  if (dtype == DType::i8) return static_cast<float>(static_cast<const int8_t*>(data)[index]);
  if (dtype == DType::f8_e4m3fn) return f8_e4m3fn_to_f32(static_cast<const uint8_t*>(data)[index]);
  if (dtype == DType::f8_e4m3fnuz)
    return f8_e4m3fnuz_to_f32(static_cast<const uint8_t*>(data)[index]);
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

// Rounds `value` to the dtype, f32, f16 or bf16, and stores it as element `index`.
KERNELS_HD inline void store_float(DType dtype, void* data, int64_t index, float value) {
  if (dtype == DType::f32) {
    static_cast<float*>(data)[index] = value;
  } else {
    static_cast<uint16_t*>(data)[index] =
        dtype == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
  }
}

}  // namespace kernels
