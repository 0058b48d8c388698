// tests/runtime/problem/infer_test.cpp: the problem that a run's tensors pose
#include "problem/infer.hpp"

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

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();

class Infer : public ::testing::Test {
 protected:
  Infer() {
    args.struct_size = sizeof args;
    args.q = view(memory.data(), kF32, {2, 5, 8, 16});
    args.k = view(memory.data(), kF32, {2, 9, 2, 16});
    args.v = view(memory.data(), kF32, {2, 9, 2, 24});
    args.out = view(memory.data(), kF32, {2, 5, 8, 24});
  }
  Problem inferred() {
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(infer_problem(args, &problem, &error), ATTNRT_OK) << error.message;
    return problem;
  }
  std::string refusal() {
    const Problem before = problem;
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(infer_problem(args, &problem, &error), ATTNRT_INVALID_ARGUMENT);
    EXPECT_EQ(std::memcmp(&before, &problem, sizeof before), 0)
        << "outputs are written on success only";
    return error.message;
  }
  attnrt_tensor any(attnrt_dtype dtype, std::initializer_list<int64_t> shape) {
    return view(memory.data(), dtype, shape);
  }

  Aligned<float> memory{64};
  attnrt_args args{};
  Problem problem = default_problem();
};

TEST_F(Infer, DimensionsAndDtype) {
  EXPECT_EQ(describe(inferred()),
            "device=cpu dtype=f32 batch=2 heads_q=8 heads_kv=2 seq_q=5 seq_kv=9 head_dim=16 "
            "head_dim_v=24");
}

TEST_F(Infer, AttributesAreTheCallers) {
  std::string arch;
  ASSERT_TRUE(parse_problem(
      "device=rocm:1 scale=0.5 causal=true align=top_left window_left=3 window_right=0 softcap=2 "
      "deterministic=true",
      problem, arch));
  const Problem before = problem;
  const Problem after = inferred();
  EXPECT_EQ(describe(after),
            "device=rocm:1 dtype=f32 batch=2 heads_q=8 heads_kv=2 seq_q=5 seq_kv=9 head_dim=16 "
            "head_dim_v=24 "
            "scale=0.5 causal=true align=top_left window_left=3 window_right=0 softcap=2 "
            "deterministic=true");
  EXPECT_EQ(after.device_id, before.device_id);
}

TEST_F(Infer, EachFeatureFromItsTensor) {
  struct Feature {
    attnrt_tensor attnrt_args::*tensor;
    attnrt_tensor value;
    const char* words;
  };
  const std::vector<Feature> features = {
      {&attnrt_args::mask, any(kBool, {5, 9}), "mask=boolean"},
      {&attnrt_args::mask, any(kF32, {5, 9}), "mask=additive"},
      {&attnrt_args::mask, any({ATTNRT_DTYPE_FLOAT, 16, 1}, {5, 9}),
       "mask=additive mask_dtype=f16"},
      {&attnrt_args::lse, any(kF32, {2, 8, 5}), "lse=true"},
      {&attnrt_args::alibi_slopes, any(kF32, {8}), "alibi=true"},
      {&attnrt_args::sinks, any(kF32, {8}), "sinks=true"},
      {&attnrt_args::kv_lengths, any(kI32, {2}), "kv_lengths=true"},
  };
  const std::string plain = describe(inferred());
  for (const Feature& feature : features) {
    args.*feature.tensor = feature.value;
    EXPECT_EQ(describe(inferred()), plain + " " + feature.words);
    args.*feature.tensor = {};
    EXPECT_EQ(describe(inferred()), plain) << "what is absent is off again: " << feature.words;
  }
}

TEST_F(Infer, VarlenBounds) {
  args.q = any(kF32, {70, 8, 16});
  args.k = any(kF32, {90, 2, 16});
  args.v = any(kF32, {90, 2, 24});
  args.out = any(kF32, {70, 8, 24});
  args.offsets_q = args.offsets_kv = any(kI32, {4});
  EXPECT_EQ(describe(inferred()),
            "device=cpu dtype=f32 batch=3 heads_q=8 heads_kv=2 seq_q=70 seq_kv=90 head_dim=16 "
            "head_dim_v=24 varlen=true");
  args.offsets_q.shape[0] = 0;
  EXPECT_EQ(inferred().batch, 1) << "a bound is at least 1";
  args.offsets_q.shape[0] = -kLargest - 1;
  EXPECT_EQ(inferred().batch, 1);
  args.k.ndim = 4;
  EXPECT_EQ(refusal(), "run: tensor k has 4 dimensions; expected 3, as offsets_q is given");
}

