// tests/kernels/hip/mask_states_test.cpp: what is found of a mask's tiles before attention, and
// what the main kernel then leaves out
#include "kernels/hip/mask_states.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/hip/expect.hpp"
#include "tests/kernels/hip/targets.hpp"
#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {
namespace {

class MaskStates : public testing::TestWithParam<Target> {
 protected:
  const char* arch = GetParam().arch;
  DType dtype = GetParam().dtype;

  Recipe recipe(int64_t head_dim, Mask mask, DType mask_dtype) const {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.heads_q = r.problem.heads_kv = 2;
    r.problem.head_dim = r.problem.head_dim_v = head_dim;
    r.problem.lse = true;
    r.problem.mask = mask, r.problem.mask_dtype = mask_dtype;
    r.gap = 8;
    r.batch = 2, r.seq_q = 150, r.seq_kv = 400;
    r.problem.seq_q = r.seq_q;  // few queries would take other kernels
    r.zero_biases = true;
    return r;
  }
  // Plans and makes the launches of a case: the look at the mask, and attention by one kernel or
  // by one of two.
  void make_launches(const Case& c) {
    plan = hip::plan_flash(c.problem, {arch, 3});
    plan.always_scans_masks = true;
    workspace.assign(static_cast<size_t>(plan.workspace_bytes), '\xFF');
    ASSERT_GE(hip::launches(plan, c.problem, c.args, workspace.data(), launches), 2);
    std::memcpy(&prepare, launches[0].params, sizeof prepare);
  }

