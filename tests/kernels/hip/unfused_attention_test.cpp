// tests/kernels/hip/unfused_attention_test.cpp: the unfused kernels, on the shapes and values where
// attention kernels go wrong
#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"
#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"

namespace kernels::test {
namespace {

Recipe small(DType dtype, int64_t seq_q, int64_t seq_kv, int64_t head_dim = 32) {
  Recipe r;
  r.problem.dtype = dtype;
  r.problem.heads_q = r.problem.heads_kv = 1;
  r.problem.head_dim = r.problem.head_dim_v = head_dim;
  r.problem.lse = true;
  r.seq_q = seq_q;
  r.seq_kv = seq_kv;
  r.gap = 8;
  return r;
}

class Unfused : public testing::TestWithParam<Target> {
 protected:
  static Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim = 32) {
    return small(GetParam().dtype, seq_q, seq_kv, head_dim);
  }
  static void expect_right(const Recipe& r, uint32_t seed = 0) {
    expect_unfused_right_on(GetParam().arch, r, seed);
  }
};
INSTANTIATE_TEST_SUITE_P(, Unfused, testing::ValuesIn(kTargets),
                         [](const auto& target) { return name_of(target.param); });

TEST_P(Unfused, HeadDims) {
  for (const int64_t d : {8, 24, 72, 128, 136, 256}) {
    Recipe r = recipe(19, 70, d);
    if (d == 72 || d == 256) r.problem.head_dim_v = d == 72 ? 136 : 64;
    r.layout = static_cast<Layout>(d / 8 % 3);
    expect_right(r, static_cast<uint32_t>(d));
  }
}

TEST_P(Unfused, EdgesOfTiles) {
  const hip::TileFacts tile =
      hip::tile_facts(hip::family_of(GetParam().arch), GetParam().dtype, 64);
  const int64_t rows = tile.rows, keys = tile.keys;
  for (const int64_t seq_q : {int64_t{1}, rows - 1, rows, rows + 1}) {
    for (const int64_t seq_kv : {int64_t{1}, keys - 1, keys, keys + 1}) {
      Recipe r = recipe(seq_q, seq_kv);
      r.problem.causal = seq_kv % 2 == 1;
      expect_right(r);
    }
  }
  expect_right(recipe(3, 8 * keys));  // one workgroup's keys in the first product, and one more
  expect_right(recipe(3, 8 * keys + 1));
}

TEST_P(Unfused, NothingToDo) {
  expect_right(recipe(0, 5));
  expect_right(recipe(5, 0));
  Recipe none = recipe(5, 5);
  none.batch = 0;
  expect_right(none);
}

TEST_P(Unfused, Masks) {
  for (const Mask mask : {Mask::boolean, Mask::additive}) {
    for (const Hidden hidden :
         {Hidden::some, Hidden::first, Hidden::middle, Hidden::last, Hidden::rows}) {
      for (const int broadcast : {0, 3, 4, 8, 15}) {
        Recipe r = recipe(9, broadcast % 2 == 0 ? 272 : 171);
        r.problem.mask = mask;
        r.problem.mask_dtype = broadcast % 3 == 0 ? GetParam().dtype : DType::f32;
        r.hidden = hidden;
        r.layout = static_cast<Layout>(broadcast % 3);
        for (int n = 0; n < 4; ++n) r.broadcast[n] = (broadcast >> n & 1) != 0;
        expect_right(r);
      }
    }
  }
}

TEST_P(Unfused, LowestFiniteMaskStaysFinite) {
  for (const bool everything : {false, true}) {
    Recipe r = recipe(9, 300);
    r.problem.mask = Mask::additive;
    r.problem.mask_dtype = everything ? DType::f32 : GetParam().dtype;
    r.hidden = Hidden::lowest;
    r.broadcast[3] = everything;
    expect_right(r);
  }
}

TEST_P(Unfused, HugeLogitsStayFinite) {
  for (const float magnitude : {30.0f, 100.0f}) {
    Recipe r = recipe(40, 150, 64);
    r.magnitude = magnitude;
    expect_right(r);
    r.problem.scale = -0.125f;
    r.problem.causal = true;
    expect_right(r);
  }
}

// Steps that no query of a block sees are never written, so the kernels that follow must not read
// them.
TEST_P(Unfused, CausalAndWindows) {
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    for (const int64_t seq_kv : {40, 150, 300}) {  // fewer, as many, more than queries
      Recipe r = recipe(150, seq_kv);
      r.problem.causal = true;
      r.problem.align = align;
      expect_right(r);
      r.problem.causal = false;
      r.problem.window_left = 17;
      r.problem.window_right = 3;
      expect_right(r);
    }
  }
  Recipe r = recipe(20, 30);
  r.problem.window_left = r.problem.window_right = INT64_MAX;
  expect_right(r);
}

