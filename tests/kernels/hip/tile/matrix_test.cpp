// tests/kernels/hip/tile/matrix_test.cpp: each matrix instruction's fragment layout is complete,
// and gives the plain product
#include "kernels/hip/tile/matrix.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "kernels/hip/tile/mfma.hpp"
#include "kernels/hip/tile/mma_sm80.hpp"
#include "kernels/hip/tile/wmma_gfx11.hpp"
#include "kernels/hip/tile/wmma_gfx12.hpp"

namespace kernels::hip {
namespace {

template <class Layout>
class Fragments : public testing::Test {};
using Layouts = testing::Types<WmmaGfx11, WmmaGfx12, Mfma, MmaSm80>;
TYPED_TEST_SUITE(Fragments, Layouts);

float a_value(int row, int k) { return static_cast<float>((row * 7 + k * 3) % 11 - 5); }
float b_value(int k, int col) { return static_cast<float>((k * 5 + col * 2) % 13 - 6); }

void put(uint32_t* words, int index, float value) {
  words[index / 2] |= static_cast<uint32_t>(f32_to_f16(value)) << (index % 2 * 16);
}

// RETURNS the product of operands laid out as the layout says. spoil: a lane whose A gets a wrong
// bit; -1: none.
template <class Layout>
std::vector<float> product(int spoil) {
  std::vector<float> d(static_cast<size_t>(Layout::kM * Layout::kN), NAN);
  gpu::host::run({{1, 1, 1}, static_cast<uint32_t>(Layout::kWave), 16, 5}, [&] {
    const int lane = static_cast<int>(gpu::thread());
    uint32_t a[Layout::kA] = {}, b[Layout::kB] = {};
    float c[Layout::kC];
    const int held = Layout::kReplicated ? lane % 16 : lane;
    for (int k = 0; k < Layout::kK; ++k) {
      for (int row = 0; row < Layout::kM; ++row) {
        if (Layout::a_lane(row, k) == held) put(a, Layout::a_element(row, k), a_value(row, k));
      }
      for (int col = 0; col < Layout::kN; ++col) {
        if (Layout::b_lane(k, col) == held) put(b, Layout::b_element(k, col), b_value(k, col));
      }
    }
    if (lane == spoil) a[0] ^= 1;
    for (int e = 0; e < Layout::kC; ++e) c[e] = static_cast<float>(e);
    matrix_multiply<Layout, F16>(a, b, c);
    for (int e = 0; e < Layout::kC; ++e) {
      d[static_cast<size_t>(Layout::c_row(lane, e) * Layout::kN + Layout::c_col(lane, e))] =
          c[e] - static_cast<float>(e);
    }
  });
  return d;
}

TYPED_TEST(Fragments, HoldEveryElementOnce) {
  using L = TypeParam;
  std::set<std::pair<int, int>> a, b, c;
  for (int k = 0; k < L::kK; ++k) {
    for (int row = 0; row < L::kM; ++row) a.insert({L::a_lane(row, k), L::a_element(row, k)});
    for (int col = 0; col < L::kN; ++col) b.insert({L::b_lane(k, col), L::b_element(k, col)});
  }
  for (int lane = 0; lane < L::kWave; ++lane) {
    for (int e = 0; e < L::kC; ++e) c.insert({L::c_row(lane, e), L::c_col(lane, e)});
  }
  EXPECT_EQ(a.size(), static_cast<size_t>(L::kM * L::kK));
  EXPECT_EQ(b.size(), static_cast<size_t>(L::kN * L::kK));
  EXPECT_EQ(c.size(), static_cast<size_t>(L::kM * L::kN));
}

TYPED_TEST(Fragments, GiveThePlainProduct) {
  using L = TypeParam;
  const std::vector<float> d = product<L>(-1);
  for (int row = 0; row < L::kM; ++row) {
    for (int col = 0; col < L::kN; ++col) {
      float want = 0;
      for (int k = 0; k < L::kK; ++k) want += a_value(row, k) * b_value(k, col);
      EXPECT_EQ(d[static_cast<size_t>(row * L::kN + col)], want) << row << ", " << col;
    }
  }
}

// The GPU reads A and B of lanes 16 to 31 too, so they must agree.
TEST(WmmaGfx11DeathTest, OperandsMustRepeatInTheUpperLanes) {
  EXPECT_DEATH(product<WmmaGfx11>(20), "operands must repeat in lanes 16-31");
}

}  // namespace
}  // namespace kernels::hip
