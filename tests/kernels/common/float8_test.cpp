// tests/kernels/common/float8_test.cpp: tests the 8-bit floats on all their codes
#include "kernels/common/float8.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace kernels {
namespace {

// The number of a code by the formats' definition.
double defined(int code, int bias) {
  const int sign = code >> 7, exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, 1 - bias - 3)
                                         : std::ldexp(8 + mantissa, exponent - bias - 3);
  return sign != 0 ? -magnitude : magnitude;
}

TEST(Float8, E4m3fnHasTwoNanAndNoInfinity) {
  for (int code = 0; code < 256; ++code) {
    const float found = f8_e4m3fn_to_f32(static_cast<uint8_t>(code));
    if (code == 0x7F || code == 0xFF) {
      EXPECT_TRUE(std::isnan(found)) << code;
    } else {
      EXPECT_EQ(double{found}, defined(code, 7)) << code;
    }
  }
  EXPECT_EQ(f8_e4m3fn_to_f32(0x7E), 448);
  EXPECT_EQ(f8_e4m3fn_to_f32(0x38), 1);
  EXPECT_EQ(f8_e4m3fn_to_f32(0x01), 0x1p-9f);
  EXPECT_TRUE(std::signbit(f8_e4m3fn_to_f32(0x80)));
}

TEST(Float8, E4m3fnuzHasOneNanAndNoNegativeZero) {
  for (int code = 0; code < 256; ++code) {
    const float found = f8_e4m3fnuz_to_f32(static_cast<uint8_t>(code));
    if (code == 0x80) {
      EXPECT_TRUE(std::isnan(found));
    } else {
      EXPECT_EQ(double{found}, defined(code, 8)) << code;
    }
  }
  EXPECT_EQ(f8_e4m3fnuz_to_f32(0x7F), 240);
  EXPECT_EQ(f8_e4m3fnuz_to_f32(0x40), 1);
  EXPECT_EQ(f8_e4m3fnuz_to_f32(0x01), 0x1p-10f);
}

}  // namespace
}  // namespace kernels
