// tests/kernels/cpu/numerics_test.cpp: numbers where attention kernels go wrong: huge, rising,
// infinite, NaN
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "kernels/common/half.hpp"
#include "kernels/cpu/attention.hpp"
#include "kernels/reference/expectation.hpp"
#include "tests/kernels/support/accuracy.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

class CpuNumerics : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, CpuNumerics, testing::Values(DType::f32, DType::f16, DType::bf16));

TEST_P(CpuNumerics, LowestFiniteMaskStaysFinite) {
  for (const DType mask_dtype : {DType::f32, GetParam()}) {
    for (const bool everything : {false, true}) {
      Recipe r = dense_recipe(GetParam(), 9, 300, 16, 16);
      r.problem.mask = Mask::additive;
      r.problem.mask_dtype = mask_dtype;
      r.hidden = Hidden::lowest;
      r.broadcast[3] = everything;  // a row is then lowest from end to end, or not at all
      expect_right(r);
    }
  }
}

TEST_P(CpuNumerics, HugeLogitsStayFinite) {
  for (const float magnitude : {30.0f, 100.0f}) {  // scores of several thousands, of up to 1e5
    Recipe r = dense_recipe(GetParam(), 70, 300, 64, 64);
    r.magnitude = magnitude;
    expect_right(r);
    r.problem.scale = -0.125f;
    r.problem.causal = true;
    expect_right(r);
  }
}

// One channel of q and k is large, as some are in language models. Weights depend on the last bit
// of k there, so the low parts of q and k must be multiplied with each other too.
TEST_P(CpuNumerics, OneLargeChannel) {
  for (const bool lse : {false, true}) {
    Recipe r = dense_recipe(GetParam(), 200, 300, 64, 64);
    r.problem.lse = lse;
    Case c(r);
    const auto set = [&](const Tensor& t, int64_t row, int64_t head, float value) {
      store_float(t.dtype, t.data, row * t.stride[1] + head * t.stride[2], value);
    };
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t i = 0; i < 200; ++i) set(c.args.q, i, head, 32.0f + 7.0f / 32);
      for (int64_t j = 0; j < 300; ++j)
        set(c.args.k, j, head, 32.0f + static_cast<float>(7 + j % 2) / 32);
    }
    expect_right(c);
  }
}

// Logits whose ulp is far above 1. Whichever key gets the weight, weights sum to 1, so values of 1
// give 1, and lse is about the largest logit.
TEST_P(CpuNumerics, LogitsBeyondAnyPrecision) {
  for (const int64_t seq_q : {3, 70}) {  // decode, and blocks of rows
    for (const float scale : {1e4f, 1e8f, 1e20f, 3e38f}) {
      Recipe r = dense_recipe(GetParam(), seq_q, 300, 64, 32);
      r.problem.scale = scale;
      Case c(r);
      for (int64_t n = 0; n < 300 * 2 * 32; ++n) store_float(c.problem.dtype, c.args.v.data, n, 1);
      for (const cpu::Target* target : targets()) {
        c.poison_outputs();
        cpu::Error error;
        ASSERT_EQ(run_once(c, *target, 2, &error), cpu::Status::ok) << error.message;
        for (int64_t n = 0; n < seq_q * 2 * 32; ++n) {
          const float out = load_float(c.problem.dtype, c.args.out.data, n);
          ASSERT_NEAR(out, 1, 0x1p-7)
              << cpu::target_name(*target) << ", scale " << scale << ", element " << n;
        }
        for (int64_t n = 0; n < seq_q * 2; ++n) {
          const Tensor& t = c.args.lse;
          const float lse =
              static_cast<const float*>(t.data)[n / seq_q * t.stride[1] + n % seq_q * t.stride[2]];
          ASSERT_TRUE(lse > scale / 1e3F)
              << cpu::target_name(*target) << ", scale " << scale << ": lse " << lse;
        }
      }
    }
  }
}

// The score of row i and key j is slope(i) * j, so the maximum rises in every chunk of a tile, by
// much, by little, or never. With sinks it may begin above all scores.
TEST_P(CpuNumerics, MaximaThatRiseFromChunkToChunk) {
  for (const float step : {0.02f, 0.5f, 4.0f, -0.5f}) {
    for (const bool sinks : {false, true}) {
      Recipe r = dense_recipe(GetParam(), 70, 600, 16, 24);
      r.problem.scale = 1;
      r.problem.sinks = sinks;
      r.problem.causal = true;
      Case c(r);
      c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
        const int64_t q = query_row(c.problem, c.args.q, s, b, i, head);
        for (int64_t x = 0; x < 16; ++x) {
          store_float(GetParam(), c.args.q.data, q + x,
                      x == 0 ? step * static_cast<float>(i % 5) : 0);
        }
      });
      for (int64_t j = 0; j < 600; ++j) {
        for (int64_t head = 0; head < 2; ++head) {
          const int64_t k = j * c.args.k.stride[1] + head * c.args.k.stride[2];
          store_float(GetParam(), c.args.k.data, k, static_cast<float>(j));
        }
      }
      expect_right(c);
    }
  }
}

