// tests/kernels/cpu/kv_types_test.cpp: stored types, their scales, values in keys, out's type
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/half.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

constexpr DType kStored[] = {DType::i8, DType::f8_e4m3fn, DType::f8_e4m3fnuz};
constexpr KvScale kScales[] = {KvScale::none, KvScale::tensor, KvScale::head, KvScale::token};

class CpuKvTypes : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, CpuKvTypes, testing::Values(DType::f32, DType::f16, DType::bf16));

// One key whose score is 0 and whose value holds every code: its weight is exactly 1, so out is the
// value. A NaN stays in its column.
TEST_P(CpuKvTypes, EveryCodeIsConvertedExactly) {
  for (const DType stored : kStored) {
    for (const int64_t seq_q : {1, 40}) {  // decode and prefill
      Recipe r = dense_recipe(GetParam(), seq_q, 1, 8, 256);
      r.problem.heads_q = r.problem.heads_kv = 1;
      r.problem.kv_dtype = stored;
      if (GetParam() != DType::f32) r.problem.out_dtype = DType::f32;
      Case c(r);
      std::fill_n(static_cast<char*>(c.args.q.data), seq_q * 8 * element_bytes(GetParam()), '\0');
      for (int n = 0; n < 256; ++n)
        static_cast<uint8_t*>(c.args.v.data)[n] = static_cast<uint8_t>(n);
      for (const cpu::Target* target : targets()) {
        SCOPED_TRACE(cpu::target_name(*target));
        c.poison_outputs();
        cpu::Error error;
        ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
        for (int64_t n = 0; n < 256 * seq_q; ++n) {
          const float want = load_float(stored, c.args.v.data, n % 256);
          const float found = static_cast<const float*>(c.args.out.data)[n];
          if (std::isnan(want)) {
            EXPECT_TRUE(std::isnan(found)) << n % 256;
          } else {
            EXPECT_EQ(found, want) << n % 256;
          }
        }
      }
    }
  }
}

// Each type with each kind of scale, in each layout. What lies past a length is NaN, in k, v and
// scales (Case): none of it may reach a row.
TEST_P(CpuKvTypes, ScalesAndLayouts) {
  for (const DType stored : kStored) {
    for (const KvScale scale : kScales) {
      for (const int layout : {0, 1, 2}) {
        Recipe r = dense_recipe(GetParam(), 21, 300, 72, 40);
        r.problem.kv_dtype = stored;
        r.problem.kv_scale = scale;
        r.problem.heads_q = 4;
        r.problem.kv_lengths = true;
        r.problem.varlen = layout == 1;
        r.problem.page_size = layout == 2 ? 16 : 0;
        r.batch = 2;
        r.q_lengths = {21, 1};
        r.kv_lengths = {300, 33};
        expect_right(r);
      }
    }
  }
}

TEST_P(CpuKvTypes, Decode) {
  for (const DType stored : kStored) {
    for (const KvScale scale : kScales) {
      Recipe r = dense_recipe(GetParam(), 1, 700, 128, 100);
      r.problem.kv_dtype = stored;
      r.problem.kv_scale = scale;
      r.problem.heads_q = 14;
      r.problem.kv_lengths = true;
      r.batch = 3;
      r.kv_lengths = {700, 0, 129};
      expect_right(r);
    }
  }
}

// Values in keys: fewer columns, as many; stored in q's type or in 8 bits.
TEST_P(CpuKvTypes, ValuesInKeys) {
  for (const DType stored : {DType::unknown, DType::i8, DType::f8_e4m3fn}) {
    for (const int64_t head_dim_v : {1, 31, 64, 72}) {
      for (const int64_t seq_q : {1, 33}) {
        Recipe r = dense_recipe(GetParam(), seq_q, 300, 72, head_dim_v);
        r.problem.v_in_k = true;
        r.problem.kv_dtype = stored;
        if (stored != DType::unknown) r.problem.kv_scale = KvScale::token;
        r.problem.heads_q = 6;
        r.problem.causal = true;
        expect_right(r);
      }
    }
  }
}

// A row that sees one key, or one that outweighs all others, has no error of weights for a plain
// evaluation, so that a wide out shows any.
TEST_P(CpuKvTypes, WideOut) {
  if (GetParam() == DType::f32) return;
  for (const KvScale scale : kScales) {
    for (const int64_t seq_kv : {1, 2, 33, 300}) {
      for (const float magnitude : {1.0f, 5.0f, 60.0f}) {
        Recipe r = dense_recipe(GetParam(), 70, seq_kv, 32, 24);
        r.problem.out_dtype = DType::f32;
        r.magnitude = magnitude;
        if (scale != KvScale::none) r.problem.kv_dtype = DType::f8_e4m3fn;
        r.problem.kv_scale = scale;
        r.problem.causal = seq_kv == 300;
        r.problem.sinks = seq_kv == 33;
        expect_right(r);
      }
    }
  }
}

TEST_P(CpuKvTypes, DiagonalOffsets) {
  for (const int64_t seq_q : {1, 70}) {
    for (const bool alibi : {false, true}) {
      Recipe r = dense_recipe(GetParam(), seq_q, 300, 16, 16);
      r.problem.diagonal_offset = r.problem.causal = true;
      r.problem.window_left = 40;
      r.problem.alibi = alibi;
      r.batch = 7;
      r.diagonal_offsets = {0, -1, 5, -310, 310, INT32_MIN, INT32_MAX};
      expect_right(r);
      r.problem.causal = false;
      r.problem.window_left = -1;
      expect_right(r);
    }
  }
}

}  // namespace
}  // namespace kernels::test
