// tests/runtime/problem/check_args_test.cpp: tensors that fit a problem, and that do not
#include "problem/check_args.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>

#include "support/tensors.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
constexpr attnrt_dtype kF16{ATTNRT_DTYPE_FLOAT, 16, 1};

// One problem with every kind of tensor that its layout can have, and room in memory for what tests
// do to them.
struct Posed {
  enum Layout { dense, varlen, paged, varlen_paged };

  explicit Posed(Layout layout) {
    problem.heads_q = 4;
    problem.heads_kv = 2;
    problem.head_dim = 16;
    problem.head_dim_v = 8;
    problem.batch = 3;
    problem.seq_q = 8;
    problem.seq_kv = 32;
    problem.lse = problem.alibi = problem.sinks = 1;
    args.struct_size = sizeof args;
    const bool packed = layout == varlen || layout == varlen_paged,
               pages = layout == paged || layout == varlen_paged;
    problem.varlen = packed ? 1 : 0;
    problem.page_size = pages ? 4 : 0;
    problem.kv_lengths = pages ? 1 : 0;
    args.q =
        packed ? view(memory.data(), kF32, {7, 4, 16}) : view(memory.data(), kF32, {2, 5, 4, 16});
    // What is only read may lie in the same place; what is written lies apart.
    float* const out = memory.data() + 2048;
    args.out = packed ? view(out, kF32, {7, 4, 8}) : view(out, kF32, {2, 5, 4, 8});
    args.k = view(memory.data(), kF32, {2, 9, 2, 16});
    args.v = view(memory.data(), kF32, {2, 9, 2, 8});
    if (packed)
      args.k = view(memory.data(), kF32, {9, 2, 16}), args.v = view(memory.data(), kF32, {9, 2, 8});
    if (pages)
      args.k = view(memory.data(), kF32, {6, 4, 2, 16}),
      args.v = view(memory.data(), kF32, {6, 4, 2, 8});
    float* const lse = memory.data() + 3072;
    args.lse = packed ? view(lse, kF32, {4, 7}) : view(lse, kF32, {2, 4, 5});
    args.alibi_slopes = args.sinks = view(memory.data(), kF32, {4});
    if (packed) args.offsets_q = view(memory.data(), kI32, {3});
    if (packed && !pages) args.offsets_kv = view(memory.data(), kI32, {3});
    if (pages)
      args.kv_lengths = view(memory.data(), kI32, {2}),
      args.page_table = view(memory.data(), kI32, {2, 3});
    if (layout != dense) return;
    problem.mask = ATTNRT_MASK_ADDITIVE;
    problem.mask_dtype = kF32;
    args.mask = view(memory.data(), kF32, {2, 4, 5, 9});
    problem.kv_lengths = 1;
    args.kv_lengths = view(memory.data(), kI32, {2});
  }

  std::string check() const {
    attnrt_args copy = args;
    Extents extents;
    attnrt_error error = ATTNRT_ERROR_INIT;
    const attnrt_status status = check_args(problem, copy, &extents, &error);
    EXPECT_TRUE(status == ATTNRT_OK || status == ATTNRT_INVALID_ARGUMENT);
    EXPECT_EQ(error.code, status);
    EXPECT_THAT(error.message, Not(HasSubstr("\n")));
    return status == ATTNRT_OK ? "ok" : error.message;
  }

  Aligned<float> memory{4096};
  Problem problem = ATTNRT_PROBLEM_INIT;
  attnrt_args args{};
};

struct Change {
  const char* what;
  std::function<void(Posed&)> change;
  const char* expected;  // a part of the message, or "ok"
};

void expect_all(Posed::Layout layout, const std::vector<Change>& changes) {
  ASSERT_EQ(Posed(layout).check(), "ok");
  for (const Change& change : changes) {
    Posed posed(layout);
    change.change(posed);
    EXPECT_THAT(posed.check(), HasSubstr(change.expected)) << change.what;
  }
}

void* moved(const attnrt_tensor& tensor, int64_t bytes) {
  return static_cast<char*>(tensor.data) + bytes;
}

