// tests/kernels/cpu/attention_test.cpp: the shapes and values where attention kernels go wrong, into the CPU kernel
#include "kernels/cpu/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/half.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::f16, DType::bf16};

Recipe recipe(DType dtype, int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t head_dim_v) {
  Recipe r;
  r.problem.dtype = dtype;
  r.problem.heads_q = 2;
  r.problem.heads_kv = 2;
  r.problem.head_dim = head_dim;
  r.problem.head_dim_v = head_dim_v;
  r.problem.lse = true;
  r.seq_q = seq_q;
  r.seq_kv = seq_kv;
  return r;
}

class ByDType : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, ByDType, testing::ValuesIn(kDTypes));

TEST_P(ByDType, HeadDims) {
  for (const int64_t d : {1, 7, 64, 72, 80, 96, 128, 192, 256, 512}) {
    expect_right(recipe(GetParam(), 19, 70, d, d));
    Recipe other = recipe(GetParam(), 7, 33, d, d == 64 ? 128 : 64);
    other.layout = Layout::gapped;
    expect_right(other);
  }
}

TEST_P(ByDType, EdgesOfTiles) {
  for (const int64_t seq_q : {1, 5, 6, 7, 191, 192, 193}) {
    for (const int64_t seq_kv : {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257}) {
      Recipe r = recipe(GetParam(), seq_q, seq_kv, 16, 8);
      r.problem.causal = seq_kv % 2 == 1;
      expect_right(r);
    }
  }
}

TEST_P(ByDType, NothingToDo) {
  expect_right(recipe(GetParam(), 0, 5, 8, 8));
  expect_right(recipe(GetParam(), 5, 0, 8, 8));
  Recipe none = recipe(GetParam(), 5, 5, 8, 8);
  none.batch = 0;
  expect_right(none);
}

// Whole tiles hidden at the start, in the middle and at the end; whole rows; stride-0 masks of every kind.
TEST_P(ByDType, Masks) {
  for (const Mask mask : {Mask::boolean, Mask::additive}) {
    for (const Hidden hidden :
         {Hidden::some, Hidden::first, Hidden::middle, Hidden::last, Hidden::rows}) {
      for (int broadcast = 0; broadcast < 16; ++broadcast) {
        Recipe r = recipe(GetParam(), 9, 300, 16, 16);
        r.problem.mask = mask;
        r.problem.mask_dtype = broadcast % 2 == 0 ? GetParam() : DType::f32;
        r.hidden = hidden;
        r.layout = static_cast<Layout>(broadcast % 3);
        for (int n = 0; n < 4; ++n) r.broadcast[n] = (broadcast >> n & 1) != 0;
        expect_right(r);
      }
    }
  }
}

TEST_P(ByDType, LowestFiniteMaskStaysFinite) {
  for (const DType mask_dtype : {DType::f32, GetParam()}) {
    for (const bool everything : {false, true}) {
      Recipe r = recipe(GetParam(), 9, 300, 16, 16);
      r.problem.mask = Mask::additive;
      r.problem.mask_dtype = mask_dtype;
      r.hidden = Hidden::lowest;
      r.broadcast[3] = everything;  // a row is then lowest from end to end, or not at all
      expect_right(r);
    }
  }
}

TEST_P(ByDType, HugeLogitsStayFinite) {
  for (const float magnitude : {30.0f, 100.0f}) {  // scores of several thousands, of up to 1e5
    Recipe r = recipe(GetParam(), 70, 300, 64, 64);
    r.magnitude = magnitude;
    expect_right(r);
    r.problem.scale = -0.125f;
    r.problem.causal = true;
    expect_right(r);
  }
}

// One channel of q and k is large, as some are in language models. Which of two neighbouring numbers k has there decides
// about the weights: the smallest parts of both must be multiplied too.
TEST_P(ByDType, OneLargeChannel) {
  for (const bool lse : {false, true}) {
    Recipe r = recipe(GetParam(), 200, 300, 64, 64);
    r.problem.lse = lse;
    Case c(r);
    const auto set = [&](const Tensor& t, int64_t row, int64_t head, float value) {
      store_float(t.dtype, const_cast<void*>(t.data), row * t.stride[1] + head * t.stride[2],
                  value);
    };
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t i = 0; i < 200; ++i) set(c.args.q, i, head, 32.0f + 7.0f / 32);
      for (int64_t j = 0; j < 300; ++j)
        set(c.args.k, j, head, 32.0f + static_cast<float>(7 + j % 2) / 32);
    }
    expect_right(c);
  }
}

