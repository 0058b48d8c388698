// tests/kernels/hip/flash_attention_test.cpp: the fused kernels, on the shapes and values where
// attention kernels go wrong
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"

namespace kernels::test {
namespace {

// A plan for so many queries takes other kernels: see listed_attention_test.cpp.
constexpr int64_t kFewQueries = 32;

class Flash : public testing::TestWithParam<Target> {
 protected:
  const char* arch = GetParam().arch;
  DType dtype = GetParam().dtype;
  uint32_t seed = 0;

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t heads_q = 1,
                int64_t heads_kv = 1) const {
    Recipe r = recipe_of(dtype, seq_q, seq_kv, head_dim, heads_q, heads_kv);
    r.gap = 8;
    if (seq_q <= kFewQueries) r.slack = kFewQueries;  // bounds above it choose the loop
    r.problem.seq_q = kFewQueries + 1;
    return r;
  }
  // Every check runs the workgroup's threads in another order.
  void expect(const Recipe& recipe) { expect_right_on(arch, recipe, ++seed); }
};
INSTANTIATE_TEST_SUITE_P(, Flash, testing::ValuesIn(kTargets),
                         [](const auto& test) { return name_of(test.param); });

INSTANTIATE_TEST_SUITE_P(Pipelined, Flash, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(Flash, HeadDims) {
  for (const int64_t d : {8, 24, 32, 40, 64, 72, 80, 96, 128, 136, 192, 256}) {
    Recipe r = recipe(17, 70, d, 2);
    r.problem.causal = d % 16 == 8;
    expect(r);
  }
}

// Values wider and narrower than keys.
TEST_P(Flash, HeadDimsOfValues) {
  for (const auto& [d, v] : {std::pair{192, 128}, {64, 32}, {40, 96}, {136, 256}, {256, 72}}) {
    Recipe r = recipe(67, 130, d, 4, 2);
    r.problem.head_dim_v = v;
    r.problem.causal = d % 64 == 0;
    expect(r);
  }
}

TEST_P(Flash, EdgesOfTiles) {
  for (const int64_t d : {64, 96, 128, 192, 256}) {
    const hip::FlashPlan tile = hip::plan_flash(recipe(1, 1, d).problem, {arch});
    for (const int64_t seq_q : {int64_t{1}, int64_t{tile.rows} - 1, int64_t{tile.rows} + 1}) {
      for (const int64_t seq_kv :
           {int64_t{1}, int64_t{tile.keys} - 1, int64_t{tile.keys}, 2 * int64_t{tile.keys} + 1}) {
        Recipe r = recipe(seq_q, seq_kv, d);
        r.problem.causal = seq_kv % 2 == 1;
        expect(r);
      }
    }
  }
}

// Far more steps than there are places for them, and several blocks of queries.
TEST_P(Flash, ManySteps) {
  for (const int64_t d : {64, 128, 256}) {
    const hip::FlashPlan tile = hip::plan_flash(recipe(1, 1, d).problem, {arch});
    const int64_t keys = tile.keys;
    Recipe r = recipe(int64_t{tile.rows} + 3, 7 * keys + 5, d, 2, 1);
    expect(r);
    r.problem.mask = Mask::boolean;
    expect(r);
    r.problem.mask = Mask::none, r.problem.causal = true, r.problem.window_left = 4 * keys;
    expect(r);
  }
}

TEST_P(Flash, NothingToDo) {
  expect(recipe(0, 5, 64));
  expect(recipe(5, 0, 64));
  Recipe none = recipe(5, 5, 64);
  none.batch = 0;
  expect(none);
}

TEST_P(Flash, CausalAndWindows) {
  for (const Align align : {Align::bottom_right, Align::top_left}) {
    for (const auto& [q, kv] : {std::pair{150, 150}, {40, 200}, {200, 40}}) {
      for (const auto& [left, right] :
           {std::pair{-1, -1}, {0, -1}, {17, -1}, {-1, 9}, {70, 3}, {0, 0}}) {
        for (const bool causal : {false, true}) {
          Recipe r = recipe(q, kv, 64);
          r.problem.align = align, r.problem.causal = causal;
          r.problem.window_left = left, r.problem.window_right = right;
          expect(r);
        }
      }
    }
  }
}

TEST_P(Flash, Masks) {
  for (const Hidden hidden :
       {Hidden::some, Hidden::first, Hidden::middle, Hidden::last, Hidden::rows, Hidden::lowest}) {
    for (const Mask mask : {Mask::boolean, Mask::additive}) {
      if (hidden == Hidden::lowest && mask == Mask::boolean) continue;
      for (const DType mask_dtype : {DType::f32, dtype}) {
        // Rows that can be read in 16-byte words, and rows that cannot.
        for (const int64_t seq_kv : {192, 201}) {
          Recipe r = recipe(21, seq_kv, 64, 2);
          r.problem.mask = mask, r.problem.mask_dtype = mask_dtype, r.hidden = hidden;
          r.problem.causal = hidden == Hidden::middle;
          expect(r);
          if (mask == Mask::boolean || mask_dtype == dtype) break;
        }
      }
    }
  }
  for (int dims = 1; dims < 16; dims += 2) {
    Recipe r = recipe(20, 130, 128, 2);
    r.batch = 2;
    r.problem.mask = dims % 4 == 1 ? Mask::boolean : Mask::additive, r.problem.mask_dtype = dtype;
    for (int d = 0; d < 4; ++d) r.broadcast[d] = (dims >> d & 1) != 0;
    expect(r);
  }
}

TEST_P(Flash, Features) {
  const auto with = [&](const auto& change) {
    for (const int64_t d : {64, 256}) {
      Recipe r = recipe(70, 150, d, 2, 1);
      change(r);
      expect(r);
    }
  };
  with([](Recipe& r) { r.problem.softcap = 3; });
  with([](Recipe& r) { r.problem.alibi = true; });
  with([](Recipe& r) { r.problem.sinks = true; });
  with([](Recipe& r) { r.problem.scale = -0.7F; });
  with([](Recipe& r) { r.problem.lse = false; });
  with([](Recipe& r) { r.layout = Layout::bhsd, r.batch = 2; });
  with([](Recipe& r) { r.layout = Layout::gapped, r.batch = 2; });
  with([](Recipe& r) { r.slack = 9; });
  with([](Recipe& r) { r.magnitude = 40; });
  with([](Recipe& r) {
    r.problem.sinks = r.problem.alibi = r.problem.causal = true, r.problem.softcap = 9;
  });
  with([](Recipe& r) {
    r.problem.sinks = r.problem.alibi = true, r.problem.mask = Mask::additive,
    r.problem.mask_dtype = r.problem.dtype;
    r.problem.window_left = 60;
  });
  with([](Recipe& r) {
    r.problem.sinks = true, r.problem.mask = Mask::boolean, r.hidden = Hidden::rows;
  });
}

TEST_P(Flash, DiagonalOffsets) {
  for (const bool causal : {false, true}) {
    for (const bool alibi : {false, true}) {
      Recipe r = recipe(70, 150, 64, 2, 1);
      r.problem.causal = causal, r.problem.alibi = alibi;
      r.problem.window_left = causal ? -1 : 40;
      r.problem.diagonal_offset = true;
      r.batch = 6;
      r.diagonal_offsets = {0, -1, 5, -200, 200, alibi ? 3 : INT32_MIN};
      expect(r);
    }
  }
}

TEST_P(Flash, ValuesInKeys) {
  for (const int64_t d : {64, 256}) {
    Recipe r = recipe(70, 150, d, 2, 1);
    r.problem.v_in_k = true;
    r.layout = Layout::gapped, r.batch = 2;
    expect(r);
  }
}

// A sequence alone, and as one of three, under larger bounds.
TEST_P(Flash, BitsDoNotDependOnTheBatch) {
  Recipe r = recipe(70, 150, 64, 2, 1);
  r.problem.batch_invariant = r.problem.causal = true;
  for (const float softcap : {0.0F, 20.0F}) {  // from a list, and not
    r.problem.softcap = softcap;
    expect_same_bits_alone(r, [this](const Case& c) { run_flash_on(arch, c); });
  }
}

// Scores around 1e9: the differences that make weights are far smaller than the scores.
TEST_P(Flash, HugeLogits) {
  for (const float magnitude : {300.0F, 10000.0F}) {
    if (dtype == DType::f16 && magnitude > 1000) continue;
    for (const int64_t d : {64, 128}) {
      Recipe r = recipe(33, 140, d);
      r.magnitude = magnitude;
      expect(r);
      r.problem.sinks = r.problem.causal = true;
      expect(r);
    }
  }
}

TEST_P(Flash, NanSinks) {
  expect_nan_sinks([this](int64_t keys) { return recipe(70, keys, 64, 2, 1); },
                   [this](const Case& c) { run_flash_on(arch, c); });
}

TEST_P(Flash, ScoresThatOverflow) {
  expect_overflow(recipe(70, 150, 64, 2, 1), [this](const Case& c) { run_flash_on(arch, c); });
}

// What only the loop of sm_90a has: workgroups that take several blocks.
class Pipeline : public Flash {};
INSTANTIATE_TEST_SUITE_P(, Pipeline, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

// A workgroup takes several blocks of queries, each with several steps of the mask.
TEST_P(Pipeline, MasksOfSeveralBlocks) {
  for (const int64_t d : {64, 96, 128, 192, 256}) {
    for (const Mask mask : {Mask::boolean, Mask::additive}) {
      Recipe r = recipe(137, 304, d, 2, 1);
      r.batch = 2;
      r.problem.mask = mask, r.problem.mask_dtype = dtype;
      r.broadcast[1] = d == 128;  // over heads
      r.broadcast[2] = d == 96;   // over queries
      r.problem.causal = d == 64;
      if (d == 192) r.problem.head_dim_v = 128;
      expect(r);
    }
  }
  // One row for all, which copies could read but for its odd end.
  Recipe r = recipe(30, 201, 64, 2);
  r.problem.mask = Mask::boolean;
  r.broadcast[0] = r.broadcast[1] = r.broadcast[2] = true;
  expect(r);
}

// More heads than a section has, and not a multiple.
TEST_P(Pipeline, SectionsOfHeads) {
  Recipe r = recipe(200, 140, 64, 19, 1);
  expect(r);
  r.problem.causal = true;
  expect(r);
}

// Each workgroup takes several blocks: of one step of keys and of several, of every head.
TEST_P(Pipeline, BlockAfterBlock) {
  for (const int64_t seq_kv : {100, 300}) {
    for (const int64_t d : {128, 256}) {
      Recipe r = recipe(137, seq_kv, d, 4, 2);
      r.batch = 2, r.problem.sinks = true;
      expect(r);
      r.problem.causal = true;
      expect(r);
    }
  }
}

// Blocks that see no key, before and after those that see some.
TEST_P(Pipeline, BlocksThatSeeNoKey) {
  for (const int64_t d : {64, 128}) {
    Recipe r = recipe(450, 100, d, 2);
    r.problem.causal = true;
    expect(r);
    r = recipe(450, 128, d, 2);
    r.problem.align = Align::top_left, r.problem.window_left = 17;
    expect(r);
  }
}

// Masks that hide whole tiles: steps that are left out at the start, in the middle and at the end,
// whole blocks, and steps whose mask is left out.
TEST_P(Pipeline, MasksOfWholeTiles) {
  for (const int64_t d : {64, 128, 256, 512}) {
    Recipe r = recipe(2, 3, d);
    r.problem.mask = d == 128 ? Mask::additive : Mask::boolean, r.problem.mask_dtype = dtype;
    const hip::FlashPlan tile = hip::plan_flash(r.problem, {arch});
    const int64_t rows = tile.rows, keys = tile.keys;
    r.seq_q = rows + 9, r.seq_kv = 9 * keys + 16;  // more than eight states of a block
    r.zero_biases = true;
    const auto with = [&](const auto& hides) {
      r.hides = hides;
      expect(r);
    };
    with([=](int64_t, int64_t, int64_t, int64_t j) { return j < 2 * keys; });
    with([=](int64_t, int64_t, int64_t, int64_t j) { return j >= 3 * keys && j < 5 * keys + 3; });
    with([=](int64_t, int64_t, int64_t, int64_t j) { return j >= keys - 1; });
    if (d % 256 == 0) continue;
    with([=](int64_t, int64_t, int64_t i, int64_t) { return i / rows == 1; });
    with([=](int64_t, int64_t, int64_t, int64_t j) { return j % (3 * keys) == 5; });
    with([](int64_t, int64_t, int64_t, int64_t) { return false; });
    with([](int64_t, int64_t, int64_t, int64_t) { return true; });
    // Documents, the second of them shorter than a step.
    const auto document = [=](int64_t at) { return at < 70 ? 0 : at < 90 ? 1 : 2 + at / rows; };
    with([=](int64_t, int64_t, int64_t i, int64_t j) { return document(i) != document(j); });
    // Every other step; of each head and sequence others.
    r.batch = r.problem.heads_q = 2, r.seq_q = 70, r.seq_kv = 5 * keys;
    with([=](int64_t b, int64_t h, int64_t i, int64_t j) {
      return (b + h + i / rows + j / keys) % 2 == 0;
    });
  }
}

// Such masks with what else decides which steps are walked, and with what changes scores.
TEST_P(Pipeline, MasksOfWholeTilesWithOthers) {
  for (const int64_t d : {64, 128, 256}) {
    for (const Mask mask : {Mask::boolean, Mask::additive}) {
      Recipe r = recipe(137, d == 256 ? 264 : 520, d);
      r.problem.mask = mask, r.problem.mask_dtype = dtype, r.zero_biases = d != 128;
      const int64_t keys = hip::plan_flash(r.problem, {arch}).keys;
      r.hides = [=](int64_t, int64_t, int64_t i, int64_t j) {
        return j / keys == i / 128 % 4 || j / keys == 3;
      };
      const auto with = [&](const auto& change) {
        Recipe changed = r;
        change(changed);
        expect(changed);
      };
      with([](Recipe& c) { c.problem.causal = true, c.problem.align = Align::top_left; });
      with([](Recipe& c) { c.problem.causal = c.problem.sinks = true; });
      with([](Recipe& c) { c.problem.window_left = 150, c.problem.window_right = 80; });
      with([](Recipe& c) { c.problem.softcap = 3, c.problem.alibi = true; });
      with([](Recipe& c) { c.problem.scale = -0.7F, c.problem.sinks = true; });
      with([](Recipe& c) {
        c.batch = 2, c.problem.diagonal_offset = c.problem.causal = true;
        c.diagonal_offsets = {-150, 40};
      });
      with([](Recipe& c) { c.slack = 9; });
    }
  }
}

// Tiles of a mask that is the same for all sequences, heads, queries or keys.
TEST_P(Pipeline, MasksOfWholeTilesForAll) {
  for (int dims = 0; dims < 16; ++dims) {
    Recipe r = recipe(133, 304, 64, 2);
    r.batch = 2, r.zero_biases = true;
    r.problem.mask = dims % 2 == 0 ? Mask::boolean : Mask::additive;
    r.problem.mask_dtype = dims % 4 == 3 ? DType::f32 : dtype;
    for (int n = 0; n < 4; ++n) r.broadcast[n] = (dims >> n & 1) != 0;
    r.hides = [](int64_t b, int64_t h, int64_t i, int64_t j) {
      return j / 128 == (b + h + i / 128) % 3;
    };
    expect(r);
  }
}

// A bias of -inf hides a key whatever its scores are, beside keys that other biases leave visible.
TEST_P(Pipeline, AdditiveMasksHideKeysThatAreNotFinite) {
  for (const int64_t d : {64, 128, 256}) {
    for (const float value : {NAN, INFINITY}) {
      Recipe r = recipe(200, 304, d);
      r.problem.mask = Mask::additive, r.problem.mask_dtype = dtype;
      const auto hidden = [](int64_t j) { return j % 13 == 5; };
      r.hides = [=](int64_t, int64_t, int64_t i, int64_t j) { return hidden(j) || i % 7 == j % 5; };
      Case c(r);
      run_flash_on(arch, c);
      const std::string expected = c.output_bytes();
      for (int64_t j = 0; j < r.seq_kv; ++j) {
        for (int64_t x = 0; hidden(j) && x < d; ++x)
          store_float(dtype, c.args.k.data, j * c.args.k.stride[1] + x, value);
      }
      c.poison_outputs();
      run_flash_on(arch, c);
      EXPECT_TRUE(c.output_bytes() == expected) << d << " " << value;
    }
  }
}

// Copies bring a mask's rows if these begin at multiples of 16 bytes; else the generic kernel reads
// them. A plan knows both kernels.
TEST_P(Pipeline, KernelsOfMasks) {
  const auto kernel_of = [this](const auto& change) {
    Recipe r = recipe(150, 304, 64, 2);
    r.problem.mask = Mask::boolean;
    change(r);
    const Case c(r);
    const hip::FlashPlan plan = hip::plan_flash(c.problem, {arch, 3});
    std::vector<char> workspace(static_cast<size_t>(plan.workspace_bytes));
    hip::Launch launches[8];
    const int32_t count = hip::launches(plan, c.problem, c.args, workspace.data(), launches);
    EXPECT_GT(count, 0);
    const std::string kernel = launches[count - 1].kernel;
    r.seq_kv = 304;  // what is planned for need not be what is run
    const int32_t known = hip::kernels_of(plan, c.problem, Case(r).args, launches);
    EXPECT_TRUE(std::any_of(launches, launches + known,
                            [&](const hip::Launch& l) { return l.kernel == kernel; }));
    return kernel;
  };
  const std::string masked = "flash_attention_sm90_masked_kernel",
                    generic = "flash_attention_sm90_kernel";
  EXPECT_EQ(kernel_of([](Recipe&) {}), masked);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.problem.causal = true; }), masked);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.seq_kv = 303; }), generic);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.problem.softcap = 2; }), generic);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.problem.alibi = true; }), generic);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.problem.scale = -1; }), generic);
  EXPECT_EQ(kernel_of([this](Recipe& r) {
              r.problem.mask = Mask::additive, r.problem.mask_dtype = dtype;
            }),
            masked);
  EXPECT_EQ(kernel_of([](Recipe& r) {
              r.problem.mask = Mask::additive, r.problem.mask_dtype = DType::f32;
            }),
            generic);
  EXPECT_EQ(kernel_of([](Recipe& r) { r.problem.head_dim = r.problem.head_dim_v = 512; }), generic);
}