TEST(CheckArgs, Dense) {
  expect_all(
      Posed::dense,
      {
          {"q absent", [](Posed& s) { s.args.q = {}; },
           "run: tensor q is absent, but the problem uses it"},
          {"out absent", [](Posed& s) { s.args.out.data = nullptr; }, "tensor out is absent"},
          {"lse absent", [](Posed& s) { s.args.lse = {}; }, "tensor lse is absent"},
          {"sinks absent", [](Posed& s) { s.args.sinks = {}; }, "tensor sinks is absent"},
          {"mask absent", [](Posed& s) { s.args.mask = {}; }, "tensor mask is absent"},
          {"kv_lengths absent", [](Posed& s) { s.args.kv_lengths = {}; },
           "tensor kv_lengths is absent"},
          {"lse surplus", [](Posed& s) { s.problem.lse = 0; },
           "tensor lse is given, but the problem does not use it"},
          {"mask surplus", [](Posed& s) { s.problem.mask = ATTNRT_MASK_NONE; },
           "tensor mask is given"},
          {"alibi surplus", [](Posed& s) { s.problem.alibi = 0; }, "tensor alibi_slopes is given"},
          {"offsets surplus", [](Posed& s) { s.args.offsets_kv = s.args.kv_lengths; },
           "tensor offsets_kv is given"},
          {"pages surplus", [](Posed& s) { s.args.page_table = s.args.kv_lengths; },
           "tensor page_table is given"},
          {"q ndim", [](Posed& s) { s.args.q.ndim = 3; }, "tensor q has 3 dimensions; expected 4"},
          {"q ndim 0", [](Posed& s) { s.args.q.ndim = 0; }, "tensor q has 0 dimensions"},
          {"q ndim absurd", [](Posed& s) { s.args.q.ndim = 1 << 30; }, "dimensions; expected 4"},
          {"k ndim negative", [](Posed& s) { s.args.k.ndim = -4; },
           "tensor k has -4 dimensions; expected 4"},
          {"v ndim", [](Posed& s) { s.args.v.ndim = 3; }, "tensor v has 3 dimensions; expected 4"},
          {"out ndim", [](Posed& s) { s.args.out.ndim = 5; },
           "tensor out has 5 dimensions; expected 4"},
          {"lse ndim", [](Posed& s) { s.args.lse.ndim = 2; },
           "tensor lse has 2 dimensions; expected 3"},
          {"q dtype", [](Posed& s) { s.args.q.dtype = kF16; }, "tensor q is f16; expected f32"},
          {"v dtype", [](Posed& s) { s.args.v.dtype = kBool; }, "tensor v is bool; expected f32"},
          {"dtype lanes", [](Posed& s) { s.args.k.dtype.lanes = 4; },
           "tensor k is f32 of 4 lanes; expected f32"},
          {"mask dtype", [](Posed& s) { s.args.mask.dtype = kBool; },
           "tensor mask is bool; expected f32"},
          {"lse dtype", [](Posed& s) { s.args.lse.dtype = kF16; },
           "tensor lse is f16; expected f32"},
          {"kv_lengths dtype", [](Posed& s) { s.args.kv_lengths.dtype.bits = 64; },
           "tensor kv_lengths is int64; expected int32"},
          {"heads", [](Posed& s) { s.args.q.shape[2] = 2; },
           "tensor q has 2 in dimension 2; expected 4"},
          {"head_dim", [](Posed& s) { s.args.k.shape[3] = 8; },
           "tensor k has 8 in dimension 3; expected 16"},
          {"head_dim_v", [](Posed& s) { s.args.out.shape[3] = 16; },
           "tensor out has 16 in dimension 3; expected 8"},
          {"k batch", [](Posed& s) { s.args.k.shape[0] = 1; },
           "tensor k has 1 in dimension 0; expected 2"},
          {"v rows", [](Posed& s) { s.args.v.shape[1] = 8; },
           "tensor v has 8 in dimension 1; expected 9"},
          {"out rows", [](Posed& s) { s.args.out.shape[1] = 4; },
           "tensor out has 4 in dimension 1; expected 5"},
          {"mask keys", [](Posed& s) { s.args.mask.shape[3] = 8; },
           "tensor mask has 8 in dimension 3; expected 9"},
          {"mask of 5", [](Posed& s) { s.args.mask.ndim = 5; },
           "tensor mask has 5 dimensions; expected 4"},
          {"mask of 0", [](Posed& s) { s.args.mask.ndim = 0; },
           "tensor mask has 0 dimensions; expected 4"},
          {"lse rows", [](Posed& s) { s.args.lse.shape[2] = 6; },
           "tensor lse has 6 in dimension 2; expected 5"},
          {"sinks count", [](Posed& s) { s.args.sinks.shape[0] = 2; },
           "tensor sinks has 2 in dimension 0; expected 4"},
          {"negative shape", [](Posed& s) { s.args.q.shape[1] = -1; },
           "tensor q has -1 in dimension 1; expected at least 0"},
          {"the most negative shape",
           [](Posed& s) { s.args.q.shape[0] = s.args.q.shape[1] = -kLargest - 1; },
           "expected at least 0"},
          {"a huge shape", [](Posed& s) { s.args.q.shape[0] = s.args.q.shape[1] = kLargest; },
           "reaches further than memory can"},
          {"a negative stride", [](Posed& s) { s.args.k.stride[1] = -32; },
           "tensor k has the negative stride -32"},
          {"an overflowing stride", [](Posed& s) { s.args.v.stride[0] = kLargest / 2; },
           "tensor v reaches further than memory can"},
          {"an overflowing mask", [](Posed& s) { s.args.mask.stride[0] = kLargest; },
           "tensor mask reaches further than memory can"},
          {"head_dim's stride", [](Posed& s) { s.args.q.stride[3] = 2; },
           "tensor q has stride 2 in head_dim; expected 1"},
          {"head_dim broadcast", [](Posed& s) { s.args.v.stride[3] = 0; },
           "tensor v has stride 0 in head_dim; expected 1"},
          {"q misaligned", [](Posed& s) { s.args.q.data = moved(s.args.q, 4); },
           "tensor q has rows that do not start at a multiple of 16 bytes"},
          {"k's rows misaligned", [](Posed& s) { s.args.k.stride[1] = 33; },
           "tensor k has rows that do not start at a multiple of 16"},
          {"out misaligned",
           [](Posed& s) {
             s.problem.alignment_bytes = 128;
             s.args.out.data = moved(s.args.out, 64);
           },
           "multiple of 128"},
          {"q between elements",
           [](Posed& s) {
             s.problem.alignment_bytes = 1;
             s.args.q.data = moved(s.args.q, 2);
           },
           "tensor q does not start at a multiple of 4 bytes"},
          {"lse between elements", [](Posed& s) { s.args.lse.data = moved(s.args.lse, 2); },
           "tensor lse does not start at a multiple of 4 bytes"},
          {"mask between elements", [](Posed& s) { s.args.mask.data = moved(s.args.mask, 1); },
           "tensor mask does not start"},
          {"kv_lengths between elements",
           [](Posed& s) { s.args.kv_lengths.data = moved(s.args.kv_lengths, 3); },
           "tensor kv_lengths does not start"},
          {"out broadcast", [](Posed& s) { s.args.out.stride[1] = 0; },
           "tensor out is written to, so it cannot be broadcast"},
          {"lse broadcast", [](Posed& s) { s.args.lse.stride[0] = 0; },
           "tensor lse is written to, so it cannot be broadcast"},
          {"sinks with gaps", [](Posed& s) { s.args.sinks.stride[0] = 2; },
           "tensor sinks is not contiguous"},
          {"kv_lengths broadcast", [](Posed& s) { s.args.kv_lengths.stride[0] = 0; },
           "tensor kv_lengths is not contiguous"},
          {"above batch", [](Posed& s) { s.problem.batch = 1; },
           "batch is 2, above the 1 that was planned for"},
          {"above seq_q", [](Posed& s) { s.problem.seq_q = 4; },
           "seq_q is 5, above the 4 that was planned for"},
          {"above seq_kv", [](Posed& s) { s.problem.seq_kv = 8; },
           "seq_kv is 9, above the 8 that was planned for"},
      });
}

