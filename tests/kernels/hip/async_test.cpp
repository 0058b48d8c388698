// tests/kernels/hip/async_test.cpp: copies, mbarriers and named barriers do what a GPU does, and
// each misuse is found
#include "kernels/hip/async.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

namespace gpu {
namespace {

constexpr uint32_t kSeeds = 12;

// Runs a kernel as one workgroup.
void run(uint32_t threads, uint32_t bytes, uint32_t seed, const std::function<void()>& kernel) {
  host::run({{1, 1, 1}, threads, bytes, seed}, kernel);
}

// Creates an mbarrier, in a workgroup of any size.
void create(uint32_t at, uint32_t arrivals) {
  if (thread() == 0) {
    mbarrier_init(at, arrivals);
    mbarrier_init_fence();
  }
  barrier();
}

// A tensor of elements that all differ.
struct Numbers {
  std::vector<uint16_t> elements;
  host::Tensor tensor;
  TensorMap map;

  Numbers(std::vector<uint64_t> size, std::vector<uint32_t> box) : tensor{} {
    tensor.rank = static_cast<uint32_t>(size.size());
    uint64_t stride = 1;
    for (uint32_t d = 0; d < tensor.rank; ++d) {
      tensor.size[d] = size[d];
      tensor.box[d] = box[d];
      if (d > 0) tensor.stride[d - 1] = stride * 2;
      stride = d == 0 ? (size[0] + 7) / 8 * 8 : stride * size[d];
    }
    elements.resize(stride);
    for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<uint16_t>(i + 1);
    tensor.base = elements.data();
    host::encode(tensor, &map);
  }

  // RETURNS an element; 0 outside.
  uint16_t at(const int64_t (&place)[5]) const {
    uint64_t index = 0;
    for (uint32_t d = 0; d < tensor.rank; ++d) {
      if (place[d] < 0 || place[d] >= static_cast<int64_t>(tensor.size[d])) return 0;
      index += static_cast<uint64_t>(place[d]) * (d == 0 ? 1 : tensor.stride[d - 1] / 2);
    }
    return elements[index];
  }
};

// RETURNS an element of a box with rows of 128 or 64 bytes.
uint16_t element_at(uint32_t to, uint32_t row, uint32_t column, uint32_t row_bytes = 128) {
  const uint32_t chunk = column / 8 ^ (row_bytes == 128 ? row % 8 : row / 2 % 4);
  return shared_load<uint16_t>(to + row * row_bytes + chunk * 16 + column % 8 * 2);
}

// Copies the box at a place, and compares it with plain loops.
template <int kRank>
void expect_copied(const Numbers& numbers, const int32_t (&place)[kRank], uint32_t seed) {
  const host::Tensor& t = numbers.tensor;
  uint32_t rows = 1;
  for (uint32_t d = 1; d < t.rank; ++d) rows *= t.box[d];
  const uint32_t row_bytes = t.box[0] * 2, bytes = rows * row_bytes,
                 mbarrier = 1024 + (bytes + 7) / 8 * 8;
  run(32, mbarrier + 8, seed, [&] {
    create(mbarrier, 1);
    if (thread() == 0) {
      mbarrier_arrive_expect(mbarrier, bytes);
      copy_tile(1024, numbers.map, mbarrier, place);
    }
    mbarrier_wait(mbarrier, 0);
    if (thread() != 9) return;
    EXPECT_EQ(shared_load<uint16_t>(1022), 0xFFFF);
    for (uint32_t row = 0; row < rows; ++row) {
      for (uint32_t column = 0; column < t.box[0]; ++column) {
        int64_t at[5] = {place[0] + column};
        for (uint32_t d = 1, rest = row; d < t.rank; rest /= t.box[d++])
          at[d] = place[d] + rest % t.box[d];
        ASSERT_EQ(element_at(1024, row, column, row_bytes), numbers.at(at))
            << row << ", " << column;
      }
    }
  });
}

TEST(CopyTile, BringsAnyBoxAndZerosOutside) {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    expect_copied<1>(Numbers({300}, {64}), {17}, seed);
    const Numbers plane({128, 40}, {64, 24});
    expect_copied<2>(plane, {64, 8}, seed);
    expect_copied<2>(plane, {100, 30}, seed);
    expect_copied<2>(plane, {-3, -5}, seed);
    expect_copied<2>(plane, {128, 0}, seed);
    expect_copied<2>(plane, {0, -24}, seed);
    const Numbers narrow({96, 40}, {32, 24});
    expect_copied<2>(narrow, {64, 20}, seed);
    expect_copied<2>(narrow, {-8, -1}, seed);
    expect_copied<3>(Numbers({40, 3, 50}, {64, 3, 8}), {0, 0, 45}, seed);
    expect_copied<4>(Numbers({96, 20, 4, 3}, {64, 16, 1, 1}), {64, 10, 3, 1}, seed);
    expect_copied<5>(Numbers({72, 5, 3, 4, 2}, {64, 2, 3, 2, 2}), {8, 3, 0, -1, 0}, seed);
  }
}

// What a thread reads before the copy is complete depends on when it is: the model shows both.
TEST(CopyTile, CompletesAtOnceOrWhenAThreadWaits) {
  const Numbers numbers({64, 8}, {64, 8});
  int early = 0, late = 0;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(1, 2048, seed, [&] {
      create(1024, 1);
      mbarrier_arrive_expect(1024, 1024);
      copy_tile(0, numbers.map, 1024, {0, 0});
      ++(element_at(0, 3, 5) == 0xFFFF ? late : early);
      mbarrier_wait(1024, 0);
      EXPECT_EQ(element_at(0, 3, 5), 3 * 64 + 5 + 1);
    });
  }
  EXPECT_GT(early, 0);
  EXPECT_GT(late, 0);
}

