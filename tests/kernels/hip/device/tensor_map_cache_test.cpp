// tests/kernels/hip/device/tensor_map_cache_test.cpp: tensor maps that were encoded before
#include "kernels/hip/device/tensor_map_cache.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace kernels::hip {
namespace {

TensorMapRequest request(uint64_t base) {
  return {64, reinterpret_cast<const void*>(base), 4, {128, 7, 6, 5}, {}, {64, 96, 1, 1}};
}

struct Map {
  unsigned char bytes[kTensorMapBytes];
};

// A cache, and an encoder that counts its calls and writes the base into the map.
class TensorMapCacheTest : public ::testing::Test {
 protected:
  bool get(const TensorMapRequest& of, Map* map) {
    return cache->get(of, map->bytes, [&](unsigned char* to) {
      ++encoded;
      for (uint32_t n = 0; n < kTensorMapBytes; n += sizeof of.base)
        std::memcpy(to + n, &of.base, sizeof of.base);
      return !refuses;
    });
  }
  // Whether the whole map is that of the request.
  static bool is_of(const Map& map, const TensorMapRequest& of) {
    for (uint32_t n = 0; n < kTensorMapBytes; n += sizeof of.base)
      if (std::memcmp(map.bytes + n, &of.base, sizeof of.base) != 0) return false;
    return true;
  }

  std::unique_ptr<TensorMapCache> cache = std::make_unique<TensorMapCache>();
  std::atomic<int> encoded{0};
  bool refuses = false;
};

TEST_F(TensorMapCacheTest, ARequestIsEncodedOnce) {
  Map first, again;
  ASSERT_TRUE(get(request(4096), &first));
  ASSERT_TRUE(get(request(4096), &again));
  EXPECT_EQ(encoded, 1);
  EXPECT_TRUE(is_of(first, request(4096)));
  EXPECT_TRUE(is_of(again, request(4096)));
}

TEST_F(TensorMapCacheTest, WhereTheMapGoesDoesNotCount) {
  TensorMapRequest elsewhere = request(4096);
  elsewhere.at = 192;
  Map map;
  ASSERT_TRUE(get(request(4096), &map) && get(elsewhere, &map));
  EXPECT_EQ(encoded, 1);
}

TEST_F(TensorMapCacheTest, AnythingElseThatDiffersIsAnotherMap) {
  const std::vector<std::function<void(TensorMapRequest&)>> changes = {
      [](TensorMapRequest& r) { r.base = reinterpret_cast<const void*>(uint64_t{8192}); },
      [](TensorMapRequest& r) { r.rank = 3; },
      [](TensorMapRequest& r) { r.size[0] = 1; },
      [](TensorMapRequest& r) { r.size[3] = 1; },
      [](TensorMapRequest& r) { r.stride[0] = 16; },
      [](TensorMapRequest& r) { r.stride[2] = 16; },
      [](TensorMapRequest& r) { r.box[0] = 32; },
      [](TensorMapRequest& r) { r.box[1] = 32; },
      [](TensorMapRequest& r) { r.box[3] = 32; },
  };
  for (size_t n = 0; n < changes.size(); ++n) {
    Map map;
    TensorMapRequest changed = request(4096);
    changes[n](changed);
    ASSERT_TRUE(get(request(4096), &map));
    encoded = 0;
    ASSERT_TRUE(get(changed, &map));
    EXPECT_EQ(encoded, 1) << n;
  }
}

TEST_F(TensorMapCacheTest, MapsOfOneLaunchStayBesideEachOther) {
  std::vector<TensorMapRequest> launch;
  for (const uint64_t base : {1 << 20, 1 << 21, 1 << 22}) {  // q, k and v
    for (const uint32_t rows : {1, 8, 64, 128, 176}) {
      launch.push_back(request(base));
      launch.back().box[1] = rows;
    }
  }
  for (int times = 0; times < 2; ++times) {
    for (const TensorMapRequest& of : launch) {
      Map map;
      ASSERT_TRUE(get(of, &map) && is_of(map, of));
    }
  }
  EXPECT_EQ(encoded, static_cast<int>(launch.size()));
}

TEST_F(TensorMapCacheTest, WhatIsBeyondTheRankDoesNotCount) {
  TensorMapRequest other = request(4096);
  other.size[4] = 9, other.stride[3] = 9, other.box[4] = 9;
  Map map;
  ASSERT_TRUE(get(request(4096), &map) && get(other, &map));
  EXPECT_EQ(encoded, 1);
}

TEST_F(TensorMapCacheTest, AMapThatCannotBeEncodedIsNotKept) {
  Map map;
  refuses = true;
  EXPECT_FALSE(get(request(4096), &map));
  refuses = false;
  EXPECT_TRUE(get(request(4096), &map));
  EXPECT_EQ(encoded, 2);
}

TEST_F(TensorMapCacheTest, MoreRequestsThanSlotsReplaceEachOther) {
  Map map;
  for (int round = 0; round < 2; ++round) {
    for (uint64_t n = 1; n <= 4 * TensorMapCache::kSlots; ++n) {
      ASSERT_TRUE(get(request(4096 * n), &map));
      ASSERT_TRUE(is_of(map, request(4096 * n))) << n;
    }
  }
}

TEST_F(TensorMapCacheTest, ThreadsNeverSeeAnothersMap) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t n = 0; n < 20000; ++n) {
        const TensorMapRequest of = request(4096 * ((n * (t + 1)) % 700 + 1));
        Map map;
        if (!get(of, &map) || !is_of(map, of)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace kernels::hip