  hip::FlashPlan plan;
  std::vector<char> workspace;
  hip::Launch launches[8];
  hip::PrepareParams prepare;
};
INSTANTIATE_TEST_SUITE_P(Pipelined, MaskStates, testing::ValuesIn(kPipelinedTargets),
                         [](const auto& test) { return name_of(test.param); });

// The state that a tile of a mask should have, key by key.
hip::TileState state_of(const Case& c, int64_t rows, int64_t keys, int64_t b, int64_t h,
                        int64_t block, int64_t step) {
  const Tensor& m = c.args.mask;
  const bool whole = (block + 1) * rows <= m.shape[2] || m.stride[2] == 0;
  bool all_hidden = true, all_clear = true;
  for (int64_t i = block * rows; i < std::min((block + 1) * rows, m.shape[2]); ++i) {
    for (int64_t j = step * keys; j < std::min((step + 1) * keys, m.shape[3]); ++j) {
      const int64_t at = b * m.stride[0] + h * m.stride[1] + i * m.stride[2] + j * m.stride[3];
      const float bias = m.dtype != DType::boolean ? load_float(m.dtype, m.data, at)
                         : static_cast<const uint8_t*>(m.data)[at] != 0 ? 0
                                                                        : -INFINITY;
      all_hidden = all_hidden && bias == -INFINITY;
      all_clear = all_clear && bias == 0;
    }
  }
  if (all_hidden) return hip::kTileHidden;
  if (!all_clear) return hip::kTileMixed;
  return whole || m.dtype != DType::boolean ? hip::kTileClear : hip::kTileClearRows;
}

// Tiles of every state, the last ones in part outside; in some tiles only one element differs.
TEST_P(MaskStates, AreThoseOfEachTile) {
  for (const int64_t d : {64, 256, 512}) {
    for (const DType mask_dtype : {DType::boolean, DType::f32, dtype}) {
      const bool boolean = mask_dtype == DType::boolean;
      Recipe r = recipe(d, boolean ? Mask::boolean : Mask::additive, boolean ? dtype : mask_dtype);
      const hip::FlashPlan tile = hip::plan_flash(r.problem, {arch});
      const int64_t rows = tile.rows, keys = tile.keys;
      r.hides = [=](int64_t b, int64_t h, int64_t i, int64_t j) {
        const int64_t state = (b * 7 + h * 5 + i / rows * 3 + j / keys) % 4;
        const bool odd_one = i % rows == 21 && j % keys == 8;
        return state == 0 || (state == 1 && odd_one) || (state == 3 && !odd_one);
      };
      for (const bool heads_share : {false, true}) {
        r.broadcast[1] = heads_share;
        Case c(r);
        constexpr int64_t seq_kv = 393;  // the last tile ends within a word, at its odd element
        c.args.k.shape[1] = c.args.v.shape[1] = c.args.mask.shape[3] = seq_kv;
        make_launches(c);
        run_launch(arch, launches[0], 0);
        const int64_t of_tile = prepare.rows;  // of the kernel that the run takes
        for (int64_t b = 0; b < 2; ++b) {
          for (int64_t h = 0; h < 2; ++h) {
            for (int64_t block = 0; block * of_tile < r.seq_q; ++block) {
              const uint8_t* states = prepare.states.first + b * prepare.states.batch +
                                      h * prepare.states.head + block * prepare.states.block;
              for (int64_t step = 0; step * keys < seq_kv; ++step) {
                EXPECT_EQ(states[step], state_of(c, of_tile, keys, b, h, block, step))
                    << d << " batch " << b << " head " << h << " block " << block << " step "
                    << step;
              }
            }
          }
        }
      }
    }
  }
}

// NaN, the lowest number, infinity and small numbers are biases; both zeros are none.
TEST_P(MaskStates, AreMixedWhereABiasIsNeither0NorInfinite) {
  Recipe r = recipe(64, Mask::additive, dtype);
  r.hides = [](int64_t, int64_t, int64_t, int64_t) { return false; };
  for (const float bias : {NAN, INFINITY, -60000.0F, 1e-7F, -0.0F}) {
    const Case c(r);
    make_launches(c);
    store_float(dtype, c.args.mask.data, 3 * c.args.mask.stride[2] + 5, bias);
    run_launch(arch, launches[0], 0);
    EXPECT_EQ(prepare.states.first[0], bias == 0 ? hip::kTileClear : hip::kTileMixed) << bias;
    EXPECT_EQ(prepare.states.first[1], hip::kTileClear);
  }
}

// Once its tiles are known, neither hidden nor clear ones of the mask are read again, nor K and V
// of steps that are hidden.
TEST_P(MaskStates, LeaveOutMasksAndKeys) {
  for (const int64_t d : {64, 256, 512}) {
    for (const Mask mask : {Mask::boolean, Mask::additive}) {
      Recipe r = recipe(d, mask, dtype);
      const hip::FlashPlan tile = hip::plan_flash(r.problem, {arch});
      const int64_t keys = tile.keys;
      r.seq_q = 2 * int64_t{tile.rows};
      const auto hidden = [=](int64_t j) { return j / keys % 3 == 1; };
      r.hides = [=](int64_t, int64_t, int64_t, int64_t j) { return hidden(j); };
      Case c(r);
      make_launches(c);
      run_launch(arch, launches[0], 0);
      run_launch(arch, launches[1], 0);
      const std::string expected = c.output_bytes();
      for (int64_t b = 0; b < 2; ++b) {
        for (int64_t h = 0; h < 2; ++h) {
          for (int64_t j = 0; j < r.seq_kv; ++j) {
            for (int64_t i = 0; i < r.seq_q; ++i) {
              const int64_t at = b * c.args.mask.stride[0] + h * c.args.mask.stride[1] +
                                 i * c.args.mask.stride[2] + j;
              if (mask == Mask::boolean) {
                static_cast<uint8_t*>(c.args.mask.data)[at] = hidden(j) ? 1 : 0;
              } else {
                store_float(dtype, c.args.mask.data, at, NAN);
              }
            }
            for (int64_t x = 0; hidden(j) && x < d; ++x) {
              store_float(
                  dtype, c.args.v.data,
                  b * c.args.v.stride[0] + j * c.args.v.stride[1] + h * c.args.v.stride[2] + x,
                  NAN);
            }
          }
        }
      }
      std::memset(workspace.data(), 0, sizeof(uint32_t));  // no block is taken yet
      c.poison_outputs();
      run_launch(arch, launches[1], 0);
      EXPECT_TRUE(c.output_bytes() == expected) << d;
    }
  }
}

// Of a masked and a plain kernel the plain one works if the mask hides nothing of a query that
// exists, else the masked one. The other one writes nothing.
TEST_P(MaskStates, ChooseTheKernel) {
  for (const int64_t d : {64, 128}) {
    for (const bool causal : {false, true}) {
      Recipe r = recipe(d, Mask::boolean, dtype);
      r.problem.causal = causal;
      r.broadcast[1] = true;
      r.hides = [](int64_t, int64_t, int64_t, int64_t) { return false; };
      for (const bool one_hidden : {false, true}) {
        SCOPED_TRACE(std::to_string(d) + (causal ? " causal" : "") + (one_hidden ? " hidden" : ""));
        Case c(r);
        const Tensor& m = c.args.mask;
        if (one_hidden)
          static_cast<char*>(m.data)[m.stride[0] + 149 * m.stride[2] + 399 * m.stride[3]] = 0;
        make_launches(c);
        workspace.assign(workspace.size(), '\xFE');  // states that are not found say "hidden"
        EXPECT_STREQ(launches[2].kernel, causal ? "flash_attention_sm90_causal_kernel"
                                                : "flash_attention_sm90_nocausal_kernel");
        c.poison_outputs();
        const std::string poison = c.output_bytes();
        run_launch(arch, launches[0], 0);
        const int works = one_hidden ? 1 : 2;
        run_launch(arch, launches[3 - works], 0);
        EXPECT_TRUE(c.output_bytes() == poison);
        run_launch(arch, launches[works], 0);
        expect_accurate(c, reference::expect(c.problem, c.args));
      }
    }
  }
}

// A mask is looked at where much attention shares few bytes of it.
TEST_P(MaskStates, AreFoundWhereItPays) {
  const auto looks = [this](int64_t heads, int64_t seq, int64_t head_dim, Mask mask,
                            int64_t heads_of_mask, int64_t row_stride, int64_t batch = 1,
                            bool batch_invariant = false) {
    Problem p;
    p.dtype = p.mask_dtype = dtype;
    p.batch = batch, p.batch_invariant = batch_invariant;
    p.heads_q = p.heads_kv = heads, p.seq_q = p.seq_kv = seq;
    p.head_dim = p.head_dim_v = head_dim, p.mask = mask;
    alignas(16) static char memory[16];
    const auto tensor = [&](DType type, std::vector<int64_t> shape, std::vector<int64_t> stride) {
      Tensor t{};
      t.data = memory, t.dtype = type, t.ndim = 4;
      std::copy(shape.begin(), shape.end(), t.shape);
      std::copy(stride.begin(), stride.end(), t.stride);
      return t;
    };
    Args args;
    args.q = args.k = args.v = args.out =
        tensor(dtype, {batch, seq, heads, head_dim},
               {seq * heads * head_dim, heads * head_dim, head_dim, 1});
    args.mask = tensor(mask == Mask::boolean ? DType::boolean : dtype, {batch, heads, seq, seq},
                       {0, heads_of_mask == 1 ? 0 : seq * row_stride, row_stride, 1});
    const hip::FlashPlan made = hip::plan_flash(p, {arch, 132});
    EXPECT_GE(hip::launches(made, p, args, memory, launches), 2);
    EXPECT_STREQ(launches[0].kernel, "flash_attention_sm90_prepare_kernel");
    return launches[0].block != 32;
  };
  EXPECT_TRUE(looks(16, 2048, 128, Mask::boolean, 1, 2048));
  EXPECT_EQ(launches[0].grid[0], 16U * 16U);
  EXPECT_TRUE(looks(16, 2048, 128, Mask::additive, 1, 2048));
  EXPECT_FALSE(looks(16, 2048, 128, Mask::boolean, 16, 2048)) << "each head has its own";
  EXPECT_TRUE(looks(16, 2048, 128, Mask::additive, 1, 0)) << "one row";
  EXPECT_EQ(launches[0].grid[0], 16U);
  EXPECT_FALSE(looks(16, 2048, 128, Mask::boolean, 1, 2049)) << "rows at any byte";
  EXPECT_TRUE(looks(4, 8192, 128, Mask::boolean, 1, 8192));
  EXPECT_FALSE(looks(4, 8192, 128, Mask::additive, 1, 8192)) << "twice the bytes";
  EXPECT_TRUE(looks(8, 8192, 64, Mask::boolean, 1, 8192));
  EXPECT_FALSE(looks(7, 8192, 64, Mask::boolean, 1, 8192)) << "half the work";
  EXPECT_FALSE(looks(64, 512, 128, Mask::boolean, 1, 512)) << "too little work";
  EXPECT_TRUE(looks(64, 512, 128, Mask::boolean, 1, 512, 2));
  EXPECT_FALSE(looks(64, 512, 128, Mask::boolean, 1, 512, 2, true)) << "alone it is too little";
}

}  // namespace
}  // namespace kernels::test
