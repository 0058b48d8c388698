// tests/kernels/hip/launch/family_test.cpp: which tile serves an architecture
#include "kernels/hip/launch/family.hpp"

#include <gtest/gtest.h>

namespace kernels::hip {
namespace {

TEST(Family, FollowsFromTheArchitecture) {
  for (const char* arch : {"sm_80", "sm_90", "sm_120", "compute_80"})
    EXPECT_EQ(family_of(arch), Family::mma_sm80) << arch;
  EXPECT_EQ(family_of("sm_90a"), Family::wgmma_sm90);
  EXPECT_EQ(family_of("gfx1100"), Family::wmma_gfx11);
  EXPECT_EQ(family_of("gfx1201"), Family::wmma_gfx12);
  EXPECT_EQ(family_of("gfx90a"), Family::mfma);
  EXPECT_EQ(family_of("gfx906"), Family::valu64);
  EXPECT_EQ(family_of("gfx1030"), Family::valu32);
}

TEST(Family, TilesOf16BitsFitTheWorkgroupMemoryOfEveryNvidiaDevice) {
  constexpr uint32_t kLeast = 99 << 10;  // of sm_86, sm_89 and sm_120
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const int dim : kDims) {
      const TileFacts tile = tile_facts(Family::mma_sm80, dtype, dim);
      EXPECT_LE(tile.shared_bytes, kLeast) << dim;
      EXPECT_LE(tile.qk_shared_bytes, kLeast) << dim;
    }
  }
}

}  // namespace
}  // namespace kernels::hip