// One launch and no workspace if each workgroup has one block; else the counter is reset first.
TEST_P(Pipeline, Launches) {
  for (const int32_t extra : {0, 1}) {
    Problem p = recipe(1, 1, 128).problem;
    p.batch = 1, p.heads_q = p.heads_kv = 8 + extra, p.seq_q = p.seq_kv = 128;
    const hip::FlashPlan plan = hip::plan_flash(p, {arch, 8});
    EXPECT_EQ(plan.workspace_bytes, extra * 16);
    const Case c(recipe(128, 128, 128, 8 + extra, 8 + extra));
    hip::Launch launches[8];
    uint32_t counter[4];
    ASSERT_EQ(hip::launches(plan, p, c.args, counter, launches), 1 + extra);
    EXPECT_EQ(launches[extra].grid[0], 8U);
    EXPECT_STREQ(launches[extra].kernel, "flash_attention_sm90_nocausal_kernel");
    if (extra == 1) {
      EXPECT_STREQ(launches[0].kernel, "flash_attention_sm90_prepare_kernel");
      EXPECT_EQ(launches[0].grid[0], 1U);
      EXPECT_EQ(launches[0].block, 32U);
    }
  }
}

// Only this loop serves head dimensions above 256; its warpgroups then share their queries.
TEST_P(Pipeline, LargeHeadDims) {
  Recipe r = recipe(70, 139, 512, 2);
  expect(r);
  r.batch = 2, r.problem.causal = true;
  expect(r);
  r.problem.causal = false, r.problem.mask = Mask::additive, r.problem.mask_dtype = dtype;
  expect(r);
  r.problem.mask = Mask::boolean, r.problem.head_dim = 264, r.problem.head_dim_v = 328;
  expect(r);
  r.problem.mask = Mask::none, r.problem.head_dim_v = 64;
  expect(r);
  // One step of 32 keys to five, for both warpgroups in turn; references that rise in any of them.
  for (const int64_t seq_kv : {1, 32, 33, 64, 65, 96, 97, 128, 160}) {
    Recipe steps = recipe(150, seq_kv, 512, 2);
    steps.magnitude = 6;
    steps.problem.sinks = steps.problem.lse = true;
    expect(steps);
    steps.problem.causal = true;
    expect(steps);
  }
  std::string reason;
  EXPECT_FALSE(hip::flash_supported(r.problem, {"sm_80"}, &reason));
  EXPECT_EQ(reason, "head_dim 264 is not a multiple of 8 from 8 to 256");
  r.problem.head_dim = 520;
  EXPECT_FALSE(hip::flash_supported(r.problem, {arch}, &reason));
  EXPECT_EQ(reason, "head_dim 520 is not a multiple of 8 from 8 to 512");
}

