// tests/kernels/emulator/attention_test.cpp: the code objects of a GPU, on the shapes and values
// where attention kernels go wrong
//
// These tests run what the compiler made of the kernels: every kernel of every code object, and
// each path that a kernel chooses at run time. The tests of the host build (../hip) run the same
// sources on many more shapes.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "kernels/hip/launch/family.hpp"
#include "tests/kernels/emulator/library.hpp"
#include "tests/kernels/hip/expect.hpp"

namespace kernels::test {
namespace {

struct Object {
  DType dtype;
  int dim;
};

std::string name_of(const Object& o) {
  return (o.dtype == DType::f32   ? "f32_"
          : o.dtype == DType::f16 ? "f16_"
                                  : "bf16_") +
         std::to_string(o.dim);
}
void PrintTo(const Object& o, std::ostream* out) { *out << name_of(o); }

// A plan for so many queries takes its work from a list.
constexpr int64_t kFewQueries = 32;

class Emulated : public testing::TestWithParam<Object> {
 protected:
  const DType dtype = GetParam().dtype;
  const int dim = GetParam().dim;
  const hip::TileFacts tile = hip::tile_facts(hip::family_of(emulated_arch), dtype, dim);

  Recipe recipe(int64_t seq_q, int64_t seq_kv, int64_t head_dim = 0) const {
    Recipe r;
    r.problem.dtype = dtype;
    r.problem.head_dim = r.problem.head_dim_v = head_dim == 0 ? dim : head_dim;
    r.problem.lse = true;
    r.seq_q = seq_q, r.seq_kv = seq_kv;
    r.layout = Layout::gapped;
    r.gap = 8;
    if (seq_q <= kFewQueries) r.slack = kFewQueries;  // bounds above it choose the loop
    return r;
  }
  void expect(const Recipe& r) const { expect_right_on(emulated_arch, r); }
  void expect_unfused(const Recipe& r) const { expect_unfused_right_on(emulated_arch, r); }
};
constexpr Object kObjects[] = {{DType::f32, 64},  {DType::f32, 128},  {DType::f32, 256},
                               {DType::f16, 64},  {DType::f16, 128},  {DType::f16, 256},
                               {DType::bf16, 64}, {DType::bf16, 128}, {DType::bf16, 256}};
INSTANTIATE_TEST_SUITE_P(, Emulated, testing::ValuesIn(kObjects),
                         [](const auto& test) { return name_of(test.param); });

// Whole steps, and steps that reach past head_dim, past the last query and past the last key.
TEST_P(Emulated, NoCausal) {
  expect(recipe(tile.rows, 2 * tile.keys));
  Recipe r = recipe(1, tile.keys - 1, dim - 8);
  r.batch = 2;
  expect(r);
  expect(recipe(tile.rows / 2 + 1, 1));
  expect(recipe(3, tile.keys + 1, dim == 64 ? 32 : dim == 128 ? 72 : 136));
}

TEST_P(Emulated, HeadDimsBetween) {
  for (const int64_t d : {80, 96}) {
    if (dim == 128) expect(recipe(17, 70, d));
  }
}

TEST_P(Emulated, Causal) {
  for (const Align align : {Align::bottom_right, Align::top_left}) {
    Recipe r = recipe(tile.rows + 1, 2 * tile.keys + 5);
    r.problem.causal = true, r.problem.align = align;
    expect(r);
  }
  Recipe none = recipe(tile.keys + 20, 20);  // the first queries see nothing
  none.problem.causal = true;
  none.problem.window_left = 9;
  expect(none);
}

TEST_P(Emulated, Windows) {
  for (const auto& [left, right] : {std::pair{40, 7}, {-1, 0}, {0, -1}}) {
    Recipe r = recipe(33, 3 * tile.keys);
    r.problem.window_left = left, r.problem.window_right = right;
    expect(r);
  }
}

TEST_P(Emulated, BooleanMasks) {
  // Rows that can be read in 16-byte words, rows that cannot, and one mask for all heads and
  // queries.
  Recipe wide = recipe(20, 2 * tile.keys);
  wide.problem.mask = Mask::boolean, wide.layout = Layout::bshd;
  expect(wide);
  Recipe rows = recipe(20, tile.keys + 9);
  rows.problem.mask = Mask::boolean, rows.hidden = Hidden::rows;
  expect(rows);
  Recipe one = recipe(20, tile.keys, dim);
  one.problem.heads_q = one.problem.heads_kv = 2;
  one.problem.mask = Mask::boolean, one.problem.causal = true;
  one.broadcast[1] = one.broadcast[2] = true;
  expect(one);
}

TEST_P(Emulated, AdditiveMasks) {
  for (const DType mask_dtype : {dtype, DType::f32}) {
    Recipe wide = recipe(20, 192);
    wide.problem.mask = Mask::additive, wide.problem.mask_dtype = mask_dtype;
    wide.layout = Layout::bshd, wide.hidden = Hidden::first;
    expect(wide);
    if (dtype == DType::f32) break;
  }
  Recipe narrow = recipe(20, tile.keys + 9);
  narrow.problem.mask = Mask::additive, narrow.problem.mask_dtype = dtype,
  narrow.hidden = Hidden::rows;
  expect(narrow);
  Recipe lowest = recipe(5, tile.keys);
  lowest.problem.mask = Mask::additive, lowest.problem.mask_dtype = DType::f32,
  lowest.hidden = Hidden::lowest;
  expect(lowest);
}

TEST_P(Emulated, Features) {
  Recipe grouped = recipe(18, tile.keys + 3);
  grouped.problem.heads_q = 4, grouped.problem.heads_kv = 2, grouped.batch = 2;
  grouped.problem.sinks = true, grouped.problem.softcap = 3, grouped.problem.lse = false;
  expect(grouped);
  Recipe alibi = recipe(40, 2 * tile.keys + 1);
  alibi.problem.alibi = alibi.problem.sinks = true, alibi.problem.scale = -0.2F;
  expect(alibi);
  alibi.problem.causal = true, alibi.problem.softcap = 9;
  expect(alibi);
}

// Scores far apart, so that the softmax reference rises and O is scaled; and scores so large that
// the exponent must not be rounded.
TEST_P(Emulated, LargeLogits) {
  for (const float magnitude : {6.0F, 300.0F}) {
    Recipe r = recipe(17, 2 * tile.keys + 5);
    r.magnitude = magnitude;
    expect(r);
    r.problem.sinks = r.problem.causal = true;
    expect(r);
  }
}

// Sequences of different lengths, packed, in pages, cut in pieces that are merged.
TEST_P(Emulated, Listed) {
  Recipe r = recipe(2, 1);
  r.slack = 0;
  r.problem.heads_q = 4, r.problem.heads_kv = 2;
  r.problem.kv_lengths = r.problem.causal = true;
  r.batch = 3;
  r.kv_lengths = {static_cast<int32_t>(5 * tile.keys + 3), 0, 5};
  r.seq_kv = r.kv_lengths[0];
  r.problem.sinks = true, r.problem.window_left = static_cast<int64_t>(4 * tile.keys);
  expect(r);
  for (const int64_t page_size : {3, 16}) {
    r.problem.page_size = page_size;
    expect(r);
  }
  r.problem.alibi = true, r.problem.softcap = 9, r.problem.page_size = 16;
  expect(r);
  Recipe masked = r;
  masked.problem.page_size = 0;
  masked.problem.mask = Mask::boolean;
  expect(masked);
  Recipe packed = recipe(1, 1);
  packed.slack = 0;
  packed.problem.heads_q = 3, packed.problem.heads_kv = 1;
  packed.problem.varlen = packed.problem.causal = true;
  packed.batch = 4;
  packed.q_lengths = {static_cast<int32_t>(tile.rows), 0, 1, 5};
  packed.kv_lengths = {static_cast<int32_t>(tile.keys) + 9, 3, 40, 5};
  expect(packed);
}

TEST_P(Emulated, Stored) {
  if (dtype == DType::f32) return;  // refused
  for (const DType stored : {DType::i8, DType::f8_e4m3fn, DType::f8_e4m3fnuz}) {
    Recipe r = recipe(2, 1);
    r.slack = 0, r.gap = 16;
    r.problem.kv_dtype = stored, r.problem.kv_scale = KvScale::token;
    r.problem.heads_q = 4, r.problem.heads_kv = 2;
    r.problem.kv_lengths = true;
    r.batch = 3;
    r.kv_lengths = {static_cast<int32_t>(3 * tile.keys + 3), 0, 5};
    r.seq_kv = r.kv_lengths[0];
    expect(r);
    r.problem.page_size = 16, r.problem.alibi = true;
    expect(r);
    r.problem.page_size = 0, r.problem.alibi = false;
    r.problem.kv_scale = KvScale::head;
    expect(r);
    r.problem.kv_scale = KvScale::none, r.problem.sinks = true;
    expect(r);
  }
}

TEST_P(Emulated, Unfused) {
  Recipe plain = recipe(tile.rows + 1, 2 * tile.keys + 1, dim - 8);
  expect_unfused(plain);
  plain.problem.causal = plain.problem.sinks = true, plain.problem.softcap = 5;
  expect_unfused(plain);
  Recipe masked = recipe(20, tile.keys + 1);
  masked.problem.mask = Mask::additive, masked.problem.mask_dtype = dtype,
  masked.hidden = Hidden::rows;
  masked.problem.alibi = true, masked.magnitude = 5;
  expect_unfused(masked);
  masked.problem.mask = Mask::boolean, masked.problem.window_left = 30;
  expect_unfused(masked);
  expect_unfused(recipe(1, 1));
}

}  // namespace
}  // namespace kernels::test
