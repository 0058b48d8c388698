// tests/kernels/reference/attention_test.cpp: the reference, on cases computed by hand and on
// properties of attention
#include "kernels/reference/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/common/half.hpp"
#include "tests/kernels/reference/tiny.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Answer {
  std::vector<double> out, lse;
};

Answer answer(const Case& c) {
  const size_t rows = static_cast<size_t>(c.dense_rows());
  Answer a{std::vector<double>(rows * static_cast<size_t>(c.problem.head_dim_v)),
           std::vector<double>(rows)};
  reference::attention(c.problem, c.args, a.out.data(), a.lse.data());
  return a;
}

const float kLog2 = std::log(2.0f), kLog3 = std::log(3.0f);

TEST(Reference, WeightsByHand) {
  Tiny t({1.0f}, {0.0f, kLog2, kLog3}, {6, 12, 18});  // weights 1, 2, 3 of 6
  t.run();
  EXPECT_NEAR(t.out[0], (1 * 6 + 2 * 12 + 3 * 18) / 6.0, 1e-6);
  EXPECT_NEAR(t.lse[0], std::log(6.0), 1e-6);
}

TEST(Reference, DefaultScaleIsOneOverTheRootOfHeadDim) {
  Case c({.problem = {.head_dim = 16, .head_dim_v = 4}, .seq_q = 3, .seq_kv = 5});
  const Answer without = answer(c);
  c.problem.scale = 0.25f;
  EXPECT_EQ(answer(c).out, without.out);
}

TEST(Reference, CausalAndItsTwoDiagonals) {
  Tiny t({0, 0}, {0, 0, 0}, {1, 3, 8});
  t.problem.causal = true;  // bottom_right: query 0 sees keys 0 and 1, query 1 all three
  t.run();
  EXPECT_DOUBLE_EQ(t.out[0], 2);
  EXPECT_DOUBLE_EQ(t.out[1], 4);
  t.problem.align = Align::top_left;
  t.run();
  EXPECT_DOUBLE_EQ(t.out[0], 1);
  EXPECT_DOUBLE_EQ(t.out[1], 2);
}

TEST(Reference, CausalBottomRightWithFewerKeysLeavesTheFirstRowsEmpty) {
  Tiny t({0, 0, 0}, {0}, {5});
  t.problem.causal = true;
  t.run();
  EXPECT_EQ(t.out, (std::vector<double>{0, 0, 5}));
  EXPECT_EQ(t.lse, (std::vector<double>{-kInfinity, -kInfinity, 0}));
}

TEST(Reference, Windows) {
  Tiny t({0, 0, 0, 0}, {0, 0, 0, 0}, {1, 2, 4, 8});
  t.problem.window_left = 1;
  t.problem.window_right = 0;
  t.run();
  EXPECT_EQ(t.out, (std::vector<double>{1, 1.5, 3, 6}));
  t.problem.window_left = -1;
  t.problem.window_right = 1;
  t.run();
  EXPECT_EQ(t.out[0], 1.5);
  EXPECT_EQ(t.out[3], 3.75);
}

TEST(Reference, BooleanMaskHidesKeysAndTheirNan) {
  Tiny t({1, 1}, {NAN, kLog3, 0}, {100, 4, 8});
  t.mask = {0, 1, 1, 0, 0, 0};
  t.problem.mask = Mask::boolean;
  t.args.mask = t.mask_tensor(t.mask.data(), DType::boolean);
  t.run();
  EXPECT_NEAR(t.out[0], (3 * 4 + 8) / 4.0, 1e-6);
  EXPECT_EQ(t.out[1], 0);
  EXPECT_EQ(t.lse[1], -kInfinity);
}

TEST(Reference, AdditiveMask) {
  const float lowest = -std::numeric_limits<float>::max();
  Tiny t({1, 1, 1}, {0, 0, INFINITY}, {4, 8, 100});
  t.bias = {kLog3, 0, -INFINITY, lowest, lowest, -INFINITY, lowest, 0, -INFINITY};
  t.problem.mask = Mask::additive;
  t.args.mask = t.mask_tensor(t.bias.data(), DType::f32);
  t.run();
  EXPECT_NEAR(t.out[0], 5, 1e-6);
  EXPECT_EQ(t.out[1], 6) << "a row of lowest finite numbers is an average, not nothing";
  EXPECT_EQ(t.out[2], 8);
}

