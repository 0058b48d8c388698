// tests/kernels/hip/widen_test.cpp: tests the widening of 8-bit numbers on all their codes
#include "kernels/hip/widen.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/half.hpp"

namespace kernels::hip {
namespace {

// Expects that widened number `found` times factor is the number of a code.
template <class T, DType kStored>
void expect_code(float found, int code, float factor) {
  const auto byte = static_cast<uint8_t>(code);
  const float want = load_float(kStored, &byte, 0);
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(found)) << code;
  } else {
    EXPECT_EQ(found * factor, want) << code;
  }
}

// Every code in every byte of a word, beside other codes.
template <class T, DType kStored>
void expect_all_codes() {
  for (int code = 0; code < 256; ++code) {
    const int codes[4] = {code, 255 - code, code * 7 % 256, (code + 128) % 256};
    for (int turn = 0; turn < 4; ++turn) {
      uint32_t word = 0;
      for (int i = 0; i < 4; ++i) word |= static_cast<uint32_t>(codes[(i + turn) % 4]) << 8 * i;
      const gpu::Bits128 wide = widen8<T, kStored>({{word, ~word}});
      uint32_t alternate[2];
      widen4<T, kStored, Pairs::alternate, false>(word, alternate);
      for (int i = 0; i < 4; ++i) {
        const int here = codes[(i + turn) % 4];
        const auto half = [](uint32_t pair, bool high) {
          return high ? high_half<T>(pair) : low_half<T>(pair);
        };
        expect_code<T, kStored>(half(wide.word[i / 2], i % 2 != 0), here, 1);
        expect_code<T, kStored>(half(wide.word[2 + i / 2], i % 2 != 0), here ^ 0xFF, 1);
        expect_code<T, kStored>(half(alternate[i % 2], i / 2 != 0), here,
                                kMissingFactor<T, kStored>);
      }
    }
  }
}

template <class T>
void expect_all_types() {
  expect_all_codes<T, DType::i8>();
  expect_all_codes<T, DType::f8_e4m3fn>();
  expect_all_codes<T, DType::f8_e4m3fnuz>();
}

TEST(Widen, IsExactToF16) { expect_all_types<F16>(); }
TEST(Widen, IsExactToBf16) { expect_all_types<BF16>(); }

}  // namespace
}  // namespace kernels::hip
