// tests/runtime/staging_test.cpp: staged runs give what the host gives, for tensors of every layout
#include "staging.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "run.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::Contains;
using ::testing::HasSubstr;

const std::string kAllow = "staging: allow\n";

class Stage : public ::testing::Test {
 protected:
  // Runs the same problem and tensors on the host and staged. Both fakes compute with the same
  // code, so the results must be equal in every bit.
  void expect_as_on_host(const Problem& problem, const attnrt_args& args) {
    const auto host = host_runtime->plan(checked(problem), {});
    ASSERT_TRUE(host) << host.error().message;
    auto& out = *static_cast<float*>(args.out.data);
    std::vector<float> before(&out, &out + out_elements);
    attnrt_error error = ATTNRT_ERROR_INIT;
    ASSERT_EQ(run(**host, args, &error), ATTNRT_OK) << error.message;
    const std::vector<float> expected(&out, &out + out_elements);
    std::copy(before.begin(), before.end(), &out);
    const auto staged = device_runtime->plan(checked(problem), {});
    ASSERT_TRUE(staged) << staged.error().message;
    EXPECT_EQ((*staged)->backend_name(), "fake_rocm");
    EXPECT_NE((*staged)->staging(), nullptr);
    ASSERT_EQ(run(**staged, args, &error), ATTNRT_OK) << error.message;
    EXPECT_EQ(std::memcmp(&out, expected.data(), out_elements * sizeof(float)), 0);
  }
  fake_counters& counters() { return device_runtime.counters(checked(anything)); }

  Attention a{{.batch = 2, .seq_q = 3, .seq_kv = 5, .heads_q = 4, .heads_kv = 2}};
  Problem anything = a.problem;
  size_t out_elements = a.out.size();
  TestRuntime host_runtime{{"fake_full"}};
  TestRuntime device_runtime{{"fake_rocm"}, kAllow};
};