// Logits whose ulp is far above 1: whichever key wins, weights sum to 1, so values of 1 give 1; and lse is the largest logit.
TEST_P(ByDType, LogitsBeyondAnyPrecision) {
  for (const int64_t seq_q : {3, 70}) {  // decode, and blocks of rows
    for (const float scale : {1e4f, 1e8f, 1e20f, 3e38f}) {
      Recipe r = recipe(GetParam(), seq_q, 300, 64, 32);
      r.problem.scale = scale;
      Case c(r);
      for (int64_t n = 0; n < 300 * 2 * 32; ++n)
        store_float(c.problem.dtype, const_cast<void*>(c.args.v.data), n, 1);
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

// Scores of row i and key j: slope(i) * j. A running maximum rises in every chunk of a tile, by much, by little, or never; and
// with sinks it begins above what follows.
TEST_P(ByDType, MaximaThatRiseFromChunkToChunk) {
  for (const float step : {0.02f, 0.5f, 4.0f, -0.5f}) {
    for (const bool sinks : {false, true}) {
      Recipe r = recipe(GetParam(), 70, 600, 16, 24);
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

// Values near the end of bf16's range, and a maximum that rises by a little in later chunks: sums of weights times values stay
// below infinity as long as weights stay below 1.
TEST(Values, MayBeHugeWhileTheMaximumRises) {
  for (const float rise : {4.0f, 5.0f, 40.0f}) {
    Recipe r = recipe(DType::bf16, 70, 300, 16, 24);
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

// A sink of infinity hides every finite score; rows that see nothing stay zero.
TEST_P(ByDType, InfiniteSinks) {
  Recipe r = recipe(GetParam(), 70, 300, 16, 16);
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

// Whole tiles to which the mask adds nothing, 0 or -0; whole tiles that it hides; one key alone that it touches.
TEST_P(ByDType, AdditiveMasksThatAddNothing) {
  for (const DType mask_dtype : {DType::f32, GetParam()}) {
    for (const int64_t touched : {-1, 256, 300, 511, 700}) {
      Recipe r = recipe(GetParam(), 40, 701, 16, 16);
      r.problem.mask = Mask::additive;
      r.problem.mask_dtype = mask_dtype;
      r.broadcast[1] = true;
      Case c(r);
      const Tensor& m = c.args.mask;
      for (int64_t i = 0; i < 40; ++i) {
        for (int64_t j = 0; j < 701; ++j) {
          const float bias = j < 256 ? -INFINITY : j == touched ? 3.0f : j % 2 == 0 ? 0.0f : -0.0f;
          store_float(mask_dtype, m.data, i * m.stride[2] + j, bias);
        }
      }
      expect_right(c);
    }
  }
}

TEST_P(ByDType, CausalTopLeftAndBottomRight) {
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    for (const int64_t seq_kv : {40, 150, 300}) {  // fewer, as many, more than queries
      Recipe r = recipe(GetParam(), 150, seq_kv, 16, 16);
      r.problem.causal = true;
      r.problem.align = align;
      expect_right(r);
    }
  }
}

TEST_P(ByDType, Decode) {
  Recipe r = recipe(GetParam(), 1, 300, 128, 128);
  r.problem.heads_q = 16;
  r.problem.kv_lengths = true;
  r.batch = 3;
  r.kv_lengths = {300, 0, 129};
  r.slack = 100;
  expect_right(r);
  r.problem.page_size = 16;
  expect_right(r);
}

TEST_P(ByDType, WindowWiderThanAnything) {
  Recipe r = recipe(GetParam(), 20, 30, 8, 8);
  r.problem.window_left = INT64_MAX;
  r.problem.window_right = INT64_MAX;
  expect_right(r);
}

// NaN in a visible key or value reaches the rows that see it, and no other row.
TEST_P(ByDType, VisibleNanReachesOnlyWhoSeesIt) {
  constexpr int64_t kKey = 150;
  for (const bool in_value : {false, true}) {
    for (const cpu::Target* target : targets()) {
      Recipe r = recipe(GetParam(), 200, 200, 16, 16);
      r.problem.causal = true;
      Case c(r);
      const Tensor& t = in_value ? c.args.v : c.args.k;
      store_float(t.dtype, t.data, kKey * t.stride[1] + 3, NAN);
      cpu::Error error;
      ASSERT_EQ(run_once(c, *target, 1, &error), cpu::Status::ok) << error.message;
      c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
        if (in_value && head == 0 && i < kKey)
          return;  // v of a masked key must be finite: nothing is promised
        const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
        const bool nan = std::isnan(load_float(GetParam(), c.args.out.data, row + 3));
        EXPECT_EQ(nan, head == 0 && i >= kKey) << "row " << i << " head " << head;
      });
    }
  }
}

// Two keys of equal score: out is the mean of two numbers of the dtype, which float holds exactly, so only the last
// rounding is left. The accuracy rule alone cannot tell truncation from rounding to nearest.
TEST_P(ByDType, OutIsRoundedToNearestEven) {
  constexpr int64_t kColumns = 67;  // full vectors and a tail on every target
  Recipe r = recipe(GetParam(), 1, 2, 4, kColumns);
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

// Scores 0 and -y, values 0 and 1: out = exp(-y) / (1 + exp(-y)), so out shows the relative error of exp over its whole
// range, down to the weights that are 0 because they are no normal floats. y * log2(e) is rounded once, which exp turns into a relative error of e * y * log2(e); another term of that size
// is left for the conversion's own constant, and four roundings for the polynomial, the sum and the division.
TEST(Weights, AreAsExactAsStated) {
  constexpr int64_t kRows = 20000;
  for (const cpu::Target* target : targets()) {
    Recipe r = recipe(DType::f32, kRows, 2, 1, 1);
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
