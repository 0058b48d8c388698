// tests/kernels/hip/flash_attention_test.cpp: the fused GPU kernels, run on the CPU through their real launches, against float64
//
// Every family's fragments are laid out as its hardware lays them out; the threads of a workgroup are fibers whose order a seed
// shuffles, so a missing barrier shows.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/hip/family.hpp"
#include "tests/kernels/hip/host_kernels.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::hip {
namespace {

using test::Case;
using test::Hidden;
using test::Layout;
using test::Recipe;

constexpr const char* kArchs[] = {"gfx1100", "gfx1201", "gfx942", "sm_90", "gfx1030", "gfx906"};
constexpr DType kDTypes[] = {DType::f32, DType::f16, DType::bf16};

void run(const char* arch, const Case& c, uint32_t seed) {
  std::string reason;
  ASSERT_TRUE(flash_supported(c.problem, arch, &reason)) << reason;
  const FlashPlan plan = plan_flash(c.problem, arch);
  Launch launch;
  if (launches(plan, c.problem, c.args, nullptr, &launch) == 0) return;
  const HostKernel kernel =
      host_kernel(family_of(arch), c.problem.dtype, padded_dim(c.problem.head_dim), launch.kernel);
  ASSERT_NE(kernel, nullptr) << launch.kernel;
  AttentionParams params;
  ASSERT_EQ(launch.params_bytes, sizeof params);
  std::memcpy(&params, launch.params, sizeof params);
  gpu::host::run({{launch.grid[0], launch.grid[1], launch.grid[2]}, launch.block, launch.shared_bytes, seed},
                 [&] { kernel(params); });
}

class Flash : public testing::TestWithParam<std::tuple<const char*, DType>> {
 protected:
  const char* arch = std::get<0>(GetParam());
  DType dtype = std::get<1>(GetParam());
  uint32_t seed = 0;

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim, int64_t heads_q = 1, int64_t heads_kv = 1) const {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.heads_q = heads_q, r.problem.heads_kv = heads_kv;
    r.problem.head_dim = r.problem.head_dim_v = head_dim;
    r.problem.lse = true;
    r.seq_q = seq_q, r.seq_kv = seq_kv;
    return r;
  }
  void expect(const Recipe& recipe) {
    SCOPED_TRACE(describe(recipe));
    Case c(recipe);
    c.poison_outputs();
    ASSERT_NO_FATAL_FAILURE(run(arch, c, ++seed));
    test::expect_right(c);
  }
};
std::string name_of(const testing::TestParamInfo<std::tuple<const char*, DType>>& test) {
  const DType dtype = std::get<1>(test.param);
  return std::string(std::get<0>(test.param)) + (dtype == DType::f32 ? "_f32" : dtype == DType::f16 ? "_f16" : "_bf16");
}
INSTANTIATE_TEST_SUITE_P(, Flash, testing::Combine(testing::ValuesIn(kArchs), testing::ValuesIn(kDTypes)), name_of);

TEST_P(Flash, HeadDims) {
  for (const int64_t d : {32, 40, 64, 72, 80, 96, 128, 136, 192, 256}) {
    Recipe r = recipe(17, 70, d, 2);
    r.problem.causal = d % 16 == 8;
    expect(r);
  }
}

TEST_P(Flash, EdgesOfTiles) {
  for (const int64_t d : {64, 128, 256}) {
    const TileFacts tile = tile_facts(family_of(arch), dtype, static_cast<int>(d));
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
      for (const auto& [left, right] : {std::pair{-1, -1}, {0, -1}, {17, -1}, {-1, 9}, {70, 3}, {0, 0}}) {
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
        for (const int64_t seq_kv : {192, 201}) {  // rows that can be read in 16-byte words, and rows that cannot
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
      Recipe r = recipe(70, 150, d, 4, 2);
      r.batch = 2;
      change(r);
      expect(r);
    }
  };
  with([](Recipe& r) { r.problem.softcap = 3; });
  with([](Recipe& r) { r.problem.alibi = true; });
  with([](Recipe& r) { r.problem.sinks = true; });
  with([](Recipe& r) { r.problem.scale = -0.7F; });
  with([](Recipe& r) { r.problem.lse = false; });
  with([](Recipe& r) { r.layout = Layout::bhsd; });
  with([](Recipe& r) { r.slack = 9; });
  with([](Recipe& r) { r.magnitude = 40; });
  with([](Recipe& r) { r.problem.sinks = r.problem.alibi = r.problem.causal = true, r.problem.softcap = 9; });
  with([](Recipe& r) {
    r.problem.sinks = r.problem.alibi = true, r.problem.mask = Mask::additive, r.problem.mask_dtype = r.problem.dtype;
    r.problem.window_left = 60;
  });
  with([](Recipe& r) { r.problem.sinks = true, r.problem.mask = Mask::boolean, r.hidden = Hidden::rows; });
}

// Logits around 1e9: what separates weights is far below their size.
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

TEST(FlashGrid, ManyHeads) {
  Recipe r;
  r.problem.dtype = DType::f16;
  r.problem.head_dim = r.problem.head_dim_v = 32;
  r.problem.heads_q = r.problem.heads_kv = 3;
  r.batch = 22000, r.seq_q = 1, r.seq_kv = 2;  // 66000 heads: more than a grid's y
  Case c(r);
  c.poison_outputs();
  ASSERT_NO_FATAL_FAILURE(run("sm_90", c, 0));
  test::expect_right(c);
}

TEST(FlashChoice, IsATable) {
  for (const Mask mask : {Mask::none, Mask::boolean, Mask::additive}) {
    for (const bool alibi : {false, true}) {
      for (const bool causal : {false, true}) {
        Problem p;
        p.head_dim = p.head_dim_v = 64, p.mask = mask, p.alibi = alibi, p.causal = causal;
        const char* want = mask != Mask::none || alibi ? "flash_attention_kernel"
                           : causal                    ? "flash_attention_causal_kernel"
                                                       : "flash_attention_nocausal_kernel";
        EXPECT_STREQ(plan_flash(p, "gfx1100").kernel, want);
        EXPECT_STREQ(plan_flash(p, "sm_90").kernel, want);
      }
    }
  }
}

}  // namespace

HostKernel host_kernel(Family family, DType dtype, int dim, std::string_view name) {
  switch (family) {
    case Family::wmma_gfx11: return host_kernel<Family::wmma_gfx11>(dtype, dim, name);
    case Family::wmma_gfx12: return host_kernel<Family::wmma_gfx12>(dtype, dim, name);
    case Family::mfma: return host_kernel<Family::mfma>(dtype, dim, name);
    case Family::mma_sm80: return host_kernel<Family::mma_sm80>(dtype, dim, name);
    case Family::valu64: return host_kernel<Family::valu64>(dtype, dim, name);
    case Family::valu_large: return host_kernel<Family::valu_large>(dtype, dim, name);
    case Family::valu32: break;
  }
  return host_kernel<Family::valu32>(dtype, dim, name);
}

}  // namespace kernels::hip
