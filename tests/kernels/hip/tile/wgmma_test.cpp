// tests/kernels/hip/tile/wgmma_test.cpp: a warpgroup's products are the plain ones, and each misuse
// is found
#include "kernels/hip/tile/wgmma.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <type_traits>
#include <vector>

namespace kernels::hip {
namespace {

constexpr uint32_t kSeeds = 6;
constexpr uint32_t kA = 0, kB = 8192, kBytes = kB + (64 + 4) * 1024;  // offsets in workgroup memory

void run(uint32_t threads, uint32_t seed, const std::function<void()>& kernel) {
  gpu::host::run({{1, 1, 1}, threads, kBytes, seed}, kernel);
}

template <class T>
uint16_t bits_of(float value) {
  return static_cast<uint16_t>(pack2(T{}, value, 0));
}

// Small numbers, whose sums are exact.
float a_value(int row, int k) { return static_cast<float>((row * 7 + k * 3) % 11 - 5); }
float b_value(int k, int n) { return static_cast<float>((k * 5 + n * 2) % 13 - 6); }
float product_at(int row, int n, int depth) {
  float sum = 0;
  for (int k = 0; k < depth; ++k) sum += a_value(row, k) * b_value(k, n);
  return sum;
}

// The calling thread's share of storing rows of 64 or 32 elements, their 16-byte chunks swizzled.
template <class T, int kElements = 64, class Value>
void store_rows(uint32_t to, int rows, const Value& value) {
  for (int row = static_cast<int>(gpu::thread()); row < rows; row += 128) {
    for (int column = 0; column < kElements; ++column) {
      const int chunk = column / 8 ^ (kElements == 64 ? row % 8 : row / 2 % 4);
      gpu::shared_store(
          to + static_cast<uint32_t>(row * kElements * 2 + chunk * 16 + column % 8 * 2),
          bits_of<T>(value(row, column)));
    }
  }
}
void show_stores() {
  gpu::fence_async_proxy();
  gpu::barrier();
}

// The lane's part of a matrix of 64 rows, as tile/wgmma.hpp draws it.
struct Place {
  int row, column;
};
Place place(int e) {
  const int lane = static_cast<int>(gpu::thread()) % 32,
            wave = static_cast<int>(gpu::thread()) / 32 % 4;
  return {16 * wave + lane / 4 + 8 * (e / 2 % 2), 8 * (e / 4) + 2 * (lane % 4) + e % 2};
}
// 16 columns of A from `first` on.
template <class T>
void load_a(int first, uint32_t (&a)[4]) {
  for (int i = 0; i < 4; ++i) {
    const Place low = place(2 * i), high = place(2 * i + 1);
    a[i] = pack2(T{}, a_value(low.row, first + low.column), a_value(high.row, first + high.column));
  }
}

template <int n>
void fill(float (&d)[n], float value) {
  for (float& x : d) x = value;
}

template <class Wgmma>
class Products : public testing::Test {};
using EveryProduct =
    testing::Types<Wgmma<F16, 32>, Wgmma<F16, 64>, Wgmma<F16, 80>, Wgmma<F16, 96>, Wgmma<F16, 112>,
                   Wgmma<F16, 128>, Wgmma<F16, 192>, Wgmma<F16, 256>, Wgmma<BF16, 64>,
                   Wgmma<BF16, 80>, Wgmma<BF16, 256>>;
TYPED_TEST_SUITE(Products, EveryProduct);

template <class Wgmma>
struct Of;
template <class Type, int kWidth>
struct Of<Wgmma<Type, kWidth>> {
  using T = Type;
  static constexpr int kColumns = kWidth;
};

// Both operands K-major, 64 deep: four products.
TYPED_TEST(Products, OfWorkgroupMemoryAreThePlainOnes) {
  using T = typename Of<TypeParam>::T;
  constexpr int kColumns = Of<TypeParam>::kColumns;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(128, seed, [&] {
      store_rows<T>(kA, 64, a_value);
      store_rows<T>(kB, kColumns, [](int n, int k) { return b_value(k, n); });
      show_stores();
      typename TypeParam::Accumulator d;
      fill(d, seed % 2 == 0 ? 3.0F : NAN);
      wgmma_fence();
      for (uint32_t i = 0; i < 4; ++i) {
        TypeParam::multiply(d, matrix_descriptor(kA, 16, 1024) + i * 2,
                            matrix_descriptor(kB, 16, 1024) + i * 2, seed % 2 == 0 || i > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      for (int e = 0; e < kColumns / 2; ++e) {
        const auto [row, n] = place(e);
        ASSERT_EQ(d[e], product_at(row, n, 64) + (seed % 2 == 0 ? 3.0F : 0.0F)) << row << ", " << n;
      }
    });
  }
}

// A in registers, B MN-major in panels of 64 columns, 32 deep: two products.
TYPED_TEST(Products, OfRegistersAreThePlainOnes) {
  using T = typename Of<TypeParam>::T;
  constexpr int kColumns = Of<TypeParam>::kColumns, kDepth = 32;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(128, seed, [] {
      for (int panel = 0; panel < (kColumns + 63) / 64; ++panel) {
        store_rows<T>(kB + static_cast<uint32_t>(panel * kDepth * 128), kDepth,
                      [&](int k, int n) { return b_value(k, panel * 64 + n); });
      }
      show_stores();
      uint32_t a[2][4];
      load_a<T>(0, a[0]);
      load_a<T>(16, a[1]);
      typename TypeParam::Accumulator d;
      fill(d, 1);
      wgmma_fence();
      for (uint32_t i = 0; i < 2; ++i)
        TypeParam::multiply(d, a[i], matrix_descriptor(kB + i * 2048, kDepth * 128, 1024));
      wgmma_commit();
      wgmma_wait<0>();
      for (int e = 0; e < kColumns / 2; ++e) {
        const auto [row, n] = place(e);
        ASSERT_EQ(d[e], product_at(row, n, kDepth) + 1) << row << ", " << n;
      }
    });
  }
}

// A of workgroup memory in rows of 64 or 32 columns, B MN-major, 32 deep: two products.
TYPED_TEST(Products, OfWeightsInWorkgroupMemoryAreThePlainOnes) {
  using T = typename Of<TypeParam>::T;
  constexpr int kColumns = Of<TypeParam>::kColumns, kDepth = 32;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    const bool narrow = seed % 2 == 0;
    run(128, seed, [&] {
      for (int panel = 0; panel < (kColumns + 63) / 64; ++panel) {
        store_rows<T>(kB + static_cast<uint32_t>(panel * kDepth * 128), kDepth,
                      [&](int k, int n) { return b_value(k, panel * 64 + n); });
      }
      if (narrow) {
        store_rows<T, 32>(kA, 64, a_value);
      } else {
        store_rows<T>(kA, 64, a_value);
      }
      show_stores();
      typename TypeParam::Accumulator d;
      fill(d, 1);
      wgmma_fence();
      for (uint32_t i = 0; i < 2; ++i) {
        TypeParam::multiply_weights(d,
                                    narrow ? matrix_descriptor<64>(kA + i * 32, 16, 512)
                                           : matrix_descriptor(kA + i * 32, 16, 1024),
                                    matrix_descriptor(kB + i * 2048, kDepth * 128, 1024));
      }
      wgmma_commit();
      wgmma_wait<0>();
      for (int e = 0; e < kColumns / 2; ++e) {
        const auto [row, n] = place(e);
        ASSERT_EQ(d[e], product_at(row, n, kDepth) + 1) << row << ", " << n;
      }
    });
  }
}

// Panels of 32 columns: K-major, 32 deep, and MN-major.
TEST(NarrowPanels, GiveThePlainProduct) {
  using Wide = Wgmma<BF16, 96>;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(128, seed, [] {
      store_rows<BF16, 32>(kA, 64, a_value);
      store_rows<BF16, 32>(kB, 96, [](int n, int k) { return b_value(k, n); });
      const uint32_t transposed = kB + 96 * 64;
      for (int panel = 0; panel < 3; ++panel) {
        store_rows<BF16, 32>(transposed + static_cast<uint32_t>(panel) * 1024, 16,
                             [&](int k, int n) { return b_value(k, panel * 32 + n); });
      }
      show_stores();
      uint32_t a[4];
      load_a<BF16>(0, a);
      Wide::Accumulator s, o;
      fill(o, 0);
      wgmma_fence();
      for (uint32_t i = 0; i < 2; ++i)
        Wide::multiply(s, matrix_descriptor<64>(kA, 16, 512) + i * 2,
                       matrix_descriptor<64>(kB, 16, 512) + i * 2, i > 0);
      Wide::multiply(o, a, matrix_descriptor<64>(transposed, 1024, 512));
      wgmma_commit();
      wgmma_wait<0>();
      for (int e = 0; e < 48; ++e) {
        const auto [row, n] = place(e);
        ASSERT_EQ(s[e], product_at(row, n, 32)) << row << ", " << n;
        ASSERT_EQ(o[e], product_at(row, n, 16)) << row << ", " << n;
      }
    });
  }
}

