// tests/kernels/reference/kv_types_test.cpp: the reference against values computed by hand
//
// Of stored types, scales, v_in_k, out's type and the diagonal's offset.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/reference/attention.hpp"
#include "kernels/reference/plain.hpp"
#include "kernels/reference/tolerance.hpp"
#include "tests/kernels/reference/tiny.hpp"

namespace kernels::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const float kLog2 = std::log(2.0f);

// One query log(2) and three keys 0, 1 and 2, whose weights are 1, 2 and 4 of 7; values 1, 2 and 3.
struct Stored : Tiny {
  std::vector<uint8_t> key_codes, value_codes;
  std::vector<float> k_scales, v_scales;

  Stored(DType dtype, std::vector<uint8_t> keys, std::vector<uint8_t> values)
      : Tiny({kLog2}, {0, 0, 0}, {0, 0, 0}),
        key_codes(std::move(keys)),
        value_codes(std::move(values)) {
    problem.kv_dtype = dtype;
    args.k.data = key_codes.data();
    args.v.data = value_codes.data();
    args.k.dtype = args.v.dtype = dtype;
  }
  // key_stride: 0 for one scale, 1 for one of each key.
  void scale(KvScale kind, std::vector<float> k_scale, std::vector<float> v_scale,
             int64_t key_stride) {
    problem.kv_scale = kind;
    k_scales = std::move(k_scale);
    v_scales = std::move(v_scale);
    args.k_scale = {k_scales.data(), DType::f32, 3, {1, 3, 1}, {0, key_stride, 0}};
    args.v_scale = {v_scales.data(), DType::f32, 3, {1, 3, 1}, {0, key_stride, 0}};
  }
};

Stored i8() { return {DType::i8, {0, 1, 2}, {1, 2, 3}}; }

TEST(ReferenceKvTypes, EachTypeHoldsTheSameNumbers) {
  Stored all[] = {i8(),
                  {DType::f8_e4m3fn, {0x00, 0x38, 0x40}, {0x38, 0x40, 0x44}},
                  {DType::f8_e4m3fnuz, {0x00, 0x40, 0x48}, {0x40, 0x48, 0x4C}}};
  for (Stored& t : all) {
    t.run();
    EXPECT_NEAR(t.out[0], (1 * 1 + 2 * 2 + 4 * 3) / 7.0, 1e-6);
    EXPECT_NEAR(t.lse[0], std::log(7.0), 1e-6);
  }
}

TEST(ReferenceKvTypes, NegativeNumbers) {
  Stored t = i8();
  t.key_codes = {0xFE, 0xFF, 0};    // -2, -1, 0
  t.value_codes = {0x80, 0xFF, 2};  // -128, -1, 2
  t.args.k.data = t.key_codes.data(), t.args.v.data = t.value_codes.data();
  t.run();
  EXPECT_NEAR(t.out[0], (1 * -128 + 2 * -1 + 4 * 2) / 7.0, 1e-5);
}

TEST(ReferenceKvTypes, OneScaleForAll) {
  Stored t = i8();
  t.q[0] = 2 * kLog2;
  t.scale(KvScale::tensor, {0.5f}, {-10}, 0);
  t.run();
  EXPECT_NEAR(t.out[0], -10 * 17 / 7.0, 1e-5);
  EXPECT_NEAR(t.lse[0], std::log(7.0), 1e-6);
}

TEST(ReferenceKvTypes, AScaleForEachKey) {
  Stored t = i8();
  t.scale(KvScale::token, {5, 0, 0.5f}, {1, 10, 100}, 1);  // scores: 0, 0, log(2)
  t.run();
  EXPECT_NEAR(t.out[0], (1 * 1 + 1 * 20 + 2 * 300) / 4.0, 1e-4);
  EXPECT_NEAR(t.lse[0], std::log(4.0), 1e-6);
}