TEST(CheckArgs, WhatIsWrittenOverlapsNothing) {
  // q, k and v begin where memory does, with 640, 576 and 288 elements; out has 320 from 2048 on,
  // lse 40 from 3072 on.
  const auto to = [](attnrt_tensor& tensor, Posed& s, int64_t elements) {
    tensor.data = s.memory.data() + elements;
  };
  expect_all(
      Posed::dense,
      {
          {"out is q", [&](Posed& s) { to(s.args.out, s, 0); },
           "run: tensor out overlaps tensor q; it is written to, so give it memory of its own"},
          {"out on q's last element", [&](Posed& s) { to(s.args.out, s, 636); },
           "tensor out overlaps tensor q"},
          {"out right behind q", [&](Posed& s) { to(s.args.out, s, 640); }, "ok"},
          {"out ends on k", [&](Posed& s) { to(s.args.k, s, 2048 + 316); },
           "tensor out overlaps tensor k"},
          {"out ends before k", [&](Posed& s) { to(s.args.k, s, 2048 + 320); }, "ok"},
          {"out between the rows of v", [&](Posed& s) { s.args.v.stride[0] = 4000; },
           "tensor out overlaps tensor v"},
          {"lse is sinks", [&](Posed& s) { to(s.args.sinks, s, 3072 + 39); },
           "tensor lse overlaps tensor sinks"},
          {"lse behind sinks", [&](Posed& s) { to(s.args.sinks, s, 3072 - 4); }, "ok"},
          {"lse in out", [&](Posed& s) { to(s.args.lse, s, 2048 + 319); },
           "tensor out overlaps tensor lse"},
          {"lse is kv_lengths",
           [&](Posed& s) { to(s.args.lse, s, 4000), s.args.kv_lengths.data = s.args.lse.data; },
           "tensor lse overlaps tensor kv_lengths"},
          {"out of no elements",
           [&](Posed& s) {
             s.args.q.shape[1] = s.args.out.shape[1] = s.args.mask.shape[2] = s.args.lse.shape[2] =
                 0;
             to(s.args.out, s, 0);
           },
           "ok"},
      });
  expect_all(Posed::varlen,
             {{"out is q", [&](Posed& s) { to(s.args.out, s, 0); }, "tensor out overlaps tensor"}});
  expect_all(Posed::varlen_paged,
             {{"lse is page_table", [&](Posed& s) { s.args.page_table.data = s.args.lse.data; },
               "tensor lse overlaps tensor page_table"}});
}