// One wave brings tiles in two stages, and two others add them up.
TEST(Mbarriers, HandStagesFromAProducerToConsumers) {
  constexpr uint32_t kFull = 2048, kEmpty = 2064, kSteps = 7;
  const Numbers numbers({64, 8 * kSteps}, {64, 8});
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<uint64_t> sums(96);
    run(96, 4096, seed, [&] {
      if (thread() == 0) {
        for (const uint32_t stage : {0u, 1u}) {
          mbarrier_init(kFull + 8 * stage, 1);
          mbarrier_init(kEmpty + 8 * stage, 2);
        }
        mbarrier_init_fence();
      }
      barrier();
      for (uint32_t step = 0; step < kSteps; ++step) {
        const uint32_t stage = step % 2, parity = step / 2 % 2;
        if (thread() == 0) {
          mbarrier_wait(kEmpty + 8 * stage, parity ^ 1);
          mbarrier_arrive_expect(kFull + 8 * stage, 1024);
          copy_tile(stage * 1024, numbers.map, kFull + 8 * stage,
                    {0, static_cast<int32_t>(step) * 8});
        } else if (thread() >= 32) {
          mbarrier_wait(kFull + 8 * stage, parity);
          for (uint32_t i = thread() % 32; i < 512; i += 32)
            sums[thread()] += shared_load<uint16_t>(stage * 1024 + i * 2);
          wave_barrier(32);
          if (thread() % 32 == 0) mbarrier_arrive(kEmpty + 8 * stage);
        }
      }
    });
    for (const uint32_t wave : {1u, 2u}) {
      uint64_t sum = 0;
      for (uint32_t lane = 0; lane < 32; ++lane) sum += sums[wave * 32 + lane];
      const uint64_t n = 512 * kSteps;
      EXPECT_EQ(sum, n * (n + 1) / 2);
    }
  }
}

// Two pairs of waves take turns. The first is let in by its own arrival.
TEST(NamedBarriers, LetGroupsTakeTurns) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<uint32_t> order;
    run(128, 16, seed, [&] {
      const uint32_t me = thread() / 64;
      if (me == 0) named_barrier_arrive(1, 128);
      for (int turn = 0; turn < 5; ++turn) {
        named_barrier_wait(1 + me, 128);
        order.push_back(me);
        named_barrier_arrive(1 + (me ^ 1), 128);
      }
    });
    ASSERT_EQ(order.size(), 640u);
    for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], i / 64 % 2) << i;
  }
}

// ---- Misuse ----

// Runs a kernel of one wave with 4 KiB under many orders, an mbarrier at 2048 and a map of
// 64 x 8 elements in place.
void misuse(uint32_t arrivals, const std::function<void(const TensorMap&)>& kernel,
            uint32_t threads = 32) {
  const Numbers numbers({64, 8}, {64, 8});
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(threads, 4096, seed, [&] {
      create(2048, arrivals);
      kernel(numbers.map);
    });
  }
}