TEST(Reference, SoftcapThenMaskThenAlibi) {
  Tiny t({1}, {2, 4}, {0, 1});
  t.problem.softcap = 3;
  t.problem.alibi = true;
  t.slopes = {0.5f};
  t.args.alibi_slopes = {t.slopes.data(), DType::f32, 2, {1, 1}, {0, 1}};
  t.problem.mask = Mask::additive;
  t.bias = {1, 0};
  t.args.mask = t.mask_tensor(t.bias.data(), DType::f32);
  t.run();
  const double first =
      3 * std::tanh(2 / 3.0) + 1 - 0.5 * 1;  // the diagonal of the only query is key 1
  const double second = 3 * std::tanh(4 / 3.0);
  EXPECT_NEAR(t.out[0], 1 / (1 + std::exp(first - second)), 1e-12);
  EXPECT_NEAR(t.lse[0], std::log(std::exp(first) + std::exp(second)), 1e-12);
}

TEST(Reference, SinkJoinsTheDenominator) {
  Tiny t({1}, {0.0f}, {4});
  t.problem.sinks = true;
  t.sinks = {kLog3};
  t.args.sinks = {t.sinks.data(), DType::f32, 2, {1, 1}, {0, 1}};
  t.run();
  EXPECT_NEAR(t.out[0], 1, 1e-6);
  EXPECT_NEAR(t.lse[0], std::log(4.0), 1e-6);
  t.problem.window_right = 0;
  t.problem.align = Align::top_left;
  t.problem.causal = true;
  t.problem.window_left = 0;
  t.args.k.shape[1] = 0;  // no key exists: the sink alone
  t.run();
  EXPECT_EQ(t.out[0], 0);
  EXPECT_NEAR(t.lse[0], std::log(3.0), 1e-6);
}

// A NaN sink is in the denominator of every row, also of one that sees nothing.
TEST(Reference, NanSinkReachesEveryRow) {
  Tiny t({1, 1}, {0, 0}, {4, 5});
  t.problem.sinks = t.problem.causal = true;
  t.sinks = {NAN};
  t.args.sinks = {t.sinks.data(), DType::f32, 1, {1}, {1}};
  for (const int64_t keys : {2, 1, 0}) {  // with one key, the first query sees nothing
    t.args.k.shape[1] = t.args.v.shape[1] = keys;
    t.run();
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(std::isnan(t.out[i])) << keys << " keys, row " << i;
      EXPECT_TRUE(std::isnan(t.lse[i])) << keys << " keys, row " << i;
    }
  }
}

// A key whose score is -inf adds nothing. The product of q and k is a number of f32.
TEST(Reference, ScoresOfMinusInfinityAreHidden) {
  Tiny all({1e30F}, {-1e30F, -2e30F}, {4, 8});
  all.run();
  EXPECT_EQ(all.out[0], 0);
  EXPECT_EQ(all.lse[0], -INFINITY);
  Tiny some({1e30F}, {-1e30F, 0}, {4, 8});
  some.run();
  EXPECT_EQ(some.out[0], 8);
  EXPECT_EQ(some.lse[0], 0);
  Tiny sink({1e30F}, {-1e30F}, {4});
  sink.problem.sinks = true;
  sink.sinks = {kLog3};
  sink.args.sinks = {sink.sinks.data(), DType::f32, 1, {1}, {1}};
  sink.run();
  EXPECT_EQ(sink.out[0], 0);
  EXPECT_NEAR(sink.lse[0], std::log(3.0), 1e-6);
  Tiny positive({1e30F}, {1e30F}, {4});
  positive.run();
  EXPECT_TRUE(std::isnan(positive.out[0])) << "as inf - inf is";
  Tiny with_nan({1e30F}, {-1e30F, NAN}, {4, 8});
  with_nan.run();
  EXPECT_TRUE(std::isnan(with_nan.out[0]));
}

// What a mask and ALiBi add up to is a number of f32, too.
TEST(Reference, AMaskAndAlibiMayOverflow) {
  Tiny t({0}, {0, 0}, {4, 8});
  t.problem.mask = Mask::additive;
  t.problem.mask_dtype = DType::f32;
  t.bias = {-3e38F, -3e38F};
  t.args.mask = t.mask_tensor(t.bias.data(), DType::f32);
  t.problem.alibi = true;
  t.slopes = {2e38F};
  t.args.alibi_slopes = {t.slopes.data(), DType::f32, 1, {1}, {1}};
  t.run();  // key 1 is at the diagonal
  EXPECT_EQ(t.out[0], 8);
  t.problem.align = Align::top_left;
  t.args.k.shape[1] = t.args.v.shape[1] = 1;
  t.problem.seq_q = 2;
  t.q = {0, 0};
  t.args.q = Tiny::rows(t.q);
  t.bias = {-3e38F, -3e38F};
  t.args.mask = {t.bias.data(), DType::f32, 4, {1, 1, 2, 1}, {0, 0, 1, 1}};
  t.run();
  EXPECT_EQ(t.out[0], 4);
  EXPECT_EQ(t.out[1], 0);
  EXPECT_EQ(t.lse[1], -INFINITY);
}