// Blocks are numbered in 32 bits.
TEST_P(Pipeline, AsManyBlocksAsNumbers) {
  Problem p = recipe(1, 1, 128).problem;
  p.batch = 1 << 12, p.heads_q = p.heads_kv = 1 << 8;
  p.seq_q = 128 * 2047;
  EXPECT_TRUE(hip::flash_supported(p, {arch}, nullptr));
  p.seq_q = 128 * 2048;
  std::string reason;
  EXPECT_FALSE(hip::flash_supported(p, {arch}, &reason));
  EXPECT_EQ(reason, "batch * heads_q * seq_q / 128 is above 2147483647");
}

// More heads than a grid may have along y: the rest goes along z.
TEST(FlashGrid, ManyHeads) {
  Problem p;
  p.head_dim = p.head_dim_v = 32, p.batch = 22000, p.heads_q = p.heads_kv = 3, p.seq_q = 700;
  Args args;
  args.q.shape[0] = p.batch, args.q.shape[1] = p.seq_q, args.q.shape[2] = args.k.shape[2] = 3,
  args.k.shape[1] = 1;
  hip::Launch launch;
  const hip::FlashPlan plan = hip::plan_flash(p, {"gfx1100"});
  ASSERT_EQ(hip::launches(plan, p, args, nullptr, &launch), 1);
  EXPECT_EQ(launch.grid[0], (700 + plan.rows - 1) / plan.rows);
  EXPECT_EQ(launch.grid[1], 65535u);
  EXPECT_EQ(launch.grid[2], 2u);
}