// Values near the largest bf16, and a maximum that rises a little in later chunks. Sums of weights
// times values stay finite only if weights stay below 1.
TEST(CpuNumericsBf16, HugeValuesWhileTheMaximumRises) {
  for (const float rise : {4.0f, 5.0f, 40.0f}) {
    Recipe r = dense_recipe(DType::bf16, 70, 300, 16, 24);
    r.problem.scale = 1;
    Case c(r);
    const auto fill = [&](const Tensor& t, int64_t rows, int64_t columns, auto value) {
      for (int64_t j = 0; j < rows; ++j)
        for (int64_t head = 0; head < 2; ++head)
          for (int64_t x = 0; x < columns; ++x)
            store_float(t.dtype, t.data, j * t.stride[1] + head * t.stride[2] + x, value(j, x));
    };
    fill(c.args.q, 70, 16, [](int64_t, int64_t x) { return x == 0 ? 1.0f : 0.0f; });
    fill(c.args.k, 300, 16, [&](int64_t j, int64_t x) { return x == 0 && j >= 32 ? rise : 0.0f; });
    fill(c.args.v, 300, 24, [](int64_t, int64_t) { return 1e36f; });
    for (const cpu::Target* target : targets()) {
      c.poison_outputs();
      cpu::Error error;
      ASSERT_EQ(run_once(c, *target, 2, &error), cpu::Status::ok) << error.message;
      for (int64_t n = 0; n < 70 * 2 * 24; ++n) {
        ASSERT_NEAR(load_float(DType::bf16, c.args.out.data, n), 1e36, 1e34)
            << cpu::target_name(*target);
      }
    }
  }
}

// An infinite sink leaves no weight to finite scores, so out is zero.
TEST_P(CpuNumerics, InfiniteSinks) {
  Recipe r = dense_recipe(GetParam(), 70, 300, 16, 16);
  r.problem.sinks = true;
  r.problem.mask = Mask::boolean;
  r.hidden = Hidden::rows;
  Case c(r);
  for (int64_t head = 0; head < 2; ++head) {
    store_float(DType::f32, c.args.sinks.data, head * c.args.sinks.stride[0], INFINITY);
  }
  for (const cpu::Target* target : targets()) {
    c.poison_outputs();
    cpu::Error error;
    ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      const float out =
          load_float(GetParam(), c.args.out.data, query_row(c.problem, c.args.out, s, b, i, head));
      EXPECT_EQ(out, 0) << cpu::target_name(*target) << " row " << i;
    });
  }
}

void set_sinks(const Case& c, float value) {
  for (int64_t head = 0; head < c.problem.heads_q; ++head)
    store_float(DType::f32, c.args.sinks.data, head * c.args.sinks.stride[0], value);
}

// Calls f(out, lse, place) for each row, with the row's last value of out.
template <class Function>
void for_each_result(const Case& c, const Function& f) {
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
    const int64_t at = lse_element(c.problem, c.args.lse, s, b, i, head);
    f(load_float(c.problem.dtype, c.args.out.data, row + c.problem.head_dim_v - 1),
      static_cast<const float*>(c.args.lse.data)[at], i);
  });
}

// A NaN sink reaches every row, also one that sees nothing.
TEST_P(CpuNumerics, NanSinks) {
  const std::pair<int64_t, int64_t> shapes[] = {{70, 300}, {1, 300}, {1, 9000}, {70, 0}, {1, 0}};
  for (const auto& [seq_q, seq_kv] : shapes) {
    Recipe r = dense_recipe(GetParam(), seq_q, seq_kv, 16, 16);
    r.problem.sinks = true;
    r.problem.mask = Mask::boolean;
    r.hidden = Hidden::rows;
    Case c(r);
    set_sinks(c, NAN);
    for (const cpu::Target* target : targets()) {
      c.poison_outputs();
      cpu::Error error;
      ASSERT_EQ(run_once(c, *target, 2, &error), cpu::Status::ok) << error.message;
      for_each_result(c, [&](float out, float lse, int64_t i) {
        EXPECT_TRUE(std::isnan(out)) << cpu::target_name(*target) << " row " << i << ": " << out;
        EXPECT_TRUE(std::isnan(lse)) << cpu::target_name(*target) << " row " << i << ": " << lse;
      });
    }
  }
}