TEST(MbarriersDeathTest, AreCreatedOnceAndBeforeTheirUse) {
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { mbarrier_wait(2056, 0); }),
               "there is no mbarrier at offset 2056");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { create(2048, 1); }),
               "there is an mbarrier at offset 2048 already");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { create(2052, 1); }),
               "an mbarrier cannot be at offset 2052");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { create(2056, 0); }),
               "an mbarrier cannot count 0 arrivals");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        if (thread() == 31) mbarrier_init(2056, 1);
                        mbarrier_wait(2056, 1);
                      }),
               "thread 0 of .*no barrier\\(\\) since thread 31 created it");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap& map) {
                        if (thread() != 1) return;
                        mbarrier_init(2056, 1);
                        mbarrier_arrive_expect(2056, 1024);
                        copy_tile(0, map, 2056, {0, 0});
                      }),
               "no mbarrier_init_fence\\(\\) since the mbarrier at offset 2056 was created");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        shared_store<uint32_t>(2052, 7);
                        mbarrier_arrive(2048);
                      }),
               "the mbarrier at offset 2048 has been overwritten");
}

TEST(MbarriersDeathTest, CountArrivals) {
  EXPECT_DEATH(
      misuse(2,
             [](const TensorMap&) {
               if (thread() == 0) mbarrier_arrive(2048);
               mbarrier_wait(2048, 0);
             }),
      "threads 0 to 31: waiting for phase 0 \\(parity 0\\) of the mbarrier at offset 2048, "
      "which lacks 1 of 2 arrivals and copies of 0 bytes");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        if (thread() < 2) mbarrier_arrive_expect(2048, 64);
                      }),
               "an arrival too many: phase 0 .* lacks 0 of 1 arrivals and copies of .* bytes");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        if (thread() < 2) mbarrier_arrive(2048);
                      }),
               "phase 1 of the mbarrier at offset 2048 completes, and no thread has waited for the "
               "phase before");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        create(2056, 100);
                        if (thread() == 0) {
                          for (int i = 0; i < 50; ++i) mbarrier_arrive(2056);  // the others run
                          mbarrier_arrive(2048);
                        }
                        mbarrier_wait(2048, 0);
                        if (thread() == 0) mbarrier_arrive(2048);
                      }),
               "phase 1 of the mbarrier at offset 2048 completes, and thread .* has not yet seen "
               "that the phase before did");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { mbarrier_wait(2048, 2); }),
               "waits for parity 2 of the mbarrier at offset 2048");
}

TEST(MbarriersDeathTest, CountBytes) {
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap& map) {
                        if (thread() != 0) return;
                        mbarrier_arrive_expect(2048, 1000);
                        copy_tile(0, map, 2048, {0, 0});
                      }),
               "1024 bytes, but the mbarrier at offset 2048 expects 1000 more");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap& map) {
                        if (thread() == 0) {
                          mbarrier_arrive_expect(2048, 1040);
                          copy_tile(0, map, 2048, {0, 0});
                        }
                        mbarrier_wait(2048, 0);
                      }),
               "lacks 0 of 1 arrivals and copies of 16 bytes");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { mbarrier_arrive_expect(2048, 1 << 20); }),
               "the mbarrier at offset 2048 cannot expect 1048576 bytes");
}

TEST(CopyTileDeathTest, HasItsDestinationToItself) {
  // Another copy.
  EXPECT_DEATH(
      misuse(1,
             [](const TensorMap& map) {
               if (thread() != 0) return;
               mbarrier_arrive_expect(2048, 2048);
               copy_tile(0, map, 2048, {0, 0});
               copy_tile(0, map, 2048, {0, 0});
               mbarrier_wait(2048, 0);
             }),
      "copy_tile: to offset 0, which a copy may be writing: it has not waited for phase 0 of the "
      "mbarrier at offset 2048");
  // A thread.
  EXPECT_DEATH(
      misuse(1,
             [](const TensorMap& map) {
               if (thread() != 0) return;
               mbarrier_arrive_expect(2048, 1024);
               copy_tile(0, map, 2048, {0, 0});
               shared_store<uint16_t>(1022, 7);
               mbarrier_wait(2048, 0);
             }),
      "stores to offset 1022, which a copy may be writing: it has not waited for phase 0 of the "
      "mbarrier at offset 2048");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap& map) {
                        shared_store<uint16_t>(2 * thread(), 7);
                        if (thread() % 2 == 0) fence_async_proxy();
                        barrier();
                        if (thread() != 0) return;
                        mbarrier_arrive_expect(2048, 1024);
                        copy_tile(0, map, 2048, {0, 0});
                      }),
               "to offset 0, where thread .* stored without fence_async_proxy\\(\\)");
}