TEST_P(Unfused, SoftcapAlibiSinks) {
  for (uint32_t n = 1; n < 8; ++n) {
    Recipe r = recipe(21, 100);
    r.problem.heads_q = 4, r.problem.heads_kv = 2;
    r.batch = 2;
    r.problem.softcap = n & 1 ? 3.0f : 0;
    r.problem.alibi = (n & 2) != 0;
    r.problem.sinks = (n & 4) != 0;
    r.problem.scale = n % 3 == 0 ? -0.2f : 0;
    r.problem.causal = n > 4;
    r.problem.lse = n != 5;
    r.slack = n;
    if (n == 6) r.problem.mask = Mask::boolean, r.hidden = Hidden::rows;
    expect_right(r, n);
  }
}

// NaN in a key or value reaches the rows that see it and no others. NaN in a key that the mask
// hides reaches no row.
TEST_P(Unfused, NanReachesOnlyRowsThatSeeIt) {
  constexpr int64_t kKey = 50;
  for (const Mask mask : {Mask::none, Mask::boolean, Mask::additive}) {
    for (const bool in_value : {false, true}) {
      if (in_value && mask != Mask::none) continue;  // v of a masked key must be finite
      Recipe r = recipe(80, 80);
      r.problem.causal = true;
      r.problem.mask = mask;
      r.problem.mask_dtype = DType::f32;
      r.hidden = Hidden::last;  // key 50 among them
      Case c(r);
      const Tensor& t = in_value ? c.args.v : c.args.k;
      store_float(t.dtype, t.data, kKey * t.stride[1] + 3, NAN);
      run_unfused_on(GetParam().arch, c);
      c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
        if (in_value && i < kKey) return;  // as above
        const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
        const bool nan = std::isnan(load_float(GetParam().dtype, c.args.out.data, row + 3));
        EXPECT_EQ(nan, mask == Mask::none && i >= kKey) << "row " << i;
      });
    }
  }
}

TEST_P(Unfused, NanSinks) {
  expect_nan_sinks([](int64_t keys) { return recipe(70, keys); },
                   [](const Case& c) { run_unfused_on(GetParam().arch, c); });
}

TEST_P(Unfused, ScoresThatOverflow) {
  expect_overflow(recipe(70, 150), [](const Case& c) { run_unfused_on(GetParam().arch, c); });
}

TEST_P(Unfused, ValuesInKeys) {
  Recipe r = recipe(70, 150);
  r.problem.v_in_k = true;
  r.layout = Layout::gapped, r.batch = 2;
  expect_right(r);
}

// A sequence alone, and as one of three, under larger bounds.
TEST_P(Unfused, BitsDoNotDependOnTheBatch) {
  Recipe r = recipe(70, 150);
  r.problem.batch_invariant = r.problem.causal = true;
  expect_same_bits_alone(r, [](const Case& c) { run_unfused_on(GetParam().arch, c); });
}

// Two keys of equal score: out is the mean of two numbers of the dtype, so only the last rounding
// matters.
TEST_P(Unfused, OutIsRoundedToNearestEven) {
  Recipe r = recipe(1, 2, 40);
  r.batch = 5;
  Case c(r);
  const DType dtype = GetParam().dtype;
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    const int64_t q = query_row(c.problem, c.args.q, s, b, i, head);
    for (int64_t x = 0; x < 40; ++x) store_float(dtype, c.args.q.data, q + x, 0);
  });
  run_unfused_on(GetParam().arch, c);
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t) {
    const int64_t row = query_row(c.problem, c.args.out, s, b, i, head);
    const int64_t v0 = key_row(c.problem, c.args, c.args.v, s, b, 0, head);
    const int64_t v1 = key_row(c.problem, c.args, c.args.v, s, b, 1, head);
    for (int64_t x = 0; x < 40; ++x) {
      float want;
      store_float(
          dtype, &want, 0,
          (load_float(dtype, c.args.v.data, v0 + x) + load_float(dtype, c.args.v.data, v1 + x)) /
              2);
      ASSERT_EQ(load_float(dtype, c.args.out.data, row + x), load_float(dtype, &want, 0))
          << "column " << x;
    }
  });
}

// Rows that a few lanes of softmax hold, that a workgroup holds, and that are too long to be held.
TEST_P(Unfused, LongRows) {
  for (const int64_t seq_kv : {1024, 1100, 8192, 8300}) {
    Recipe r = recipe(3, seq_kv);
    r.problem.sinks = seq_kv == 1100;
    expect_right(r, 1);
  }
}

// More pieces than workgroups along x: each workgroup takes several.
TEST(UnfusedTurns, AreAllTaken) {
  Recipe r = small(DType::f16, 4200, 1088);
  r.problem.window_left = 5;
  r.problem.causal = true;
  r.problem.align = Align::top_left;
  expect_unfused_right_on("sm_80", r);
}

