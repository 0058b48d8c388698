// tests/kernels/hip/tile/tile_test.cpp: a tile's lanes hold each score once, and reduce over rows
#include "kernels/hip/tile/tile.hpp"

#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "kernels/hip/tile_shapes.hpp"

namespace kernels::hip {
namespace {

template <class Tile>
class EveryTile : public testing::Test {};
template <class T, Family... kFamilies>
using TilesOf = testing::Types<Tile<kFamilies, T, 64>..., Tile<kFamilies, T, 128>...,
                               Tile<kFamilies, T, 256>...>;
using MatrixTiles =
    TilesOf<F16, Family::wmma_gfx11, Family::wmma_gfx12, Family::mfma, Family::mma_sm80>;
using PlainTiles = TilesOf<F32, Family::valu32, Family::valu64, Family::valu_large>;
template <class Tile>
class EveryPlainTile : public EveryTile<Tile> {};
TYPED_TEST_SUITE(EveryTile, MatrixTiles);
TYPED_TEST_SUITE(EveryPlainTile, PlainTiles);

// Runs f(tile) in every lane of a workgroup.
template <class Tile, class F>
void in_every_lane(const F& f) {
  gpu::host::run({{1, 1, 1}, Tile::kThreads, Tile::kSharedBytes, 3}, [&] { f(Tile()); });
}

template <class Tile>
void expect_each_score_once() {
  std::set<std::pair<int, int>> held;
  int count = 0;
  in_every_lane<Tile>([&](const Tile& tile) {
    for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const int row = tile.row(slot);
      EXPECT_EQ(row / Tile::kWaveRows, tile.wave) << "a wave owns kWaveRows rows";
      if (slot > 0) {
        EXPECT_GT(row, tile.row(slot - 1));
      }
      for (int t = 0; t < Tile::kScoreTiles; ++t) {
        for (int e = 0; e < Tile::kElements; ++e, ++count) {
          held.insert({row, tile.first_key() + Tile::key_offset(t, e)});
        }
      }
    }
  });
  EXPECT_EQ(count, Tile::kRows * Tile::kKeys);
  EXPECT_EQ(held.size(), static_cast<size_t>(Tile::kRows * Tile::kKeys));
  EXPECT_EQ(*held.begin(), std::pair(0, 0));
  EXPECT_EQ(*held.rbegin(), std::pair(Tile::kRows - 1, Tile::kKeys - 1));
}

// Rows have values of their own, so that a lane of another row would be seen.
template <class Tile>
void expect_reductions_over_rows() {
  in_every_lane<Tile>([&](const Tile& tile) {
    for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const float row = static_cast<float>(1000 * tile.row(slot));
      const float lane = static_cast<float>(tile.first_key());  // one lane of each row has it
      constexpr int kLanes = Tile::kKeys / Tile::kRun;
      EXPECT_EQ(tile.max_of_row(row + lane), row + Tile::kRun * (kLanes - 1));
      EXPECT_EQ(tile.sum_of_row(row + lane), kLanes * row + Tile::kRun * kLanes * (kLanes - 1) / 2);
    }
  });
}

TYPED_TEST(EveryTile, HoldsEachScoreOnce) { expect_each_score_once<TypeParam>(); }
TYPED_TEST(EveryTile, ReducesOverRows) { expect_reductions_over_rows<TypeParam>(); }
TYPED_TEST(EveryPlainTile, HoldsEachScoreOnce) { expect_each_score_once<TypeParam>(); }
TYPED_TEST(EveryPlainTile, ReducesOverRows) { expect_reductions_over_rows<TypeParam>(); }

}  // namespace
}  // namespace kernels::hip