TEST(CheckArgs, WhatIsLegal) {
  const auto kv_rows = [](Posed& s, int64_t rows) {
    s.args.k.shape[1] = s.args.v.shape[1] = s.args.mask.shape[3] = rows;
  };
  expect_all(
      Posed::dense,
      {
          {"no queries",
           [](Posed& s) {
             s.args.q.shape[1] = s.args.out.shape[1] = s.args.mask.shape[2] = s.args.lse.shape[2] =
                 0;
           },
           "ok"},
          {"no batch",
           [](Posed& s) {
             for (auto* t : {&s.args.q, &s.args.k, &s.args.v, &s.args.out, &s.args.mask,
                             &s.args.lse, &s.args.kv_lengths})
               t->shape[0] = 0;
           },
           "ok"},
          {"no keys", [&](Posed& s) { kv_rows(s, 0); }, "ok"},
          {"no keys and no memory for them",
           [&](Posed& s) {
             kv_rows(s, 0);
             s.args.k.data = s.args.v.data = s.args.mask.data = nullptr;
           },
           "ok"},
          {"empty tensors with absurd strides",
           [&](Posed& s) {
             kv_rows(s, 0);
             for (auto* t : {&s.args.k, &s.args.v, &s.args.mask})
               t->stride[0] = t->stride[1] = t->stride[2] = kLargest;
           },
           "ok"},
          {"strides of one row count for nothing",
           [](Posed& s) {
             for (auto* t : {&s.args.q, &s.args.k, &s.args.v, &s.args.out, &s.args.mask,
                             &s.args.lse, &s.args.kv_lengths}) {
               t->shape[0] = 1;
               t->stride[0] = 3;
             }
           },
           "ok"},
          {"broadcast inputs",
           [](Posed& s) { s.args.q.stride[0] = s.args.k.stride[1] = s.args.v.stride[2] = 0; },
           "ok"},
          {"a mask of stride 0",
           [](Posed& s) { s.args.mask.stride[0] = s.args.mask.stride[1] = 0; }, "ok"},
          {"a mask of 3 dimensions",
           [](Posed& s) {
             s.args.mask = view(s.memory.data(), kF32, {4, 5, 9});
           },
           "ok"},
          {"a mask of 2 dimensions",
           [](Posed& s) {
             s.args.mask = view(s.memory.data(), kF32, {5, 9});
           },
           "ok"},
          {"a mask of 1 dimension",
           [](Posed& s) { s.args.mask = view(s.memory.data(), kF32, {9}); }, "ok"},
          {"a mask of ones",
           [](Posed& s) {
             s.args.mask = view(s.memory.data(), kF32, {1, 1, 1, 9});
           },
           "ok"},
          {"heads before rows",
           [](Posed& s) {
             s.args.q.stride[1] = 16;
             s.args.q.stride[2] = 5 * 16;
           },
           "ok"},
          {"at the bounds",
           [](Posed& s) {
             s.problem.batch = 2;
             s.problem.seq_q = 5;
             s.problem.seq_kv = 9;
           },
           "ok"},
          {"rows of a smaller alignment",
           [](Posed& s) {
             s.problem.alignment_bytes = 4;
             s.args.q.data = moved(s.args.q, 4);
           },
           "ok"},
      });
}

