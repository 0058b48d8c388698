// tests/runtime/cli/bench/memory_test.cpp: memory that problems need, and the copies of cold runs
#include "cli/bench/memory.hpp"

#include <gtest/gtest.h>

namespace attnrt::cli::bench {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();

core::Problem problem() {
  core::Problem p = core::default_problem();
  p.batch = 2, p.heads_q = 4, p.heads_kv = 2, p.seq_q = 8, p.seq_kv = 10;
  p.head_dim = 16, p.head_dim_v = 24;
  return p;
}

// All tensors count, and out twice: outputs are compared with a copy.
TEST(BenchMemory, IsTheSumOfAllTensors) {
  core::Problem p = problem();
  const int64_t dense = 4 * (2 * 8 * 4 * (16 + 24 + 24) + 2 * 10 * 2 * (16 + 24));
  EXPECT_EQ(bytes_needed({p}), dense);
  p.mask = ATTNRT_MASK_ADDITIVE;
  p.mask_dtype = p.dtype;
  EXPECT_EQ(bytes_needed({p}), dense + 8 * 10 * 4);
  p.lse = 1;
  EXPECT_EQ(bytes_needed({p}), dense + 8 * 10 * 4 + 2 * 4 * 8 * 4);
  p = problem();
  p.kv_dtype = {ATTNRT_DTYPE_INT, 8, 1};
  p.kv_scale = ATTNRT_KV_SCALE_TOKEN;
  EXPECT_EQ(bytes_needed({p}), 4 * 2 * 8 * 4 * (16 + 24 + 24) + 2 * 10 * 2 * (16 + 24 + 2 * 4));
  p = problem();
  p.v_in_k = 1, p.head_dim_v = 8, p.dtype = {ATTNRT_DTYPE_BFLOAT, 16, 1};
  p.out_dtype = {ATTNRT_DTYPE_FLOAT, 32, 1};
  EXPECT_EQ(bytes_needed({p}), 2 * 8 * 4 * (2 * 16 + 4 * (8 + 8)) + 2 * 2 * 10 * 2 * 16);
  p = problem();
  p.page_size = 7;  // two pages for 10 keys
  EXPECT_EQ(bytes_needed({p}), 4 * (2 * 8 * 4 * (16 + 24 + 24) + 2 * 14 * 2 * (16 + 24)));
  p.seq_kv = kLargest;
  EXPECT_EQ(bytes_needed({p}), kLargest);
}

// Packed rows and pages are as many as the sequences need; 3 sequences have 32, 2 and 2 keys.
TEST(BenchMemory, CountsSequencesOfDifferentLengths) {
  core::Problem p = problem();
  p.batch = 3, p.seq_kv = 32;
  p.varlen = 1;
  const auto bytes = [&p] { return bytes_needed({p, kernels::reference::Lengths::one_long}); };
  EXPECT_EQ(bytes(), 4 * ((8 + 2 + 2) * 4 * (16 + 24 + 24) + (32 + 2 + 2) * 2 * (16 + 24)));
  p.page_size = 16, p.kv_lengths = 1;
  EXPECT_EQ(bytes(), 4 * ((8 + 2 + 2) * 4 * (16 + 24 + 24) + (32 + 16 + 16) * 2 * (16 + 24)));
  p.varlen = 0;
  EXPECT_EQ(bytes(), 4 * (3 * 8 * 4 * (16 + 24 + 24) + (32 + 16 + 16) * 2 * (16 + 24)));
  p.page_size = 0;
  EXPECT_EQ(bytes(), bytes_needed({p})) << "a dense tensor has room for the longest one";
}

TEST(BenchMemory, MoreThanThereIsSaysHowMuch) {
  core::Problem p = problem();
  p.seq_q = 1 << 20;
  const int64_t needed = bytes_needed({p});
  EXPECT_TRUE(check_memory({p}, needed));
  const auto refused = check_memory({p}, needed - 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(refused.error().message,
            "its tensors need 2.0 GiB of memory, and 2.0 GiB are available");
}

TEST(BenchMemory, SomethingIsAvailableHere) { EXPECT_GT(bytes_available(), 1 << 20); }

TEST(ColdCopies, AreMoreThanACacheHoldsButBounded) {
  EXPECT_EQ(cold_copies(int64_t{1} << 30).count, 1);
  EXPECT_EQ(cold_copies(int64_t{512} << 20).count, 1);
  EXPECT_EQ(cold_copies((int64_t{512} << 20) - 1).count, 2);
  EXPECT_EQ(cold_copies(1 << 20).count, 512);
  EXPECT_TRUE(cold_copies(512 << 10).enough);
  EXPECT_EQ(cold_copies(512 << 10).count, 1024);
  for (const int64_t bytes : {0, 1, 1000, (512 << 10) - 1}) {
    EXPECT_LE(cold_copies(bytes).count, 1024);
    EXPECT_GE(cold_copies(bytes).count, 1);
  }
  EXPECT_FALSE(cold_copies((512 << 10) - 1).enough);
}

}  // namespace
}  // namespace attnrt::cli::bench