TEST_F(Infer, PagedBounds) {
  args.k = any(kF32, {100, 16, 2, 16});
  args.v = any(kF32, {100, 16, 2, 24});
  args.kv_lengths = any(kI32, {2});
  args.page_table = any(kI32, {2, 7});
  EXPECT_EQ(describe(inferred()),
            "device=cpu dtype=f32 batch=2 heads_q=8 heads_kv=2 seq_q=5 seq_kv=112 head_dim=16 "
            "head_dim_v=24 kv_lengths=true page_size=16");
  args.page_table.shape[1] = kLargest / 2;
  EXPECT_THAT(refusal(), HasSubstr("page_table is larger than memory can be"));
  args.page_table.ndim = 1;
  EXPECT_THAT(refusal(), HasSubstr("page_table has 1 dimensions; expected 2"));
  args.page_table.ndim = 2;
  for (const int64_t size : {int64_t{0}, int64_t{-1}, int64_t{1} << 32}) {
    args.k.shape[1] = args.v.shape[1] = size;
    EXPECT_THAT(refusal(), HasSubstr("expected the page size")) << size;
  }
}

TEST_F(Infer, VarlenWithPages) {
  args.q = any(kF32, {70, 8, 16});
  args.out = any(kF32, {70, 8, 24});
  args.k = any(kF32, {100, 16, 2, 16});
  args.v = any(kF32, {100, 16, 2, 24});
  args.offsets_q = any(kI32, {3});
  args.kv_lengths = any(kI32, {2});
  args.page_table = any(kI32, {2, 7});
  EXPECT_EQ(describe(inferred()),
            "device=cpu dtype=f32 batch=2 heads_q=8 heads_kv=2 seq_q=70 seq_kv=112 head_dim=16 "
            "head_dim_v=24 kv_lengths=true varlen=true page_size=16");
}

TEST_F(Infer, BoundsOfEmptyTensorsAreOne) {
  args.q.shape[1] = args.out.shape[1] = args.k.shape[1] = args.v.shape[1] = 0;
  args.q.shape[0] = args.k.shape[0] = args.v.shape[0] = args.out.shape[0] = 0;
  const Problem p = inferred();
  EXPECT_EQ(p.batch, 1);
  EXPECT_EQ(p.seq_q, 1);
  EXPECT_EQ(p.seq_kv, 1);
  EXPECT_TRUE(check_problem(&p));
}

TEST_F(Infer, AlignmentIsMeasured) {
  EXPECT_EQ(inferred().alignment_bytes, 16);
  for (const auto tensor : {&attnrt_args::q, &attnrt_args::k, &attnrt_args::v, &attnrt_args::out}) {
    const attnrt_tensor usual = args.*tensor;
    for (const int bytes : {1, 2, 4, 8, 12, 20, 24, 32}) {
      (args.*tensor).data = reinterpret_cast<char*>(memory.data()) + bytes;
      EXPECT_EQ(inferred().alignment_bytes, std::min(bytes & -bytes, 16)) << bytes;
    }
    args.*tensor = usual;
    (args.*tensor).stride[1] = 35;  // 140 bytes
    EXPECT_EQ(inferred().alignment_bytes, 4);
    (args.*tensor).stride[1] = 34;
    EXPECT_EQ(inferred().alignment_bytes, 8);
    (args.*tensor).stride[1] =
        kLargest - 1;  // the check at run refuses it; here it must not overflow
    EXPECT_EQ(inferred().alignment_bytes, 8);
    args.*tensor = usual;
    const attnrt_args whole = args;
    for (auto* one : {&args.q, &args.k, &args.v, &args.out}) one->shape[0] = 1;
    (args.*tensor).stride[0] = 1;  // of one row: counts for nothing
    EXPECT_EQ(inferred().alignment_bytes, 16);
    args = whole;
  }
  args.out = {};  // not there yet
  EXPECT_EQ(inferred().alignment_bytes, 16);
}