// Offsets within a step of keys are counted in 32 bits.
TEST(FlashGrid, RefusesRowsTooFarApart) {
  Problem p;
  p.head_dim = p.head_dim_v = 64, p.seq_q = p.seq_kv = 64;
  Args args;
  args.q.shape[0] = args.q.shape[2] = args.k.shape[2] = 1, args.q.shape[1] = args.k.shape[1] = 64;
  hip::Launch launch;
  const hip::FlashPlan plan = hip::plan_flash(p, {"gfx1100"});
  args.k.stride[1] = args.v.stride[1] = (int64_t{1} << 25) - 1;
  EXPECT_EQ(hip::launches(plan, p, args, nullptr, &launch), 1);
  args.v.stride[1] = int64_t{1} << 25;
  EXPECT_EQ(hip::launches(plan, p, args, nullptr, &launch), -1);
}

// Masks, ALiBi, softcap and a diagonal_offset take the generic kernel, causal or not: the other two
// have no code for them.
TEST(FlashKernel, DependsOnTheProblemAlone) {
  for (const Mask mask : {Mask::none, Mask::boolean, Mask::additive}) {
    for (const bool alibi : {false, true}) {
      for (const float softcap : {0.0F, 20.0F}) {
        for (const bool causal : {false, true}) {
          Problem p;
          p.head_dim = p.head_dim_v = 64, p.mask = mask, p.alibi = alibi;
          p.seq_q = kFewQueries + 1;
          p.softcap = softcap, p.causal = causal;
          const bool generic = mask != Mask::none || alibi || softcap != 0;
          const char* want = generic  ? "flash_attention_kernel"
                             : causal ? "flash_attention_causal_kernel"
                                      : "flash_attention_nocausal_kernel";
          EXPECT_STREQ(hip::plan_flash(p, {"gfx1100"}).kernel, want);
          EXPECT_STREQ(hip::plan_flash(p, {"sm_90"}).kernel, want);
          p.diagonal_offset = true;
          EXPECT_STREQ(hip::plan_flash(p, {"sm_90"}).kernel, "flash_attention_kernel");
        }
      }
    }
  }
}

}  // namespace
}  // namespace kernels::test