// ---- Order ----

using Small = Wgmma<BF16, 64>;

// Fills A and B with numbers; all threads call it.
void store_operands() {
  store_rows<BF16>(kA, 64, a_value);
  store_rows<BF16>(kB, 64, [](int n, int k) { return b_value(k, n); });
  show_stores();
}
void multiply_shared(Small::Accumulator& d) {
  Small::multiply(d, matrix_descriptor(kA, 16, 1024), matrix_descriptor(kB, 16, 1024), true);
}
void multiply_registers(Small::Accumulator& d, const uint32_t (&a)[4]) {
  Small::multiply(d, a, matrix_descriptor(kB, 8192, 1024));
}

// D of a group is there after the wait that covers it, and not before.
TEST(Groups, AreThereAfterTheirWait) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(256, seed, [] {
      if (gpu::thread() < 128) {
        store_operands();
        return;
      }
      show_stores();
      Small::Accumulator s, o;
      fill(s, 0);
      fill(o, 0);
      wgmma_fence();
      multiply_shared(s);
      wgmma_commit();
      multiply_shared(o);
      multiply_shared(o);
      wgmma_commit();
      EXPECT_TRUE(std::isnan(s[0]));
      wgmma_wait<1>();
      for (int e = 0; e < 32; ++e) EXPECT_EQ(s[e], product_at(place(e).row, place(e).column, 16));
      EXPECT_TRUE(std::isnan(o[0]) && std::isnan(o[31]));
      wgmma_wait<0>();
      for (int e = 0; e < 32; ++e) EXPECT_EQ(o[e], 2 * s[e]);
      wgmma_fence();
      multiply_shared(s);
      wgmma_commit();
      wgmma_wait<0>();
      for (int e = 0; e < 32; ++e) EXPECT_EQ(s[e], o[e]);
    });
  }
}