TEST(ReferenceKvTypes, AScaleForEachHead) {
  Stored t = i8();
  t.key_codes = {0, 0, 0, 0, 0, 0};
  t.value_codes = {1, 4, 1, 4, 1, 4};  // [keys][heads]
  t.q = {1, 1};
  t.problem.heads_q = t.problem.heads_kv = 2;
  t.args.q = {t.q.data(), DType::f32, 4, {1, 1, 2, 1}, {2, 2, 1, 1}};
  t.args.k = {t.key_codes.data(), DType::i8, 4, {1, 3, 2, 1}, {6, 2, 1, 1}};
  t.args.v = {t.value_codes.data(), DType::i8, 4, {1, 3, 2, 1}, {6, 2, 1, 1}};
  t.scale(KvScale::head, {1, 1}, {10, 100}, 0);
  t.args.k_scale.stride[2] = t.args.v_scale.stride[2] = 1;
  t.args.k_scale.shape[2] = t.args.v_scale.shape[2] = 2;
  t.run();
  EXPECT_NEAR(t.out[0], 10, 1e-12);
  EXPECT_NEAR(t.out[1], 400, 1e-12);
}

TEST(ReferenceKvTypes, ScalesComeBeforeTheSoftcap) {
  Stored t = i8();
  t.args.k.shape[1] = t.args.v.shape[1] = 2;
  t.problem.softcap = 1;
  t.scale(KvScale::tensor, {3}, {1}, 0);
  t.run();
  EXPECT_NEAR(t.lse[0], std::log(1 + std::exp(std::tanh(3 * double{kLog2}))), 1e-12);
}

TEST(ReferenceKvTypes, NanCodesReachTheRowsThatSeeThem) {
  Stored fn{DType::f8_e4m3fn, {0x00, 0x38, 0x7F}, {0x38, 0x40, 0x44}};
  Stored fnuz{DType::f8_e4m3fnuz, {0x00, 0x40, 0x80}, {0x40, 0x48, 0x4C}};
  for (Stored* t : {&fn, &fnuz}) {
    t->run();
    EXPECT_TRUE(std::isnan(t->out[0]));
    const int32_t length = 2;
    t->problem.kv_lengths = true;
    t->args.kv_lengths = {const_cast<int32_t*>(&length), DType::i32, 1, {1}, {1}};
    t->run();
    EXPECT_NEAR(t->out[0], (1 * 1 + 2 * 2) / 3.0, 1e-6) << "a key past the length does not exist";
  }
}

TEST(Reference, ValuesAreTheFirstColumnsOfKeys) {
  Tiny t({kLog2, 0}, {0, 50, 1, 70, 2, 90}, {});
  t.problem.head_dim = 2;
  t.problem.head_dim_v = 1;
  t.problem.v_in_k = true;
  t.args.q = {t.q.data(), DType::f32, 4, {1, 1, 1, 2}, {2, 2, 2, 1}};
  t.args.k = {t.k.data(), DType::f32, 4, {1, 3, 1, 2}, {6, 2, 2, 1}};
  t.args.v = {};
  t.run();
  EXPECT_NEAR(t.out[0], (1 * 0 + 2 * 1 + 4 * 2) / 7.0, 1e-6);
}

TEST(Reference, ValuesInKeysAreScaledAsKeysAre) {
  Stored t = i8();
  t.problem.v_in_k = true;
  t.args.v = {};
  t.scale(KvScale::token, {9, 0.5f, 0.5f}, {}, 1);  // scores: 0, log(2) / 2, log(2)
  t.args.v_scale = {};
  t.run();
  const double middle = std::sqrt(2.0);
  EXPECT_NEAR(t.out[0], (middle * 0.5 + 2 * 1) / (1 + middle + 2), 1e-6);
}

