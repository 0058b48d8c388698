// kernels/common/float8.hpp: converts 8-bit floats with 4 exponent and 3 mantissa bits to float
//
//     e4m3fn    sign, exponent biased by 7, 3 bits; 0x7f and 0xff are NaN, there is no infinity
//     e4m3fnuz  sign, exponent biased by 8, 3 bits; 0x80 is NaN, there is no infinity and no -0
//     value     (1 + m/8) 2^(e - bias), and (m/8) 2^(1 - bias) where e is 0
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels {

// Exact. bias: 7 or 8. REQUIRES: bits are not a NaN.
KERNELS_HD inline float f8_e4m3_to_f32(uint8_t bits, int bias) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  const float significand =
      static_cast<float>(exponent == 0 ? mantissa : mantissa + 8);  // in eighths
  const uint32_t power = static_cast<uint32_t>((exponent == 0 ? 1 : exponent) - bias - 3 + 127)
                         << 23;
  float factor;
  __builtin_memcpy(&factor, &power, sizeof(factor));
  return (bits & 0x80) != 0 ? -(significand * factor) : significand * factor;
}

KERNELS_HD inline float f8_e4m3fn_to_f32(uint8_t bits) {
  return (bits & 0x7F) == 0x7F ? __builtin_nanf("") : f8_e4m3_to_f32(bits, 7);
}

KERNELS_HD inline float f8_e4m3fnuz_to_f32(uint8_t bits) {
  return bits == 0x80 ? __builtin_nanf("") : f8_e4m3_to_f32(bits, 8);
}

}  // namespace kernels