// Which bytes of an operand a product reads depends on when it runs: the model shows both. (A store
// by gpu::shared_store would be refused.)
TEST(Groups, ReadTheirOperandsUntilTheWait) {
  int changed = 0;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(128, seed, [&] {
      store_operands();
      Small::Accumulator d;
      fill(d, 0);
      wgmma_fence();
      multiply_shared(d);
      wgmma_commit();
      gpu::barrier();  // all have issued it
      if (gpu::thread() == 3) *reinterpret_cast<uint16_t*>(gpu::shared(kA)) = bits_of<BF16>(100);
      gpu::barrier();
      wgmma_wait<0>();
      if (gpu::thread() == 0) changed += d[0] != product_at(0, 0, 16);
    });
  }
  EXPECT_GT(changed, 0);
  EXPECT_LT(changed, static_cast<int>(kSeeds));
}

// ---- Misuse ----

// Runs a kernel of one warpgroup under many orders. d is zero and a is A's first columns.
using Kernel = std::function<void(Small::Accumulator& d, uint32_t (&a)[4])>;
void misuse(const Kernel& kernel, uint32_t threads = 128) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    run(threads, seed, [&] {
      store_operands();
      Small::Accumulator d;
      uint32_t a[4];
      fill(d, 0);
      load_a<BF16>(0, a);
      kernel(d, a);
    });
  }
}
void finish() {
  wgmma_commit();
  wgmma_wait<0>();
}