TEST(Reference, DiagonalOffsetMovesCausalWindowsAndAlibi) {
  Tiny t({0, 0}, {0, 0, 0}, {1, 3, 8});
  t.problem.causal = t.problem.diagonal_offset = true;
  int32_t offset = -1;
  t.args.diagonal_offset = {&offset, DType::i32, 1, {1}, {1}};
  t.run();  // bottom_right: without the offset query 0 sees keys 0 and 1
  EXPECT_EQ(t.out, (std::vector<double>{1, 2}));
  offset = -2;
  t.run();
  EXPECT_EQ(t.out, (std::vector<double>{0, 1}));
  EXPECT_EQ(t.lse, (std::vector<double>{-kInfinity, 0}));
  offset = 1;
  t.problem.align = Align::top_left;
  t.run();
  EXPECT_EQ(t.out, (std::vector<double>{2, 4}));
  t.problem.window_left = 0;
  t.run();
  EXPECT_EQ(t.out, (std::vector<double>{3, 8}));
  t.problem.causal = false;
  t.problem.window_left = -1;
  t.problem.alibi = true;
  t.slopes = {kLog2};
  t.args.alibi_slopes = {t.slopes.data(), DType::f32, 2, {1, 1}, {0, 1}};
  t.run();  // query 0 is opposite key 1: weights 1/2, 1, 1/2
  EXPECT_NEAR(t.out[0], (0.5 * 1 + 3 + 0.5 * 8) / 2, 1e-6);
}

TEST(Reference, EachSequenceHasItsSlopesAndItsOffset) {
  Tiny t({0, 0}, {0, 0, 0, 0}, {0, 1, 0, 1});
  t.args.q = {t.q.data(), DType::f32, 4, {2, 1, 1, 1}, {1, 1, 1, 1}};
  t.args.k = {t.k.data(), DType::f32, 4, {2, 2, 1, 1}, {2, 1, 1, 1}};
  t.args.v = {t.v.data(), DType::f32, 4, {2, 2, 1, 1}, {2, 1, 1, 1}};
  t.problem.alibi = t.problem.diagonal_offset = true;
  t.slopes = {kLog2, 2 * kLog2};
  t.args.alibi_slopes = {t.slopes.data(), DType::f32, 2, {2, 1}, {1, 1}};
  int32_t offsets[] = {0, -1};
  t.args.diagonal_offset = {offsets, DType::i32, 1, {2}, {1}};
  t.run();
  EXPECT_NEAR(t.out[0], 1 / 1.5, 1e-6);
  EXPECT_NEAR(t.out[1], 0.25 / 1.25, 1e-6);
}

// Two values next to each other in bf16, and equal weights: the mean lies between them.
TEST(PlainRow, IsRoundedToOutsType) {
  const uint16_t values[] = {0x3F80, 0x3F81}, zeros[] = {0, 0};
  Tiny t({0}, {0, 0}, {0, 0});
  t.problem.dtype = DType::bf16;
  t.args.q.data = t.args.k.data = const_cast<uint16_t*>(zeros);
  t.args.v.data = const_cast<uint16_t*>(values);
  t.args.q.dtype = t.args.k.dtype = t.args.v.dtype = DType::bf16;
  const auto row = [&t] {
    return reference::plain_row(t.problem, t.args, sequence(t.problem, t.args, 0), 0, 0, 0);
  };
  EXPECT_EQ(row().out[0], 1.0f);
  t.problem.out_dtype = DType::f32;
  EXPECT_EQ(row().out[0], 1.00390625f);
  EXPECT_LT(reference::out_floor(DType::f32, row().size),
            reference::out_floor(DType::bf16, row().size) / 1000);
}

TEST(PlainRow, SizesCountTheScales) {
  Stored t = i8();
  t.scale(KvScale::token, {1, 1, -3}, {1, -50, 2}, 1);
  const reference::PlainRow row =
      reference::plain_row(t.problem, t.args, sequence(t.problem, t.args, 0), 0, 0, 0);
  EXPECT_FLOAT_EQ(static_cast<float>(row.size.norms), 6 * kLog2);
  EXPECT_FLOAT_EQ(static_cast<float>(row.size.score), 6 * kLog2);
  EXPECT_EQ(row.size.value, 100);
}

}  // namespace
}  // namespace kernels::test