TEST(CheckArgs, Varlen) {
  expect_all(
      Posed::varlen,
      {
          {"offsets_q absent", [](Posed& s) { s.args.offsets_q = {}; },
           "tensor offsets_q is absent"},
          {"offsets_kv absent", [](Posed& s) { s.args.offsets_kv = {}; },
           "tensor offsets_kv is absent"},
          {"q of 4 dimensions", [](Posed& s) { s.args.q.ndim = 4; },
           "tensor q has 4 dimensions; expected 3"},
          {"k of 4 dimensions", [](Posed& s) { s.args.k.ndim = 4; },
           "tensor k has 4 dimensions; expected 3"},
          {"out rows", [](Posed& s) { s.args.out.shape[0] = 6; },
           "tensor out has 6 in dimension 0; expected 7"},
          {"v rows", [](Posed& s) { s.args.v.shape[0] = 8; },
           "tensor v has 8 in dimension 0; expected 9"},
          {"lse of a batch",
           [](Posed& s) {
             s.args.lse = view(s.memory.data() + 3072, kF32, {2, 4, 5});
           },
           "tensor lse has 3 dimensions; expected 2"},
          {"no offsets", [](Posed& s) { s.args.offsets_q.shape[0] = 0; }, "tensor offsets_q"},
          {"the most negative offsets", [](Posed& s) { s.args.offsets_q.shape[0] = -kLargest - 1; },
           "tensor offsets_q"},
          {"too many sequences", [](Posed& s) { s.problem.batch = 1; }, "batch is 2, above the 1"},
          {"offsets disagree", [](Posed& s) { s.args.offsets_kv.shape[0] = 4; },
           "tensor offsets_kv has 4 in dimension 0; expected 3"},
          {"offsets of int64", [](Posed& s) { s.args.offsets_q.dtype.bits = 64; },
           "tensor offsets_q is int64; expected int32"},
          {"more rows than one sequence may have", [](Posed& s) { s.problem.seq_q = 1; }, "ok"},
          {"no rows",
           [](Posed& s) { s.args.q.shape[0] = s.args.out.shape[0] = s.args.lse.shape[1] = 0; },
           "ok"},
          {"no sequences",
           [](Posed& s) { s.args.offsets_q.shape[0] = s.args.offsets_kv.shape[0] = 1; }, "ok"},
      });
}