// A row whose scores all overflow to -inf is one that sees nothing.
TEST_P(CpuNumerics, ScoresThatOverflow) {
  if (GetParam() == DType::f16) return;  // products of f16 numbers are far from f32's limit
  for (const int64_t seq_q : {1, 70}) {
    for (const bool sinks : {false, true}) {
      Recipe r = dense_recipe(GetParam(), seq_q, 300, 16, 16);
      r.problem.sinks = sinks;
      Case c(r);
      for (int64_t n = 0; n < seq_q * 2 * 16; ++n)
        store_float(c.problem.dtype, c.args.q.data, n, 1e30F);
      for (int64_t n = 0; n < int64_t{300} * 2 * 16; ++n)
        store_float(c.problem.dtype, c.args.k.data, n, -1e30F);
      if (sinks) set_sinks(c, 0.5F);
      const auto expected = reference::expect(c.problem, c.args);
      for (const cpu::Target* target : targets()) {
        c.poison_outputs();
        cpu::Error error;
        ASSERT_EQ(run_once(c, *target, 2, &error), cpu::Status::ok) << error.message;
        expect_accurate(c, expected);
        for_each_result(c, [&](float out, float lse, int64_t i) {
          EXPECT_EQ(out, 0) << cpu::target_name(*target) << " row " << i;
          EXPECT_EQ(lse, sinks ? 0.5F : -INFINITY) << cpu::target_name(*target) << " row " << i;
        });
      }
    }
  }
}

// NaN in a visible key or value reaches the rows that see it, and no other row.
TEST_P(CpuNumerics, NanReachesExactlyTheRowsThatSeeIt) {
  constexpr int64_t kKey = 150;
  for (const bool in_value : {false, true}) {
    for (const cpu::Target* target : targets()) {
      Recipe r = dense_recipe(GetParam(), 200, 200, 16, 16);
      r.problem.causal = true;
      Case c(r);
      const Tensor& t = in_value ? c.args.v : c.args.k;
      store_float(t.dtype, t.data, kKey * t.stride[1] + 3, NAN);
      cpu::Error error;
      ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
      c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
        if (in_value && head == 0 && i < kKey)
          return;  // v of a hidden key must be finite; otherwise nothing is promised
        const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
        const bool nan = std::isnan(load_float(GetParam(), c.args.out.data, row + 3));
        EXPECT_EQ(nan, head == 0 && i >= kKey) << "row " << i << " head " << head;
      });
    }
  }
}

// Two keys of equal score: out is the mean of two numbers of the dtype. A float holds it exactly,
// so only the last rounding is left. The accuracy rule alone cannot tell truncation from rounding
// to nearest.
TEST_P(CpuNumerics, OutIsRoundedToNearestEven) {
  constexpr int64_t kColumns = 67;  // full vectors and a tail on every target
  Recipe r = dense_recipe(GetParam(), 1, 2, 4, kColumns);
  r.batch = 20;
  for (const cpu::Target* target : targets()) {
    Case c(r);
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      const int64_t q = query_row(c.problem, c.args.q, s, b, i, head);
      for (int64_t x = 0; x < 4; ++x) store_float(GetParam(), c.args.q.data, q + x, 0);
    });
    cpu::Error error;
    ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
    c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
      const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
      const int64_t v0 = key_row(c.problem, c.args, c.args.v, s, b, 0, head);
      const int64_t v1 = key_row(c.problem, c.args, c.args.v, s, b, 1, head);
      for (int64_t x = 0; x < kColumns; ++x) {
        const float mean = (load_float(GetParam(), c.args.v.data, v0 + x) +
                            load_float(GetParam(), c.args.v.data, v1 + x)) /
                           2;
        float want;
        store_float(GetParam(), &want, 0, mean);
        ASSERT_EQ(load_float(GetParam(), c.args.out.data, row + x),
                  load_float(GetParam(), &want, 0))
            << cpu::target_name(*target) << " column " << x << " mean " << mean;
      }
    });
  }
}

// Scores 0 and -y, values 0 and 1: out = exp(-y) / (1 + exp(-y)). So out shows the relative error
// of exp over its whole range, down to weights that are 0 because they are below the normal floats.
//
// The tolerance, with e = 2^-24: y log2(e) is rounded once, which exp turns into a relative error
// of e y log2(e). The constant log2(e) itself is rounded, which may add as much. Four more
// roundings are left for the polynomial, the sum and the division.
TEST(CpuNumericsF32, WeightsAreAccurateOverTheirWholeRange) {
  constexpr int64_t kRows = 20000;
  for (const cpu::Target* target : targets()) {
    Recipe r = dense_recipe(DType::f32, kRows, 2, 1, 1);
    r.problem.heads_q = r.problem.heads_kv = 1;
    r.problem.scale = 1;
    Case c(r);
    float* q = static_cast<float*>(c.args.q.data);
    for (int64_t i = 0; i < kRows; ++i) q[i] = 90.0f * static_cast<float>(i * i) / (kRows * kRows);
    static_cast<float*>(c.args.k.data)[0] = 0;
    static_cast<float*>(c.args.k.data)[1] = -1;
    static_cast<float*>(c.args.v.data)[0] = 0;
    static_cast<float*>(c.args.v.data)[1] = 1;
    cpu::Error error;
    ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
    for (int64_t i = 0; i < kRows; ++i) {
      const double y = q[i];
      const double want = 1 / (1 + std::exp(y));
      EXPECT_NEAR(static_cast<const float*>(c.args.out.data)[i], want,
                  want * 0x1p-24 * (4 + 2 * 1.4427 * y) + 0x1p-126)
          << cpu::target_name(*target) << " y " << y;
    }
  }
}

}  // namespace
}  // namespace kernels::test