TEST(Reference, WeightsSumToOne) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    Case c(
        {.problem = {.dtype = dtype, .heads_q = 4, .heads_kv = 2, .head_dim = 8, .head_dim_v = 2},
         .seq_q = 9,
         .seq_kv = 30});
    for (int64_t n = 0; n < 30 * 2 * 2; ++n) store_float(dtype, c.args.v.data, n, 1);
    for (const double x : answer(c).out) EXPECT_NEAR(x, 1, 1e-14);
  }
}

TEST(Reference, OrderOfKeysDoesNotMatter) {
  const Recipe r{.problem = {.head_dim = 8, .head_dim_v = 8}, .seq_q = 5, .seq_kv = 20};
  Case forward(r), backward(r);
  for (Tensor* t : {&backward.args.k, &backward.args.v}) {
    t->data = static_cast<float*>(t->data) + 19 * t->stride[1];
    t->stride[1] = -t->stride[1];
  }
  const Answer a = answer(forward), b = answer(backward);
  for (size_t n = 0; n < a.out.size(); ++n) EXPECT_NEAR(a.out[n], b.out[n], 1e-14);
}

TEST(Reference, MaskIsTruncation) {
  Recipe r{
      .problem = {.head_dim = 8, .head_dim_v = 8, .mask = Mask::boolean}, .seq_q = 5, .seq_kv = 20};
  r.hidden = Hidden::last;  // all but ten keys
  Case masked(r), shorter(r);
  shorter.problem.mask = Mask::none;
  shorter.args.k.shape[1] = shorter.args.v.shape[1] = 10;
  EXPECT_EQ(answer(masked).out, answer(shorter).out);
  r.problem.mask = Mask::none;
  r.problem.kv_lengths = true;
  r.kv_lengths = {10};
  EXPECT_EQ(answer(Case(r)).out.size(), answer(shorter).out.size());
}

TEST(Reference, PiecesMergeByTheirLse) {
  const Recipe r{.problem = {.head_dim = 8, .head_dim_v = 8}, .seq_q = 5, .seq_kv = 20};
  Case whole(r), left(r), right(r);
  left.args.k.shape[1] = left.args.v.shape[1] = 7;
  for (Tensor* t : {&right.args.k, &right.args.v}) {
    t->shape[1] = 13;
    t->data = static_cast<float*>(t->data) + 7 * t->stride[1];
  }
  const Answer w = answer(whole), a = answer(left), b = answer(right);
  for (size_t i = 0; i < 5; ++i) {
    const double share = 1 / (1 + std::exp(b.lse[i] - a.lse[i]));
    EXPECT_NEAR(w.lse[i], a.lse[i] + std::log1p(std::exp(b.lse[i] - a.lse[i])), 1e-13);
    for (size_t x = 0; x < 8; ++x) {
      EXPECT_NEAR(w.out[i * 8 + x], share * a.out[i * 8 + x] + (1 - share) * b.out[i * 8 + x],
                  1e-13);
    }
  }
}

TEST(Reference, GroupedQueriesAreRepeatedKeys) {
  const Recipe r{.problem = {.heads_q = 4, .heads_kv = 2, .head_dim = 8, .head_dim_v = 8},
                 .seq_q = 3,
                 .seq_kv = 6};
  Case grouped(r);
  const Answer g = answer(grouped);
  for (int64_t head = 0; head < 4; ++head) {
    Problem p = grouped.problem;
    p.heads_q = p.heads_kv = 1;
    Args args = grouped.args;
    args.q.data = static_cast<float*>(args.q.data) + head * args.q.stride[2];
    args.k.data = static_cast<float*>(args.k.data) + head / 2 * args.k.stride[2];
    args.v.data = static_cast<float*>(args.v.data) + head / 2 * args.v.stride[2];
    double out[3 * 8];
    reference::attention(p, args, out, nullptr);
    for (size_t i = 0; i < 3; ++i) {
      for (size_t x = 0; x < 8; ++x)
        EXPECT_EQ(out[i * 8 + x], g.out[(i * 4 + static_cast<size_t>(head)) * 8 + x]);
    }
  }
}