TEST(CheckArgs, Paged) {
  expect_all(Posed::paged,
             {
                 {"page_table absent", [](Posed& s) { s.args.page_table = {}; },
                  "tensor page_table is absent"},
                 {"page size", [](Posed& s) { s.args.k.shape[1] = 8; },
                  "tensor k has 8 in dimension 1; expected 4"},
                 {"pages disagree", [](Posed& s) { s.args.v.shape[0] = 5; },
                  "tensor v has 5 in dimension 0; expected 6"},
                 {"page_table of 1 dimension", [](Posed& s) { s.args.page_table.ndim = 1; },
                  "tensor page_table has 1 dimensions; expected 2"},
                 {"page_table's batch", [](Posed& s) { s.args.page_table.shape[0] = 3; },
                  "tensor page_table has 3 in dimension 0; expected 2"},
                 {"page_table with gaps between rows",
                  [](Posed& s) { s.args.page_table.stride[0] = 4; }, "ok"},
                 {"page_table with gaps in rows", [](Posed& s) { s.args.page_table.stride[1] = 2; },
                  "tensor page_table has stride 2 in its last dimension; expected 1"},
                 {"no pages",
                  [](Posed& s) {
                    s.args.k.shape[0] = s.args.v.shape[0] = 0;
                    s.args.k.data = s.args.v.data = nullptr;
                  },
                  "ok"},
             });
  // seq_kv is a bound here: a mask is as wide as the caller made it.
  const auto masked = [](Posed& s, int64_t keys) {
    s.problem.mask = ATTNRT_MASK_ADDITIVE;
    s.problem.mask_dtype = kF32;
    s.args.mask = view(s.memory.data(), kF32, {2, 4, 5, keys});
  };
  expect_all(Posed::paged, {
                               {"mask at the bound", [&](Posed& s) { masked(s, 32); }, "ok"},
                               {"mask below it", [&](Posed& s) { masked(s, 11); }, "ok"},
                               {"mask above it", [&](Posed& s) { masked(s, 33); },
                                "the mask's seq_kv is 33, above the 32"},
                           });
  expect_all(Posed::varlen_paged,
             {
                 {"offsets_kv surplus", [](Posed& s) { s.args.offsets_kv = s.args.offsets_q; },
                  "tensor offsets_kv is given"},
                 {"k of 3 dimensions", [](Posed& s) { s.args.k.ndim = 3; },
                  "tensor k has 3 dimensions; expected 4"},
                 {"kv_lengths for another batch", [](Posed& s) { s.args.kv_lengths.shape[0] = 3; },
                  "tensor kv_lengths has 3"},
             });
}

// Of two rows that share elements nothing would say which one is written last.
TEST(CheckArgs, ATensorThatIsWrittenDoesNotOverlapItself) {
  expect_all(
      Posed::dense,
      {
          {"rows apart by less than a row", [](Posed& s) { s.args.out.stride[2] = 7; },
           "tensor out overlaps itself: stride 7 in dimension 2 is below 8, which the dimensions "
           "inside it span"},
          {"heads apart by less than a row",
           [](Posed& s) {
             s.args.out.stride[1] = 4, s.args.out.stride[2] = 5 * 8, s.args.out.stride[0] = 160;
           },
           "tensor out overlaps itself: stride 4 in dimension 1 is below 8"},
          {"queries between heads", [](Posed& s) { s.args.out.stride[1] = 24; },
           "tensor out overlaps itself: stride 24 in dimension 1 is below 32"},
          {"sequences apart by less than a sequence",
           [](Posed& s) { s.args.out.stride[0] = 5 * 4 * 8 - 1; },
           "tensor out overlaps itself: stride 159 in dimension 0 is below 160"},
          {"two dimensions with one stride",
           [](Posed& s) { s.args.out.stride[1] = s.args.out.stride[2]; },
           "tensor out overlaps itself: stride 8 in dimension 2 is below 40"},
          {"lse's sequences apart by less than a sequence",
           [](Posed& s) { s.args.lse.stride[0] = 19; },
           "tensor lse overlaps itself: stride 19 in dimension 0 is below 20"},
          {"heads outside", [](Posed& s) { s.args.out.stride[1] = 8, s.args.out.stride[2] = 40; },
           "ok"},
          {"sequences inside",
           [](Posed& s) {
             s.args.out.stride[0] = 8, s.args.out.stride[2] = 16, s.args.out.stride[1] = 64;
           },
           "ok"},
          {"gaps", [](Posed& s) { s.args.out.stride[1] = 36, s.args.out.stride[0] = 200; }, "ok"},
          {"a stride that nothing follows",
           [](Posed& s) {
             s.args.q.shape[0] = s.args.k.shape[0] = s.args.v.shape[0] = s.args.out.shape[0] =
                 s.args.lse.shape[0] = s.args.mask.shape[0] = s.args.kv_lengths.shape[0] = 1;
             s.args.out.stride[0] = 3, s.args.lse.stride[0] = 0;
           },
           "ok"},
          {"inputs may", [](Posed& s) { s.args.k.stride[0] = s.args.v.stride[0] = 16; }, "ok"},
      });
}