TEST(ProductsDeathTest, NeedAFenceACommitAndAWait) {
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 multiply_shared(d);
                 finish();
               }),
               "no wgmma_fence\\(\\) since the last wgmma_wait\\(\\)");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 finish();
                 multiply_shared(d);
                 finish();
               }),
               "no wgmma_fence\\(\\) since the last wgmma_wait\\(\\)");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 wgmma_wait<0>();
               }),
               "no wgmma_commit\\(\\) since the last product");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 wgmma_commit();
                 wgmma_wait<1>();
               }),
               "ends without a wgmma_wait\\(\\) for its last products");
}

TEST(ProductsDeathTest, OwnTheirRegistersUntilTheWait) {
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 if (gpu::thread() == 77) d[5] = 1;
                 finish();
               }),
               "thread 77 of .*: wgmma_wait: D changed while a product was in flight");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 if (gpu::thread() == 77) d[5] = 1;
                 multiply_shared(d);
                 finish();
               }),
               "thread 77 of .*: wgmma: D changed while a product is in flight");
  EXPECT_DEATH(misuse([](auto& d, auto& a) {
                 wgmma_fence();
                 multiply_registers(d, a);
                 if (gpu::thread() == 77) a[3] = 0;
                 finish();
               }),
               "thread 77 of .*: wgmma_wait: A changed while a product was in flight");
}

// Found from the second product with the same registers on.
TEST(ProductsDeathTest, FindRegistersAsTheFenceLeftThem) {
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 for (int i = 0; i < 2; ++i) {
                   wgmma_fence();
                   d[3] += 1;
                   multiply_shared(d);
                   finish();
                 }
               }),
               "wgmma: D changed since the last wgmma_fence\\(\\)");
  EXPECT_DEATH(misuse([](auto& d, auto& a) {
                 for (int i = 0; i < 2; ++i) {
                   wgmma_fence();
                   a[3] ^= 1;
                   multiply_registers(d, a);
                   finish();
                 }
               }),
               "wgmma: A changed since the last wgmma_fence\\(\\)");
}

TEST(ProductsDeathTest, DoNotShareOperandsWithStores) {
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 if (gpu::thread() == 100) gpu::shared_store<uint16_t>(kB + 128, 0);
                 gpu::barrier();
                 wgmma_fence();
                 multiply_shared(d);
                 finish();
               }),
               "reads offset .*, where thread 100 stored without fence_async_proxy\\(\\)");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 multiply_shared(d);
                 wgmma_commit();
                 if (gpu::thread() == 100) gpu::shared_store<uint16_t>(kB + 128, 0);
                 wgmma_wait<0>();
               }),
               "stores to offset 8320, which a product of threads 0 to 127 may be reading");
}

// A workgroup of a warpgroup and a wave, with a map of zeros that fit B.
struct Copying {
  static constexpr uint32_t kFull = kBytes - 16, kEmpty = kBytes - 8;
  alignas(16) uint16_t elements[64 * 64] = {};
  gpu::TensorMap map;

  // Runs a kernel in every thread of it under many orders, with operands and mbarriers in place.
  void run_kernel(const std::function<void(Small::Accumulator& d)>& kernel) {
    gpu::host::encode(gpu::host::Tensor{elements, 2, {64, 64}, {128}, {64, 64}}, &map);
    for (uint32_t seed = 0; seed < kSeeds; ++seed) {
      run(160, seed, [&] {
        if (gpu::thread() == 128) {
          gpu::mbarrier_init(kFull, 1);
          gpu::mbarrier_init(kEmpty, 1);
          gpu::mbarrier_init_fence();
        }
        store_operands();
        Small::Accumulator d;
        fill(d, 0);
        kernel(d);
      });
    }
  }
  void copy() {
    gpu::mbarrier_arrive_expect(kFull, 8192);
    gpu::copy_tile(kB, map, kFull, {0, 0});
  }
};

// Thread 128 copies to B. It knows that the product is complete if a thread of the warpgroup has
// waited for the product before it arrived.
void copy_after_product(bool arrive_after_wait) {
  Copying copying;
  copying.run_kernel([&](auto& d) {
    if (gpu::thread() == 128) {
      gpu::mbarrier_wait(copying.kEmpty, 0);
      copying.copy();
      gpu::mbarrier_wait(copying.kFull, 0);
    }
    if (gpu::thread() >= 128) return;
    wgmma_fence();
    multiply_shared(d);
    wgmma_commit();
    if (gpu::thread() == 0 && !arrive_after_wait) gpu::mbarrier_arrive(copying.kEmpty);
    wgmma_wait<0>();
    if (gpu::thread() == 0 && arrive_after_wait) gpu::mbarrier_arrive(copying.kEmpty);
    EXPECT_EQ(d[0], product_at(place(0).row, place(0).column, 16));
  });
}

