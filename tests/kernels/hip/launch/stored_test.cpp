// tests/kernels/hip/launch/stored_test.cpp: plans and launches for K and V of 8 bits
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/hip/launch/family.hpp"
#include "kernels/hip/launch/launch.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {
namespace {

Problem problem(int64_t seq_q) {
  Problem p;
  p.dtype = DType::bf16, p.kv_dtype = DType::i8, p.kv_scale = KvScale::token;
  p.batch = 2, p.heads_q = 8, p.heads_kv = 2;
  p.seq_q = seq_q, p.seq_kv = 1000;
  p.head_dim = p.head_dim_v = 128;
  return p;
}

TEST(Stored, KernelsAreThoseOfTheirOwnObject) {
  const auto kernels_of = [](const Problem& p, const char* arch) {
    const FlashPlan plan = plan_flash(p, {arch, 10});
    EXPECT_STREQ(plan.object, "serving_attention_kv8_bf16_128");
    const auto name = [](const char* text) { return std::string(text == nullptr ? "" : text); };
    return name(plan.list.decode.kernel) + " " + name(plan.list.prefill.kernel);
  };
  Problem p = problem(1);
  EXPECT_EQ(kernels_of(p, "sm_90a"), "decode_attention_plain_kernel ");
  EXPECT_EQ(kernels_of(p, "gfx942"), " listed_attention_plain_kernel");
  p.softcap = 3;  // there is no kernel of large pages that modifies scores
  EXPECT_EQ(kernels_of(p, "sm_80"), "decode_attention_small_pages_kernel ");
  EXPECT_EQ(kernels_of(problem(300), "sm_80"),  // also where q is dense and long
            "decode_attention_plain_kernel listed_attention_plain_kernel");
}

TEST(Stored, TilesFitTheWorkgroupMemory) {
  const auto expect_fit = [](const char* arch, uint32_t bytes) {
    for (const int64_t seq_q : {1, 300}) {
      for (const int64_t head_dim : {64, 128, 256}) {
        Problem p = problem(seq_q);
        p.head_dim = p.head_dim_v = head_dim;
        const ListPlan list = plan_flash(p, {arch, 10}).list;
        EXPECT_LE(list.decode.shared_bytes, bytes) << arch << head_dim;
        EXPECT_LE(list.prefill.shared_bytes, bytes) << arch << head_dim;
      }
    }
  };
  expect_fit("sm_80", 99 << 10);  // of sm_86, sm_89 and sm_120
  expect_fit("sm_90", 227 << 10);
  for (const char* arch : {"gfx1100", "gfx1201", "gfx942", "gfx1030"}) expect_fit(arch, 64 << 10);
}

TEST(Stored, ScalesOfPackedKeysHaveNoBatch) {
  Problem p = problem(4);
  p.varlen = true;
  float scales[2 * 2 * 1000];
  int32_t offsets[3] = {0, 4, 8};
  uint16_t q[8 * 8 * 128] = {};
  Args args;
  args.q = args.out = {q, DType::bf16, 3, {8, 8, 128}, {1024, 128, 1}};
  args.k = args.v = {q, DType::i8, 3, {2000, 2, 128}, {256, 128, 1}};
  args.k_scale = {scales, DType::f32, 2, {2000, 2}, {2, 1}};
  args.v_scale = {scales + 1, DType::f32, 2, {2000, 2}, {1, 2000}};
  args.offsets_q = args.offsets_kv = {offsets, DType::i32, 1, {3}, {1}};
  const FlashPlan plan = plan_flash(p, {"sm_80", 10});
  Launch out[8];
  static char workspace;  // nothing reads through it
  const int32_t count = launches(plan, p, args, &workspace, out);
  ASSERT_GE(count, 2);
  ServingParams params;
  ASSERT_EQ(out[1].params_bytes, sizeof params);
  std::memcpy(&params, out[1].params, sizeof params);
  const StoredParams& stored = params.stored;
  EXPECT_EQ(stored.dtype, DType::i8);
  EXPECT_EQ(stored.per_token, 1);
  EXPECT_EQ(stored.k_scale, scales);
  EXPECT_EQ(stored.v_scale, scales + 1);
  EXPECT_EQ(stored.k_scale_stride.batch, 0);
  EXPECT_EQ(stored.k_scale_stride.row, 2);
  EXPECT_EQ(stored.k_scale_stride.head, 1);
  EXPECT_EQ(stored.v_scale_stride.row, 1);
  EXPECT_EQ(stored.v_scale_stride.head, 2000);
}

}  // namespace
}  // namespace kernels::hip