TEST(CheckArgs, NoErrorStructAndAnOlderOne) {
  Posed posed(Posed::dense);
  posed.args.q.ndim = 1;
  Extents extents;
  EXPECT_EQ(check_args(posed.problem, posed.args, &extents, nullptr), ATTNRT_INVALID_ARGUMENT);
  attnrt_error older{8, 77, "as it was"};
  EXPECT_EQ(check_args(posed.problem, posed.args, &extents, &older), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(older.message, "as it was");
  EXPECT_EQ(older.code, 77);
}

// Gives k and v the type i8, with scales of the given shape.
void quantise(Posed& s, int32_t kv_scale, std::initializer_list<int64_t> shape) {
  s.problem.kv_dtype = s.args.k.dtype = s.args.v.dtype = {ATTNRT_DTYPE_INT, 8, 1};
  s.problem.alignment_bytes = 8;
  s.problem.kv_scale = kv_scale;
  if (kv_scale == ATTNRT_KV_SCALE_NONE) return;
  s.args.k_scale = s.args.v_scale = view(s.memory.data(), kF32, shape);
}

TEST(CheckArgs, KvTypes) {
  expect_all(Posed::dense,
             {
                 {"without scales", [](Posed& s) { quantise(s, ATTNRT_KV_SCALE_NONE, {}); }, "ok"},
                 {"of a tensor", [](Posed& s) { quantise(s, ATTNRT_KV_SCALE_TENSOR, {1}); }, "ok"},
                 {"of heads", [](Posed& s) { quantise(s, ATTNRT_KV_SCALE_HEAD, {2}); }, "ok"},
                 {"of tokens",
                  [](Posed& s) {
                    quantise(s, ATTNRT_KV_SCALE_TOKEN, {2, 9, 2});
                  },
                  "ok"},
                 {"of too few heads", [](Posed& s) { quantise(s, ATTNRT_KV_SCALE_HEAD, {1}); },
                  "tensor k_scale has 1 in dimension 0; expected 2"},
                 {"of tokens with a head_dim",
                  [](Posed& s) {
                    quantise(s, ATTNRT_KV_SCALE_TOKEN, {2, 9, 2, 1});
                  },
                  "tensor k_scale has 4 dimensions; expected 3"},
                 {"v_scale alone is missing",
                  [](Posed& s) {
                    quantise(s, ATTNRT_KV_SCALE_HEAD, {2});
                    s.args.v_scale = {};
                  },
                  "tensor v_scale is absent, but the problem uses it"},
                 {"k in q's dtype",
                  [](Posed& s) {
                    quantise(s, ATTNRT_KV_SCALE_HEAD, {2});
                    s.args.k.dtype = kF32;
                  },
                  "tensor k is f32; expected i8"},
                 {"out in f32 where q is f16",
                  [](Posed& s) {
                    s.problem.dtype = s.args.q.dtype = s.args.k.dtype = s.args.v.dtype = kF16;
                    s.problem.out_dtype = kF32;
                  },
                  "ok"},
                 {"out in f16 where f32 was asked for",
                  [](Posed& s) {
                    s.problem.dtype = s.args.q.dtype = s.args.k.dtype = s.args.v.dtype = kF16;
                    s.args.out.dtype = kF16;
                    s.problem.out_dtype = kF32;
                  },
                  "tensor out is f16; expected f32"},
                 {"v in k",
                  [](Posed& s) {
                    s.problem.v_in_k = 1;
                    s.args.v = {};
                  },
                  "ok"},
                 {"v in k, and v", [](Posed& s) { s.problem.v_in_k = 1; },
                  "tensor v is given, but the problem does not use it"},
                 {"diagonal offsets",
                  [](Posed& s) {
                    s.problem.diagonal_offset = 1;
                    s.args.diagonal_offset = view(s.memory.data(), kI32, {2});
                  },
                  "ok"},
                 {"too many diagonal offsets",
                  [](Posed& s) {
                    s.problem.diagonal_offset = 1;
                    s.args.diagonal_offset = view(s.memory.data(), kI32, {3});
                  },
                  "tensor diagonal_offset has 3 in dimension 0; expected 2"},
                 {"slopes for each sequence",
                  [](Posed& s) {
                    s.args.alibi_slopes = view(s.memory.data(), kF32, {2, 4});
                  },
                  "ok"},
                 {"slopes for a sequence too many",
                  [](Posed& s) {
                    s.args.alibi_slopes = view(s.memory.data(), kF32, {3, 4});
                  },
                  "tensor alibi_slopes has 3 in dimension 0; expected 2"},
             });
}

TEST(CheckArgs, PluginsFindAllDimensions) {
  Posed posed(Posed::dense);
  quantise(posed, ATTNRT_KV_SCALE_HEAD, {2});
  attnrt_args args = posed.args;
  Extents extents;
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(check_args(posed.problem, args, &extents, &error), ATTNRT_OK) << error.message;
  const auto expect = [](const attnrt_tensor& tensor, std::vector<int64_t> shape,
                         std::vector<int64_t> stride) {
    EXPECT_EQ(std::vector<int64_t>(tensor.shape, tensor.shape + tensor.ndim), shape);
    EXPECT_EQ(std::vector<int64_t>(tensor.stride, tensor.stride + tensor.ndim), stride);
  };
  expect(args.alibi_slopes, {2, 4}, {0, 1});
  expect(args.k_scale, {2, 9, 2}, {0, 0, 1});
  expect(args.v_scale, {2, 9, 2}, {0, 0, 1});
  quantise(posed, ATTNRT_KV_SCALE_TENSOR, {1});
  args = posed.args;
  ASSERT_EQ(check_args(posed.problem, args, &extents, &error), ATTNRT_OK) << error.message;
  expect(args.k_scale, {2, 9, 2}, {0, 0, 0});
}

TEST(ReadArgs, MovesDataByTheOffset) {
  Posed posed(Posed::dense);
  posed.args.k.byte_offset = 64;
  posed.args.mask = {};
  posed.args.mask.byte_offset = 8;  // of an absent tensor: nothing to move
  attnrt_args args{};
  ASSERT_TRUE(read_args(posed.args, &args));
  EXPECT_EQ(args.k.data, moved(posed.args.k, 64));
  EXPECT_EQ(args.k.byte_offset, 0);
  EXPECT_EQ(args.q.data, posed.args.q.data);
  EXPECT_EQ(args.mask.data, nullptr);
}

TEST(ReadArgs, RefusesOffsetsAndReservedFields) {
  const auto refusal = [](void (*change)(attnrt_args&)) {
    Posed posed(Posed::dense);
    change(posed.args);
    attnrt_args args{};
    const auto read = read_args(posed.args, &args);
    return read ? "accepted" : read.error().message;
  };
  EXPECT_EQ(refusal([](attnrt_args& a) { a.v.byte_offset = -1; }),
            "run: tensor v: byte_offset is -1; expected 0 to the end of memory");
  EXPECT_EQ(refusal([](attnrt_args& a) {
              a.q.data = reinterpret_cast<void*>(UINTPTR_MAX - 15);
              a.q.byte_offset = 16;
            }),
            "run: tensor q: byte_offset is 16; expected 0 to the end of memory");
  EXPECT_EQ(refusal([](attnrt_args& a) { a.lse.reserved[1] = 7; }),
            "run: tensor lse: a reserved field is 7; leave it at zero");
  EXPECT_EQ(refusal([](attnrt_args& a) { a.reserved = 3; }),
            "args: reserved is 3; leave it at zero");
}

}  // namespace
}  // namespace attnrt::core