TEST(UnfusedPlans, HaveRoomForTheScores) {
  Problem p;
  p.dtype = DType::f16;
  p.batch = 2, p.heads_q = p.heads_kv = 3;
  p.seq_q = 5, p.seq_kv = 65;
  p.head_dim = p.head_dim_v = 64;
  ASSERT_TRUE(hip::unfused_supported(p, {"sm_80"}, nullptr));
  const hip::UnfusedPlan plan = hip::plan_unfused(p, {"sm_80"});
  EXPECT_EQ(plan.workspace_bytes, 2 * 3 * 5 * 128 * 4);
  EXPECT_STREQ(plan.object, "unfused_attention_f16_64");
}

// A dense row of k or v would reach past what a kernel can address.
TEST(GpuPlans, RefuseRowsThatAreTooFarApart) {
  Problem p;
  p.head_dim = p.head_dim_v = 256;
  p.heads_q = p.heads_kv = (1 << 17) - 1;
  for (const auto supported : {&hip::flash_supported, &hip::unfused_supported}) {
    std::string reason;
    p.heads_q = p.heads_kv = (1 << 17) - 1;
    EXPECT_TRUE(supported(p, {"gfx942"}, &reason)) << reason;
    p.heads_q = p.heads_kv = 1 << 17;
    EXPECT_FALSE(supported(p, {"gfx942"}, &reason));
    EXPECT_EQ(reason, "heads_kv 131072 times head_dim 256 is above 33554431");
  }
}

// Each reason names what is missing.
TEST(GpuPlans, RefuseOtherTypes) {
  const auto reason_of = [](auto supported, auto change) {
    Problem p;
    p.dtype = DType::f16;
    p.head_dim = p.head_dim_v = 64;
    change(p);
    std::string reason;
    const bool served = supported(p, {"gfx942"}, &reason);
    EXPECT_EQ(served, reason.empty());
    return reason;
  };
  for (const auto supported : {&hip::flash_supported, &hip::unfused_supported}) {
    EXPECT_EQ(reason_of(supported, [](Problem& p) { p.out_dtype = DType::f32; }),
              "out_dtype is not supported");
    EXPECT_EQ(reason_of(supported, [](Problem& p) { p.v_in_k = p.batch_invariant = true; }), "");
  }
  const auto with_bytes = [](Problem& p) { p.kv_dtype = DType::i8; };
  EXPECT_EQ(reason_of(&hip::flash_supported, with_bytes), "");
  EXPECT_EQ(reason_of(&hip::unfused_supported, with_bytes), "kv_dtype is not supported");
  const auto with_offset = [](Problem& p) { p.diagonal_offset = true; };
  EXPECT_EQ(reason_of(&hip::flash_supported, with_offset), "");
  EXPECT_EQ(reason_of(&hip::unfused_supported, with_offset), "diagonal_offset is not supported");
}

// Sizes whose products overflow 64 bits: no run has them, and planning with them is defined.
TEST(GpuPlans, BoundsThatOverflow) {
  Problem p;
  p.mask = Mask::additive;
  p.mask_dtype = DType::f32;
  p.head_dim = p.head_dim_v = 64;
  p.batch = 2, p.heads_q = 1 << 11, p.heads_kv = 1, p.seq_q = p.seq_kv = 1 << 25;
  Args args;
  args.q = args.k = args.v = args.out = {nullptr, DType::f32, 4, {1, 1, 1, 64}, {64, 64, 64, 1}};
  args.mask = {nullptr,
               DType::f32,
               4,
               {2, p.heads_q, p.seq_q, p.seq_kv},
               {p.heads_q << 50, int64_t{1} << 50, int64_t{1} << 25, 1}};
  EXPECT_EQ(hip::fill_params(p, args).flags & hip::kMaskVector, hip::kMaskVector);
  args.mask.stride[0] = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(hip::fill_params(p, args).flags & hip::kMaskVector, 0U);
}

TEST(UnfusedPlans, RefuseAScoreMatrixLargerThanAnyMemory) {
  Problem p;
  p.dtype = DType::f16;
  p.batch = 1 << 20, p.heads_q = p.heads_kv = 1 << 10;
  p.seq_q = p.seq_kv = INT_MAX - 1024;
  p.head_dim = p.head_dim_v = 64;
  std::string reason;
  EXPECT_FALSE(hip::unfused_supported(p, {"gfx942"}, &reason));
  EXPECT_EQ(reason,
            "the score matrix of batch 1048576, heads_q 1024, seq_q 2147482623, seq_kv 2147482623 "
            "is above 256 GiB");
}

}  // namespace
}  // namespace kernels::test