TEST_F(Stage, Dense) {
  expect_as_on_host(a.problem, a.args);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST_F(Stage, TransposedAndBroadcastTensors) {
  // q and out are [batch, heads, seq, head_dim] in memory; both batches share k; all keys share one
  // row of v.
  a.args.q.stride[1] = 8;
  a.args.q.stride[2] = 3 * 8;
  a.args.out.stride[1] = 8;
  a.args.out.stride[2] = 3 * 8;
  a.args.k.stride[0] = 0;
  a.args.v.stride[1] = 0;
  expect_as_on_host(a.problem, a.args);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST_F(Stage, LeavesTheGapsBetweenRowsUntouched) {
  const Attention wide(
      {.batch = 2, .seq_q = 3, .seq_kv = 5, .heads_q = 4, .heads_kv = 2, .head_dim = 16}, 7);
  attnrt_args args = wide.args;  // the first 8 of every 16 columns
  for (auto* tensor : {&args.q, &args.k, &args.v, &args.out}) tensor->shape[3] = 8;
  Problem problem = wide.problem;
  problem.head_dim = problem.head_dim_v = 8;
  out_elements = wide.out.size();
  for (float& value : wide.out) value = 42;
  expect_as_on_host(problem, args);
  for (size_t i = 0; i < wide.out.size(); ++i) {
    ASSERT_EQ(wide.out[i] == 42, i % 16 >= 8) << i;
  }
}

TEST_F(Stage, MasksOfEveryBroadcast) {
  Aligned<uint8_t> bits(2 * 4 * 3 * 5);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = number(i) > 0 ? 1 : 0;
  a.problem.mask = ATTNRT_MASK_BOOLEAN;
  a.args.mask = view(bits.data(), kBool, {2, 4, 3, 5});
  expect_as_on_host(a.problem, a.args);
  for (int32_t broadcast = 0; broadcast < 16; ++broadcast) {
    for (int32_t i = 0; i < 4; ++i) {
      if ((broadcast >> i & 1) != 0) a.args.mask.stride[i] = 0;
    }
    expect_as_on_host(a.problem, a.args);
    EXPECT_LT(largest_error(a.problem, a.args), kTolerance) << broadcast;
    a.args.mask = view(bits.data(), kBool, {2, 4, 3, 5});
  }
  a.args.mask.stride[2] = 1;  // neighbouring keys are not adjacent in memory
  a.args.mask.stride[3] = 3;
  expect_as_on_host(a.problem, a.args);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST_F(Stage, AMaskOfTwoDimensions) {
  Aligned<float> bias(3 * 5);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = number(i);
  a.problem.mask = ATTNRT_MASK_ADDITIVE;
  a.problem.mask_dtype = kF32;
  a.args.mask = view(bias.data(), kF32, {3, 5});
  expect_as_on_host(a.problem, a.args);
}

TEST_F(Stage, EverySideTensor) {
  Aligned<float> slopes(4, 0.25F), sinks(4, 0.5F), lse(2 * 4 * 3, NAN);
  Aligned<int32_t> lengths(2);
  lengths[0] = 5;
  lengths[1] = 2;
  Problem& p = a.problem;
  p.alibi = p.sinks = p.lse = p.kv_lengths = 1;
  a.args.alibi_slopes = view(slopes.data(), kF32, {4});
  a.args.sinks = view(sinks.data(), kF32, {4});
  a.args.kv_lengths = view(lengths.data(), kI32, {2});
  a.args.lse = view(lse.data(), kF32, {2, 4, 3});
  expect_as_on_host(p, a.args);
  for (const float value : lse) EXPECT_TRUE(std::isfinite(value));
}

TEST_F(Stage, VarlenLeavesRowsPastTheLastOffsetUntouched) {
  Attention packed({.batch = 1, .seq_q = 10, .seq_kv = 12, .heads_q = 4, .heads_kv = 2});
  Aligned<int32_t> offsets_q(3), offsets_kv(3);
  offsets_q[1] = 3;
  offsets_q[2] = 7;  // rows 7, 8 and 9 belong to no sequence
  offsets_kv[1] = 5;
  offsets_kv[2] = 12;
  Problem& p = packed.problem;
  p.varlen = p.lse = 1;
  p.batch = 2;
  Aligned<float> lse(4 * 10, 7);
  attnrt_args& args = packed.args;
  args.q = view(packed.q.data(), kF32, {10, 4, 8});
  args.out = view(packed.out.data(), kF32, {10, 4, 8});
  args.k = view(packed.k.data(), kF32, {12, 2, 8});
  args.v = view(packed.v.data(), kF32, {12, 2, 8});
  args.offsets_q = view(offsets_q.data(), kI32, {3});
  args.offsets_kv = view(offsets_kv.data(), kI32, {3});
  args.lse = view(lse.data(), kF32, {4, 10});
  for (float& value : packed.out) value = 42;
  out_elements = packed.out.size();
  expect_as_on_host(p, args);
  for (size_t i = 0; i < packed.out.size(); ++i)
    EXPECT_EQ(packed.out[i] == 42, i >= 7 * 4 * 8) << i;
  for (size_t i = 0; i < lse.size(); ++i) EXPECT_EQ(lse[i] == 7, i % 10 >= 7) << i;
}

TEST_F(Stage, NoKeysAndNoRows) {
  const auto plan = device_runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan);
  attnrt_args none = a.args;
  none.k.shape[1] = none.v.shape[1] = 0;
  none.k.data = none.v.data = nullptr;
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(run(**plan, none, &error), ATTNRT_OK) << error.message;
  for (const float value : a.out) EXPECT_EQ(value, 0);
  none = a.args;
  none.q.shape[1] = none.out.shape[1] = 0;
  EXPECT_EQ(run(**plan, none, &error), ATTNRT_OK) << error.message;
}

TEST_F(Stage, BuffersGrowAtNeedAndAreReused) {
  fake_counters& counters = this->counters();
  Attention bounds({.batch = 2, .seq_q = 64, .seq_kv = 64, .heads_q = 4, .heads_kv = 2});
  const auto plan = device_runtime->plan(checked(bounds.problem), {});
  ASSERT_TRUE(plan);
  const int64_t alive = counters.allocated;
  int64_t made = counters.allocations;
  const auto run_with = [&](int64_t rows) {
    Attention one({.batch = 2, .seq_q = rows, .seq_kv = rows, .heads_q = 4, .heads_kv = 2},
                  static_cast<uint64_t>(rows));
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(run(**plan, one.args, &error), ATTNRT_OK) << error.message;
    EXPECT_LT(largest_error(bounds.problem, one.args), kTolerance) << rows;
    EXPECT_EQ(counters.allocated, alive + 1) << "one buffer, whatever its size";
    return counters.allocations - std::exchange(made, counters.allocations);
  };
  EXPECT_EQ(run_with(1), 1);
  EXPECT_EQ(run_with(1), 0);
  EXPECT_EQ(run_with(64), 1);
  int64_t smaller = 0;
  for (int64_t rows = 1; rows < 64; ++rows) smaller += run_with(rows);
  EXPECT_EQ(smaller, 0);
}

TEST_F(Stage, EverythingIsGivenBack) {
  fake_counters& counters = this->counters();
  // The backend's own stream is made with the first plan, and lives as long as the backend.
  ASSERT_TRUE(device_runtime->plan(checked(a.problem), {}));
  const fake_counters before = counters;
  {
    const auto plan = device_runtime->plan(checked(a.problem), {});
    ASSERT_TRUE(plan);
    ASSERT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
    EXPECT_EQ(counters.streams, before.streams + 1);
    EXPECT_EQ(counters.pinned, before.pinned + 1);
    EXPECT_GT(counters.copies_to_device, before.copies_to_device);
  }
  EXPECT_EQ(counters.allocated, before.allocated);
  EXPECT_EQ(counters.pinned, before.pinned);
  EXPECT_EQ(counters.streams, before.streams);
}

TEST_F(Stage, ADeviceThatRunsOutOfMemoryAndRecovers) {
  fake_counters& counters = this->counters();
  const auto plan = device_runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan);
  attnrt_error error = ATTNRT_ERROR_INIT;
  counters.memory_limit = 1;
  EXPECT_EQ(run(**plan, a.args, &error), ATTNRT_OUT_OF_MEMORY);
  EXPECT_THAT(error.message, HasSubstr("run: fake_rocm: cannot allocate "));
  counters.memory_limit = 0;
  EXPECT_EQ(run(**plan, a.args, &error), ATTNRT_OK) << error.message;
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST_F(Stage, AFailedRunIsWaitedForBeforeTheBuffersAreReused) {
  fake_counters& counters = this->counters();
  const auto plan = device_runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan);
  counters.run_status = ATTNRT_INTERNAL;
  const int64_t before = counters.synchronizations;
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_INTERNAL);
  EXPECT_EQ(counters.synchronizations, before + 1);
  counters.run_status = ATTNRT_OK;
}

