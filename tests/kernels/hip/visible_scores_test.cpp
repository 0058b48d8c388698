// tests/kernels/hip/visible_scores_test.cpp: the bits of a lane's visible scores
#include "kernels/hip/visible_scores.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/hip/tile_shapes_sm90.hpp"

namespace kernels::test {
namespace {

// Ranges that begin and end before, in and behind the step, against each key alone.
template <int kDim, hip::Kind kKind>
void expect_visible() {
  using Tile = hip::PipelinedTile<hip::BF16, kDim, kDim, kKind>;
  std::mt19937 random(std::random_device{}());
  const auto edge = [&] {
    return std::uniform_int_distribution(-Tile::kKeys, 2 * Tile::kKeys)(random);
  };
  for (int n = 0; n < 2000; ++n) {
    const int begin = edge(), end = edge(), slot = n % 2;
    typename Tile::Scores s;
    for (float& score : s) score = NAN;
    hip::VisibleScores<Tile>::between(begin, end).hide_others(s, slot);
    for (int t = 0; t < Tile::kScoreTiles; ++t) {
      for (int e = 0; e < 2; ++e) {
        const int key = Tile::key_offset(t, e);
        const float visible = Tile::at(s, slot, t, e), other = Tile::at(s, 1 - slot, t, e);
        ASSERT_TRUE(std::isnan(other));
        if (key >= begin && key < end) {
          ASSERT_TRUE(std::isnan(visible)) << key << " of [" << begin << ", " << end << ")";
        } else {
          ASSERT_EQ(visible, -INFINITY) << key << " of [" << begin << ", " << end << ")";
        }
      }
    }
  }
}

TEST(VisibleScores, AreThoseOfTheRange) {
  expect_visible<512, hip::Kind::causal>();    // 32 keys
  expect_visible<256, hip::Kind::generic>();   // 64
  expect_visible<256, hip::Kind::nocausal>();  // 80
  expect_visible<192, hip::Kind::nocausal>();  // 112
  expect_visible<128, hip::Kind::causal>();    // 128
}

}  // namespace
}  // namespace kernels::test