// Packed and paged tensors say the same as dense ones: the same rows, found elsewhere.
TEST(Reference, VarlenAndPagesAreDenseSequences) {
  for (const int64_t page_size : {0, 1, 4}) {
    Recipe r{
        .problem = {.heads_q = 4, .heads_kv = 2, .head_dim = 8, .head_dim_v = 5, .causal = true}};
    r.problem.varlen = true;
    r.problem.page_size = page_size;
    r.q_lengths = {3, 0, 6};
    r.kv_lengths = {7, 2, 6};
    const Case c(r);
    const Answer packed = answer(c);
    for (int64_t b = 0; b < 3; ++b) {
      const Sequence s = sequence(c.problem, c.args, b);
      ASSERT_EQ(s.q_length, r.q_lengths[static_cast<size_t>(b)]);
      ASSERT_EQ(s.kv_length, r.kv_lengths[static_cast<size_t>(b)]);
      Case dense(
          {.problem = {.heads_q = 4, .heads_kv = 2, .head_dim = 8, .head_dim_v = 5, .causal = true},
           .seq_q = s.q_length,
           .seq_kv = s.kv_length});
      const auto copy = [&](const Tensor& to, int64_t to_row, const Tensor& from, int64_t from_row,
                            int64_t n) {
        memcpy(static_cast<float*>(to.data) + to_row,
               static_cast<const float*>(from.data) + from_row,
               static_cast<size_t>(n) * sizeof(float));
      };
      for (int64_t head = 0; head < 4; ++head) {
        for (int64_t i = 0; i < s.q_length; ++i) {
          copy(dense.args.q, i * 32 + head * 8, c.args.q, (s.q_first + i) * 32 + head * 8, 8);
        }
      }
      for (int64_t head = 0; head < 2; ++head) {
        for (int64_t j = 0; j < s.kv_length; ++j) {
          // Spelled out here, not asked of the code that is being tested.
          int64_t row = 1 + j;
          for (int64_t before = 0; before < b; ++before)
            row += r.kv_lengths[static_cast<size_t>(before)];
          if (page_size > 0) {
            const int32_t* table = static_cast<const int32_t*>(c.args.page_table.data);
            row = table[b * c.args.page_table.shape[1] + j / page_size] * page_size + j % page_size;
          }
          copy(dense.args.k, (j * 2 + head) * 8, c.args.k, (row * 2 + head) * 8, 8);
          copy(dense.args.v, (j * 2 + head) * 5, c.args.v, (row * 2 + head) * 5, 5);
        }
      }
      const Answer a = answer(dense);
      for (int64_t i = 0; i < s.q_length; ++i) {
        for (int64_t head = 0; head < 4; ++head) {
          for (int64_t x = 0; x < 5; ++x) {
            EXPECT_EQ(packed.out[static_cast<size_t>(((s.q_first + i) * 4 + head) * 5 + x)],
                      a.out[static_cast<size_t>((i * 4 + head) * 5 + x)]);
          }
          EXPECT_EQ(packed.lse[static_cast<size_t>(head * c.args.q.shape[0] + s.q_first + i)],
                    a.lse[static_cast<size_t>(head * s.q_length + i)]);
        }
      }
    }
  }
}

TEST(Reference, LengthsEndWhatExists) {
  Recipe r{.problem = {.head_dim = 4, .head_dim_v = 4, .causal = true},
           .batch = 3,
           .seq_q = 2,
           .seq_kv = 8};
  r.problem.kv_lengths = true;
  r.kv_lengths = {8, 5, 0};
  Case c(r);  // NaN from each length on
  const Answer a = answer(c);
  for (const double x : a.out) EXPECT_FALSE(std::isnan(x));
  for (size_t n = 16; n < 24; ++n) EXPECT_EQ(a.out[n], 0);
  EXPECT_EQ(a.lse[4], -kInfinity);
  // The diagonal counts from the length: the last query of sequence 1 is opposite its key 4, and
  // sees all five.
  Case five({.problem = {.head_dim = 4, .head_dim_v = 4}, .batch = 3, .seq_q = 2, .seq_kv = 8});
  five.args = c.args;
  five.args.q.data = static_cast<float*>(c.args.q.data) + c.args.q.stride[0];
  five.args.k.data = static_cast<float*>(c.args.k.data) + c.args.k.stride[0];
  five.args.v.data = static_cast<float*>(c.args.v.data) + c.args.v.stride[0];
  five.args.q.shape[0] = 1;
  five.args.k.shape[1] = 5;
  double out[8];
  reference::attention(five.problem, five.args, out, nullptr);
  for (size_t x = 0; x < 4; ++x) EXPECT_EQ(out[4 + x], a.out[8 + 4 + x]);
}

TEST(Reference, VisibleNanReachesItsRowsOnly) {
  Tiny t({1, 1}, {0, NAN}, {1, 1});
  t.problem.causal = true;
  t.run();
  EXPECT_EQ(t.out[0], 1);
  EXPECT_TRUE(std::isnan(t.out[1]));
}

}  // namespace
}  // namespace kernels::test