TEST_F(Infer, TensorsThatDisagree) {
  const attnrt_args usual = args;
  const auto with = [&](const std::function<void()>& change) {
    args = usual;
    change();
    return refusal();
  };
  EXPECT_EQ(with([&] { args.q = {}; }),
            "run: tensor q has 0 dimensions; expected 4: [batch, seq, heads, head_dim]");
  EXPECT_EQ(with([&] { args.k.ndim = 3; }), "run: tensor k has 3 dimensions; expected 4");
  EXPECT_EQ(with([&] { args.v.ndim = 2; }),
            "run: tensor v has 2 dimensions; expected as many as k");
  EXPECT_EQ(with([&] { args.out.ndim = 1 << 30; }),
            "run: tensor out has 1073741824 dimensions; expected as many as q");
  EXPECT_EQ(with([&] { args.k.shape[3] = 8; }),
            "run: tensors q and k disagree: head_dim is 16 and 8");
  EXPECT_EQ(with([&] { args.v.shape[2] = 1; }),
            "run: tensors k and v disagree: heads_kv is 2 and 1");
  EXPECT_EQ(with([&] { args.v.shape[1] = 8; }), "run: tensors k and v disagree: seq_kv is 9 and 8");
  EXPECT_EQ(with([&] { args.k.shape[0] = args.v.shape[0] = 3; }),
            "run: tensors q and k disagree: batch is 2 and 3");
  EXPECT_EQ(with([&] { args.k.dtype = kI32; }),
            "run: tensors q and k disagree: dtype is f32 and int32");
  EXPECT_EQ(with([&] { args.v.dtype.code = 9; }),
            "run: tensors q and v disagree: dtype is f32 and code 9 bits 32");
}

TEST_F(Infer, KvTypesAndTheirScales) {
  constexpr attnrt_dtype i8{ATTNRT_DTYPE_INT, 8, 1};
  args.k = any(i8, {2, 9, 2, 16});
  args.v = any(i8, {2, 9, 2, 24});
  EXPECT_EQ(to_text(value_of(*find_word("kv_dtype"), inferred(), "")), "i8");
  const auto scale = [&](std::initializer_list<int64_t> shape) {
    args.k_scale = args.v_scale = any(kF32, shape);
    return to_text(value_of(*find_word("kv_scale"), inferred(), ""));
  };
  EXPECT_EQ(scale({1}), "tensor");
  EXPECT_EQ(scale({2}), "head");
  EXPECT_EQ(scale({2, 9, 2}), "token");
  args.v = any(kF32, {2, 9, 2, 24});
  EXPECT_EQ(refusal(), "run: tensors k and v disagree: dtype is i8 and f32");
  args.k = any({ATTNRT_DTYPE_INT, 16, 1}, {2, 9, 2, 16});
  EXPECT_EQ(refusal(), "run: tensors q and k disagree: dtype is f32 and int16");
}

TEST_F(Infer, WhatAnAbsentTensorHoldsDoesNotCount) {
  problem.v_in_k = 1;
  args.v.data = nullptr;
  args.v.ndim = 1000;
  args.v.stride[0] = 1;
  args.out = view(memory.data(), kF32, {2, 5, 8, 16});
  EXPECT_EQ(inferred().alignment_bytes, 16);
}

TEST_F(Infer, ValuesInTheKeys) {
  problem.v_in_k = 1;
  args.v = {};
  args.out = view(memory.data(), kF32, {2, 5, 8, 12});
  EXPECT_EQ(inferred().head_dim_v, 12);
  args.out = {};
  problem.head_dim_v = 4;
  EXPECT_EQ(inferred().head_dim_v, 4);
  problem.head_dim_v = 0;
  EXPECT_EQ(inferred().head_dim_v, 16);
}

TEST_F(Infer, TheTypeOfOutAndDiagonalOffsets) {
  EXPECT_TRUE(is_off(inferred().out_dtype));
  args.q.dtype = args.k.dtype = args.v.dtype = {ATTNRT_DTYPE_BFLOAT, 16, 1};
  EXPECT_EQ(dtype_name(inferred().out_dtype), "f32");
  EXPECT_EQ(inferred().diagonal_offset, 0);
  args.diagonal_offset = any(kI32, {2});
  EXPECT_EQ(inferred().diagonal_offset, 1);
}

}  // namespace
}  // namespace attnrt::core