TEST(Staging, RanksAfterWhatNeedsNoCopyUnlessPreferred) {
  const Problem problem = checked(Attention({}).problem);
  const auto chosen = [&](const std::string& policy) {
    const TestRuntime runtime({"fake_rocm", "fake_full"}, policy);
    const auto plan = runtime->plan(problem, {});
    return plan ? (*plan)->backend_name() : plan.error().message;
  };
  EXPECT_EQ(chosen(""), "fake_full");
  EXPECT_EQ(chosen(kAllow), "fake_full");
  EXPECT_EQ(chosen(kAllow + "rules: [{prefer: [fake_rocm]}]\n"), "fake_rocm");
  EXPECT_EQ(chosen(kAllow + "default: fake_rocm\n"), "fake_rocm");
}

TEST(Staging, NeverMeansNotChosenWithTheReason) {
  const TestRuntime runtime({"fake_rocm"});
  const auto plan = runtime->plan(checked(Attention({}).problem), {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(plan.error().message,
              HasSubstr("fake_rocm 1.0.0: is for rocm; the tensors are on cpu"));
}

TEST(Staging, NeverForPagedCaches) {
  const TestRuntime runtime({"fake_rocm"}, kAllow);
  Problem problem = Attention({}).problem;
  problem.page_size = 16;
  problem.kv_lengths = 1;
  const auto plan = runtime->plan(checked(problem), {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("paged caches are never staged"));
}

TEST(Staging, NeverFromDeviceToDevice) {
  const TestRuntime runtime({"fake_full"}, kAllow);
  Problem problem = Attention({}).problem;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  const auto plan = runtime->plan(checked(problem), {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("is for cpu; the tensors are on rocm"));
}

TEST(Staging, LostCopiesAreSeenByThisTest) {
  const TestRuntime runtime({"fake_rocm_lost_copies"}, kAllow);
  Attention a({.seq_q = 2, .seq_kv = 2});
  const auto plan = runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan);
  ASSERT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  EXPECT_FALSE(largest_error(a.problem, a.args) < kTolerance);
}

}  // namespace
}  // namespace attnrt::core
