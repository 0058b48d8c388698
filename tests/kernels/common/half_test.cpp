// tests/kernels/common/half_test.cpp: tests the conversions on every 16-bit pattern and every tie
#include "kernels/common/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace kernels {
namespace {

struct Format {
  const char* name;
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float);
  uint16_t infinity;
};

class Half : public testing::TestWithParam<Format> {};
INSTANTIATE_TEST_SUITE_P(, Half,
                         testing::Values(Format{"f16", f16_to_f32, f32_to_f16, 0x7C00},
                                         Format{"bf16", bf16_to_f32, f32_to_bf16, 0x7F80}),
                         [](const auto& test) { return test.param.name; });

TEST_P(Half, WideningAndNarrowingGivesTheSameBits) {
  const Format& f = GetParam();
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const float wide = f.widen(static_cast<uint16_t>(bits));
    if ((bits & 0x7FFFu) > f.infinity) {
      EXPECT_TRUE(std::isnan(wide));
      EXPECT_TRUE(std::isnan(f.widen(f.narrow(wide))));
    } else {
      EXPECT_EQ(f.narrow(wide), bits);
    }
  }
}

// Between two neighbours: down below the middle, up above it, to the even one in the middle.
TEST_P(Half, RoundsToNearestEven) {
  const Format& f = GetParam();
  for (uint16_t low = 0; low + 1 < f.infinity; ++low) {
    const uint16_t high = static_cast<uint16_t>(low + 1);
    const float middle = static_cast<float>((double{f.widen(low)} + double{f.widen(high)}) / 2);
    EXPECT_EQ(f.narrow(middle), low % 2 == 0 ? low : high) << low;
    EXPECT_EQ(f.narrow(std::nextafterf(middle, 0.0f)), low);
    EXPECT_EQ(f.narrow(std::nextafterf(middle, INFINITY)), high);
    EXPECT_EQ(f.narrow(-middle), 0x8000u | (low % 2 == 0 ? low : high));
  }
}

#ifdef __FLT16_MAX__
TEST(F16, AgreesWithTheCompiler) {
  for (uint64_t bits = 0; bits <= 0xFFFFFFFFu; bits += 65521 / 7) {
    const float value = float_of_bits(static_cast<uint32_t>(bits));
    if (std::isnan(value)) continue;
    const _Float16 half = static_cast<_Float16>(value);
    uint16_t want;
    memcpy(&want, &half, sizeof(want));
    ASSERT_EQ(f32_to_f16(value), want) << value;
  }
}
#endif

TEST(F16, LimitsOfTheRange) {
  EXPECT_EQ(f32_to_f16(65519.99f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0);
  EXPECT_EQ(f32_to_f16(std::nextafterf(0x1p-25f, 1.0f)), 1);
  EXPECT_EQ(f32_to_f16(-INFINITY), 0xFC00);
}

}  // namespace
}  // namespace kernels
