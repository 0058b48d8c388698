// tests/kernels/reference/store_test.cpp: stored numbers are the nearest ones of their dtype
#include "kernels/reference/store.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/half.hpp"

namespace kernels::reference {
namespace {

float stored(DType dtype, float value) {
  float memory = -1;
  store_nearest(dtype, &memory, 0, value);
  return load_float(dtype, &memory, 0);
}

TEST(StoreNearest, RoundsToANumberOfTheDtype) {
  EXPECT_EQ(stored(DType::f32, 0.1F), 0.1F);
  EXPECT_EQ(stored(DType::f16, 0.1F), 0.0999755859375F);
  EXPECT_EQ(stored(DType::i8, -2.4F), -2);
  EXPECT_EQ(stored(DType::f8_e4m3fn, 17.1F), 18);
  EXPECT_EQ(stored(DType::f8_e4m3fn, 16.9F), 16);
  EXPECT_EQ(stored(DType::f8_e4m3fnuz, -0.3F), -0.3125F);
}

TEST(StoreNearest, BeyondTheLargestNumberIsTheLargest) {
  EXPECT_EQ(stored(DType::i8, 1000), 127);
  EXPECT_EQ(stored(DType::i8, -INFINITY), -128);
  EXPECT_EQ(stored(DType::f8_e4m3fn, 1e9F), 448);
  EXPECT_EQ(stored(DType::f8_e4m3fnuz, 1e9F), 240);
}

TEST(StoreNearest, NanStaysNan) {
  for (const DType dtype :
       {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3fn, DType::f8_e4m3fnuz})
    EXPECT_TRUE(std::isnan(stored(dtype, NAN)));
}

}  // namespace
}  // namespace kernels::reference