TEST(CopyTile, MayOverwriteWhatThreadsFenced) {
  misuse(1, [](const TensorMap& map) {
    shared_store<uint16_t>(2 * thread(), 7);
    fence_async_proxy();
    barrier();
    if (thread() == 0) {
      mbarrier_arrive_expect(2048, 1024);
      copy_tile(0, map, 2048, {0, 0});
    }
    mbarrier_wait(2048, 0);
    EXPECT_EQ(element_at(0, 0, 3), 4);
  });
}

TEST(CopyTileDeathTest, TakesWhatTheHardwareTakes) {
  const auto copy = [](uint32_t to, const TensorMap& map) {
    if (thread() != 0) return;
    mbarrier_arrive_expect(2048, 1024);
    copy_tile(to, map, 2048, {0, 0});
  };
  EXPECT_DEATH(misuse(1, [&](const TensorMap& map) { copy(64, map); }),
               "1024 bytes cannot go to offset 64");
  EXPECT_DEATH(misuse(1, [&](const TensorMap& map) { copy(4096, map); }),
               "1024 bytes cannot go to offset 4096");
  EXPECT_DEATH(misuse(1, [&](const TensorMap&) { copy(0, TensorMap{}); }),
               "the map has not been encoded");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap& map) {
                        if (thread() != 0) return;
                        mbarrier_arrive_expect(2048, 1024);
                        copy_tile(0, map, 2048, {0, 0, 0});
                      }),
               "3 places in a tensor of rank 2");
  EXPECT_DEATH(misuse(1, [&](const TensorMap& map) { copy(0, map); }),
               "the workgroup ends while a copy to offset 0 is in flight");
}

TEST(NamedBarriersDeathTest, AreOfWholeWaves) {
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { named_barrier_wait(0, 32); }), "ids are 1 to 15");
  EXPECT_DEATH(misuse(1, [](const TensorMap&) { named_barrier_wait(16, 32); }), "ids are 1 to 15");
  EXPECT_DEATH(misuse(
                   1, [](const TensorMap&) { named_barrier_wait(1, 48); }, 64),
               "48 threads are not whole waves of a workgroup of 64");
  EXPECT_DEATH(misuse(
                   1, [](const TensorMap&) { named_barrier_wait(1, 96); }, 64),
               "96 threads are not whole waves of a workgroup of 64");
  EXPECT_DEATH(misuse(
                   1, [](const TensorMap&) { named_barrier_wait(1, 32 + thread() / 32 * 32); }, 64),
               "named barrier 1: .* threads, where others say");
  EXPECT_DEATH(misuse(
                   1,
                   [](const TensorMap&) {
                     if (thread() < 32) named_barrier_wait(3, 64);
                   },
                   64),
               "threads 0 to 31: waiting for named barrier 3: 32 of 64 threads have come\n"
               "  threads 32 to 63: ended");
  EXPECT_DEATH(misuse(1,
                      [](const TensorMap&) {
                        if (thread() != 3) named_barrier_wait(3, 32);
                      }),
               "threads 4 to 31: waiting for the others of threads 0 to 31, of which 31 have come");
}

TEST(EncodeDeathTest, RefusesWhatTheDriverRefuses) {
  const Numbers numbers({64, 8}, {64, 8});
  TensorMap map;
  const auto changed = [&](const std::function<void(host::Tensor&)>& change) {
    host::Tensor tensor = numbers.tensor;
    change(tensor);
    host::encode(tensor, &map);
  };
  using T = host::Tensor;
  EXPECT_DEATH(changed([](T& t) { t.rank = 6; }), "the rank is not 1 to 5");
  EXPECT_DEATH(changed([](T& t) { t.base = static_cast<const char*>(t.base) + 8; }),
               "the base is not aligned to 16");
  EXPECT_DEATH(changed([](T& t) { t.size[1] = 0; }), "a size is not 1 to 2\\^32");
  EXPECT_DEATH(changed([](T& t) { t.stride[0] = 24; }), "a stride is not a multiple of 16");
  EXPECT_DEATH(changed([](T& t) { t.stride[0] = 0; }), "a stride is 0");
  EXPECT_DEATH(changed([](T& t) { t.stride[0] = uint64_t{1} << 40; }), "2\\^40 or more");
  EXPECT_DEATH(changed([](T& t) { t.box[0] = 16; }), "the box's innermost size is not 64 or 32");
  EXPECT_DEATH(changed([](T& t) { t.box[1] = 257; }), "a size of the box is not 1 to 256");
}

}  // namespace
}  // namespace gpu