// The first `waiting` threads wait for a copy before the product that reads it.
void copy_before_product(uint32_t waiting) {
  Copying copying;
  copying.run_kernel([&](auto& d) {
    if (gpu::thread() == 128) copying.copy();
    gpu::barrier();  // the copy is in flight
    if (gpu::thread() < waiting) gpu::mbarrier_wait(copying.kFull, 0);
    if (gpu::thread() >= 128) return;
    wgmma_fence();
    multiply_shared(d);
    finish();
    EXPECT_EQ(d[0], 0);
  });
}

TEST(ProductsDeathTest, DoNotShareOperandsWithCopies) {
  copy_after_product(true);
  EXPECT_DEATH(copy_after_product(false),
               "thread 128 of .*: copy_tile: to offset 8192, which a product of threads 0 to 127 "
               "may be reading");
  copy_before_product(128);
  EXPECT_DEATH(copy_before_product(32),
               "wgmma: reads offset 8192, which a copy may be writing: it has not waited for phase "
               "0 of the mbarrier at offset");
}

TEST(ProductsDeathTest, AreTheSameInAllThreads) {
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 wgmma_fence();
                 const uint32_t offset = gpu::thread() == 9 ? kB + 1024 : kB;
                 Small::multiply(d, matrix_descriptor(kA, 16, 1024),
                                 matrix_descriptor(offset, 16, 1024), true);
                 finish();
               }),
               "another thread of its warpgroup issued another product in this place");
  EXPECT_DEATH(misuse([](auto& d, auto&) {
                 if (gpu::thread() == 9) return;
                 wgmma_fence();
                 multiply_shared(d);
                 finish();
               }),
               "waiting for wgmma product 0 of the warpgroup of thread 0, which 127 of 128 threads "
               "have issued");
  EXPECT_DEATH(misuse(
                   [](auto& d, auto&) {
                     wgmma_fence();
                     multiply_shared(d);
                     finish();
                   },
                   160),
               "its warpgroup has less than 128 threads");
}

TEST(ProductsDeathTest, OnTheSameRegistersHaveTheSameShape) {
  EXPECT_DEATH(misuse([](auto&, auto&) {
                 float d[40] = {};
                 wgmma_fence();
                 Wgmma<BF16, 80>::multiply(d, matrix_descriptor(kA, 16, 1024),
                                           matrix_descriptor(kB, 16, 1024), true);
                 multiply_shared(reinterpret_cast<Small::Accumulator&>(d));
                 finish();
               }),
               "D overlaps the D of a product in flight with other columns");
}

TEST(ProductsDeathTest, TakeWhatTheHardwareTakes) {
  const auto with = [](uint64_t a, uint64_t b) {
    misuse([=](auto& d, auto&) {
      wgmma_fence();
      Small::multiply(d, a, b, true);
      finish();
    });
  };
  const uint64_t a = matrix_descriptor(kA, 16, 1024), b = matrix_descriptor(kB, 16, 1024);
  EXPECT_DEATH(with(a, b & ~(uint64_t{1} << 62)),
               "is no descriptor of an operand with 128 or 64 bytes swizzled");
  EXPECT_DEATH(with(a + 8 * 9, b), "an operand begins at offset 1152");
  EXPECT_DEATH(with(a + 7, b), "an operand begins at offset 112");
  EXPECT_DEATH(with(a, matrix_descriptor(kB, 16, 512)), "groups of 8 rows 512");
  EXPECT_DEATH(with(a, matrix_descriptor(kBytes - 1024, 16, 1024)),
               "past the end of workgroup memory");
  EXPECT_DEATH(misuse([](auto& d, auto& registers) {
                 wgmma_fence();
                 Small::multiply(d, registers, matrix_descriptor(kB, 8192, 1024) + 2);
                 finish();
               }),
               "an operand begins at offset 8224, which is not the begin of 8 rows");
}

}  // namespace
}  // namespace kernels::hip
