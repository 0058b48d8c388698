// tests/runtime/run_test.cpp: runs of a plan, and the messages of runs that fail
#include "run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>

#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

class Run : public ::testing::Test {
 protected:
  std::unique_ptr<Plan> plan(const Problem& problem) {
    auto made = runtime->plan(checked(problem), {});
    if (!made) throw std::runtime_error(made.error().message);
    return *std::move(made);
  }
  std::string message_of(const Plan& plan, const attnrt_args& args, attnrt_status expected) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(run(plan, args, &error), expected);
    return error.message;
  }
  TestRuntime runtime{{"fake_full"}};
};

TEST_F(Run, WithinTheBounds) {
  Attention bounds({.batch = 3, .seq_q = 8, .seq_kv = 16, .heads_q = 4, .heads_kv = 2});
  const auto made = plan(bounds.problem);
  for (const Shape shape : {Shape{3, 8, 16, 4, 2}, Shape{1, 1, 1, 4, 2}, Shape{2, 5, 9, 4, 2}}) {
    Attention one(shape);
    EXPECT_EQ(message_of(*made, one.args, ATTNRT_OK), "");
    EXPECT_LT(largest_error(bounds.problem, one.args), kTolerance);
  }
  Attention above({.batch = 3, .seq_q = 8, .seq_kv = 17, .heads_q = 4, .heads_kv = 2});
  EXPECT_THAT(message_of(*made, above.args, ATTNRT_INVALID_ARGUMENT), HasSubstr("seq_kv is 17"));
}

TEST_F(Run, NothingToDoAsksNobody) {
  Attention bounds({.seq_q = 2, .seq_kv = 2});
  const auto made = plan(bounds.problem);
  runtime.counters(made->problem()).run_status = ATTNRT_INTERNAL;
  for (int32_t dimension : {0, 1}) {
    attnrt_args args = bounds.args;
    for (auto* tensor : {&args.q, &args.out}) tensor->shape[dimension] = 0;
    if (dimension == 0) args.k.shape[0] = args.v.shape[0] = 0;
    EXPECT_EQ(run(*made, args, nullptr), ATTNRT_OK) << dimension;
  }
  EXPECT_EQ(run(*made, bounds.args, nullptr), ATTNRT_INTERNAL);
  runtime.counters(made->problem()).run_status = ATTNRT_OK;
}

TEST_F(Run, NoKeysGiveZeros) {
  Attention a({.seq_q = 2, .seq_kv = 2});
  const auto made = plan(a.problem);
  a.args.k.shape[1] = a.args.v.shape[1] = 0;
  a.args.k.data = a.args.v.data = nullptr;
  ASSERT_EQ(run(*made, a.args, nullptr), ATTNRT_OK);
  for (const float value : a.out) EXPECT_EQ(value, 0);
}

TEST_F(Run, Workspace) {
  Attention a({});
  const auto made = plan(a.problem);
  ASSERT_EQ(made->workspace_bytes(), 256);
  ASSERT_EQ(made->workspace_alignment(), 64);
  Aligned<char> mine(1024);
  a.args.workspace = mine.data();
  a.args.workspace_bytes = 255;
  EXPECT_EQ(message_of(*made, a.args, ATTNRT_INVALID_ARGUMENT),
            "run: workspace has 255 bytes; the plan needs 256");
  a.args.workspace_bytes = 1000;
  a.args.workspace = mine.data() + 8;
  EXPECT_EQ(message_of(*made, a.args, ATTNRT_INVALID_ARGUMENT),
            "run: workspace does not start at a multiple of 64 bytes");
  a.args.workspace = mine.data() + 64;
  EXPECT_EQ(message_of(*made, a.args, ATTNRT_OK), "");
}

TEST_F(Run, ABackendsFailureSaysWhoAndWhy) {
  Attention a({});
  const auto made = plan(a.problem);
  runtime.counters(made->problem()).run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(message_of(*made, a.args, ATTNRT_OUT_OF_MEMORY),
            "run: fake_full: run was told to fail by a test");
  runtime.counters(made->problem()).run_status = ATTNRT_OK;
}

TEST_F(Run, MasksOfFewerDimensionsAreBroadcast) {
  Attention a({.batch = 2, .seq_q = 3, .seq_kv = 5, .heads_q = 2, .heads_kv = 1});
  a.problem.mask = ATTNRT_MASK_BOOLEAN;
  Aligned<uint8_t> bits(2 * 2 * 3 * 5);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = number(i) > 0 ? 1 : 0;
  const auto made = plan(a.problem);
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {5}, {3, 5}, {2, 3, 5}, {2, 2, 3, 5}, {1, 2, 1, 5}, {2, 1, 3, 1}}) {
    attnrt_args args = a.args;
    args.mask = view(bits.data(), kBool, {});
    for (const int64_t size : shape) args.mask.shape[args.mask.ndim++] = size;
    int64_t stride = 1;
    for (int32_t i = args.mask.ndim - 1; i >= 0; --i)
      args.mask.stride[i] = stride, stride *= args.mask.shape[i];
    ASSERT_EQ(message_of(*made, args, ATTNRT_OK), "");
    attnrt_args whole = args;  // by hand what the host should have done
    whole.mask.ndim = 4;
    for (int32_t i = 0; i < 4; ++i) {
      const int32_t from = i - 4 + args.mask.ndim;
      whole.mask.stride[i] = from < 0 || args.mask.shape[from] == 1 ? 0 : args.mask.stride[from];
    }
    EXPECT_LT(largest_error(a.problem, whole), kTolerance) << args.mask.ndim;
  }
}

TEST_F(Run, AnApplicationOfAnOlderHeader) {
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto made = plan(a.problem);
  a.args.struct_size = offsetof(attnrt_args, workspace);  // knows no workspace and no stream
  a.args.workspace = &a;
  a.args.workspace_bytes = 1;
  EXPECT_EQ(message_of(*made, a.args, ATTNRT_OK), "");
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

}  // namespace
}  // namespace attnrt::core
