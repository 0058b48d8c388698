// tests/kernels/cpu/attention_test.cpp: shapes, masks and layouts where attention kernels go wrong
#include "kernels/cpu/attention.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/half.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

class CpuAttention : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, CpuAttention, testing::Values(DType::f32, DType::f16, DType::bf16));

TEST_P(CpuAttention, HeadDims) {
  for (const int64_t d : {1, 7, 64, 72, 80, 96, 128, 192, 256, 512}) {
    expect_right(dense_recipe(GetParam(), 19, 70, d, d));
    Recipe other = dense_recipe(GetParam(), 7, 33, d, d == 64 ? 128 : 64);
    other.layout = Layout::gapped;
    expect_right(other);
  }
}

// Lengths around the sizes of tiles, panels, row groups and blocks.
TEST_P(CpuAttention, EdgesOfTiles) {
  for (const int64_t seq_q : {1, 5, 6, 7, 191, 192, 193}) {
    for (const int64_t seq_kv : {1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257}) {
      Recipe r = dense_recipe(GetParam(), seq_q, seq_kv, 16, 8);
      r.problem.causal = seq_kv % 2 == 1;
      expect_right(r);
    }
  }
}

TEST_P(CpuAttention, NothingToDo) {
  expect_right(dense_recipe(GetParam(), 0, 5, 8, 8));
  expect_right(dense_recipe(GetParam(), 5, 0, 8, 8));
  Recipe none = dense_recipe(GetParam(), 5, 5, 8, 8);
  none.batch = 0;
  expect_right(none);
}

// Masks that hide whole tiles at the start, in the middle and at the end, or whole rows; with
// stride 0 in every combination of dimensions.
TEST_P(CpuAttention, Masks) {
  for (const Mask mask : {Mask::boolean, Mask::additive}) {
    for (const Hidden hidden :
         {Hidden::some, Hidden::first, Hidden::middle, Hidden::last, Hidden::rows}) {
      for (int broadcast = 0; broadcast < 16; ++broadcast) {
        Recipe r = dense_recipe(GetParam(), 9, 300, 16, 16);
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

// Masks that hide the first tile and change nothing in the others (0 or -0), or change a single
// key.
TEST_P(CpuAttention, AdditiveMasksThatAddNothing) {
  for (const DType mask_dtype : {DType::f32, GetParam()}) {
    for (const int64_t touched : {-1, 256, 300, 511, 700}) {
      Recipe r = dense_recipe(GetParam(), 40, 701, 16, 16);
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

TEST_P(CpuAttention, CausalTopLeftAndBottomRight) {
  for (const Align align : {Align::top_left, Align::bottom_right}) {
    for (const int64_t seq_kv : {40, 150, 300}) {  // fewer than queries, as many, more
      Recipe r = dense_recipe(GetParam(), 150, seq_kv, 16, 16);
      r.problem.causal = true;
      r.problem.align = align;
      expect_right(r);
    }
  }
}

TEST_P(CpuAttention, Decode) {
  Recipe r = dense_recipe(GetParam(), 1, 300, 128, 128);
  r.problem.heads_q = 16;
  r.problem.kv_lengths = true;
  r.batch = 3;
  r.kv_lengths = {300, 0, 129};
  r.slack = 100;
  expect_right(r);
  r.problem.page_size = 16;
  expect_right(r);
}

TEST_P(CpuAttention, WindowWiderThanAnything) {
  Recipe r = dense_recipe(GetParam(), 20, 30, 8, 8);
  r.problem.window_left = INT64_MAX;
  r.problem.window_right = INT64_MAX;
  expect_right(r);
}

}  // namespace
}  // namespace kernels::test
