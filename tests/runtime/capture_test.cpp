// tests/runtime/capture_test.cpp: calls on a stream on which a graph is being captured
#include "capture.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "run.hpp"
#include "support/fake_device.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Shape kShape{.seq_q = 2, .seq_kv = 3};

std::string outcome_of(const TestRuntime& runtime, const Problem& problem) {
  const auto decision = runtime->decide(checked(problem), {});
  const Verdict* winner = decision->winner();
  return winner != nullptr ? winner->candidate.plugin->manifest->name : "none";
}

TEST(Capture, WhatAGraphUsesIsKeptUntilClose) {
  FakeDevice device("plan_cache: {bytes: 300}\n");
  DeviceAttention a(device.runtime, kShape, 1), other(device.runtime, kShape, 2);
  device.capture(nullptr, 7);
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  device.end_capture();
  EXPECT_EQ(device.runtime->plans_made(), 1) << "the calls of one capture share it";

  // Later calls of the same problem, more than the cache holds, a trim and a reload.
  for (int causal = 0; causal < 2; ++causal) {
    other.problem.causal = causal;
    ASSERT_EQ(other.run(device.runtime), ATTNRT_OK) << other.error.message;
  }
  device.runtime->trim(0);
  ASSERT_TRUE(device.runtime->reload());
  other.problem.causal = 0;
  ASSERT_EQ(other.run(device.runtime), ATTNRT_OK) << other.error.message;
  EXPECT_EQ(device.runtime->plans_made(), 4);

  for (int round = 0; round < 2; ++round) {
    a.clear();
    EXPECT_EQ(device.counters.replay(7, nullptr), 2);
    device.counters.complete();
    EXPECT_EQ(device.counters.replays_of_freed, 0);
    EXPECT_TRUE(a.right());
  }
  EXPECT_TRUE(other.right());
}

TEST(Capture, AMissIsPlannedWithMemoryOfTheRuntimesOwnStream) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  void* const stream = streams.make();
  device.capture(stream, 1);
  ASSERT_EQ(a.run(device.runtime, stream), ATTNRT_OK) << a.error.message;
  EXPECT_NE(device.counters.last_allocation_stream, stream);
  EXPECT_NE(device.counters.last_allocation_stream, nullptr);
  EXPECT_EQ(device.counters.invalidated_captures, 0);
  device.end_capture();
  DeviceAttention b(device.runtime, {.seq_q = 2, .seq_kv = 40});
  ASSERT_EQ(b.run(device.runtime, stream), ATTNRT_OK) << b.error.message;
  EXPECT_EQ(device.counters.last_allocation_stream, stream) << "without a capture, in its order";
}

TEST(Capture, APlanThatIsMadeForTheStreamAllocatesElsewhere) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  void* const stream = streams.make();
  device.capture(stream, 1);
  const auto plan = device.runtime->plan(checked(a.problem), {}, stream);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_NE(device.counters.last_allocation_stream, stream);
  EXPECT_EQ(device.counters.invalidated_captures, 0);
  device.end_capture();
}

TEST(Capture, EachCaptureStreamAndThreadHasItsOwnPlans) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  void* const stream = streams.make();
  const auto made_by = [&](void* on, uint64_t id) {
    device.capture(on, id);
    const int64_t before = device.runtime->plans_made();
    EXPECT_EQ(a.run(device.runtime, on), ATTNRT_OK) << a.error.message;
    device.end_capture();
    return device.runtime->plans_made() - before;
  };
  EXPECT_EQ(made_by(stream, 1), 1);
  EXPECT_EQ(made_by(stream, 1), 0);
  EXPECT_EQ(made_by(stream, 2), 1);
  EXPECT_EQ(made_by(nullptr, 2), 1);
  std::thread([&] { EXPECT_EQ(made_by(stream, 2), 1); }).join();
  EXPECT_EQ(made_by(stream, 2), 0);
  EXPECT_EQ(a.run(device.runtime, stream), ATTNRT_OK);
  EXPECT_EQ(device.counters.runs_of_captured, 0);
}

TEST(Capture, ACallThatCannotTellFailsBeforeItPlans) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  device.counters.capturing_status = ATTNRT_INTERNAL;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_INTERNAL);
  EXPECT_STREQ(a.error.message,
               "run: fake_rocm: cannot tell whether the stream is being captured: is_capturing was "
               "told to fail");
  EXPECT_EQ(device.counters.plans, 0);
  EXPECT_EQ(device.counters.runs, 0);
  device.counters.capturing_status = ATTNRT_OK;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
}

// The default stream of CUDA and HIP, while another stream is being captured: without an id, each
// call would need a plan of its own until close.
TEST(Capture, WhatWouldInvalidateAnothersIsRefusedBeforeAnythingIsPlanned) {
  FakeDevice device("", {}, {"fake_rocm", "fake_rocm_two"});
  DeviceAttention a(device.runtime, kShape);
  device.capture(nullptr, 0);
  for (int call = 0; call < 3; ++call) {
    EXPECT_EQ(a.run(device.runtime), ATTNRT_UNSUPPORTED);
    EXPECT_THAT(a.error.message,
                HasSubstr("run: fake_rocm: work on this stream would invalidate another stream's "
                          "capture"));
  }
  EXPECT_EQ(device.runtime->plans_made(), 0);
  EXPECT_EQ(device.counters.runs, 0);
  EXPECT_THAT(device.runtime.log(), IsEmpty());
  device.end_capture();
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.runs, 1) << "nor was anything remembered";
}

// As one whose plan fails: the breaker hears of it, and the next candidate is asked itself.
TEST(Capture, OneThatCannotTellLeavesTheCallToTheNext) {
  for (const bool planned : {false, true}) {
    FakeDevice device("", {}, {"fake_rocm", "fake_rocm_two"});
    DeviceAttention a(device.runtime, kShape);
    fake_counters& other = device.runtime.counters(checked(a.problem), "fake_rocm_two");
    const auto status = [&] {
      if (!planned) return a.run(device.runtime);
      const auto plan = device.runtime->plan(checked(a.problem), {}, nullptr);
      if (plan) return attnrt_status{ATTNRT_OK};
      return fill_error(&a.error, plan.error());
    };
    device.counters.capturing_status = ATTNRT_INTERNAL;
    // The other fake cannot compute with this one's memory, but it can plan.
    EXPECT_EQ(status(), planned ? ATTNRT_OK : ATTNRT_INTERNAL);
    EXPECT_EQ(other.plans, 1);
    EXPECT_EQ(device.counters.plans, 0);
    EXPECT_THAT(device.runtime.log(),
                Contains(AllOf(HasSubstr("run: fake_rocm: cannot tell whether"),
                               HasSubstr("; the next candidate is tried"))));
    if (planned) {
      EXPECT_EQ(outcome_of(device.runtime, a.problem), "fake_rocm_two");
    }

    // In a capture no other backend is tried.
    a.problem.causal = 1;
    other.capturing = 1;
    other.capture_id = 3;
    EXPECT_EQ(status(), ATTNRT_INTERNAL);
    EXPECT_THAT(a.error.message, HasSubstr("fake_rocm: cannot tell whether the stream"));
    EXPECT_EQ(other.plans, 1);
    other.capturing = 0;

    // A lost device is lost for all.
    a.problem.scale = 2;
    device.counters.capturing_status = ATTNRT_DEVICE_LOST;
    EXPECT_EQ(status(), ATTNRT_DEVICE_LOST);
    device.counters.capturing_status = ATTNRT_OK;
    EXPECT_EQ(status(), ATTNRT_DEVICE_LOST);
    EXPECT_THAT(a.error.message, HasSubstr("rocm:0 was lost"));
    EXPECT_EQ(other.plans, 1);
    reset(other);
  }
}

TEST(Capture, APlanThatCannotBeCapturedIsRefusedBeforeAnythingIsEnqueued) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  device.counters.not_capturable = 1;
  const auto plan = device.runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  device.capture(nullptr, 1);
  const int64_t runs = device.counters.runs;
  EXPECT_EQ(run(**plan, a.args, &a.error), ATTNRT_UNSUPPORTED);
  EXPECT_THAT(a.error.message, HasSubstr("kernel fake_attention cannot be captured into a graph"));
  EXPECT_EQ(a.run(device.runtime), ATTNRT_UNSUPPORTED);
  EXPECT_THAT(a.error.message, HasSubstr("cannot be captured into a graph"));
  EXPECT_EQ(device.counters.runs, runs);
  device.counters.capturing_status = ATTNRT_INTERNAL;
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_INTERNAL);
  device.counters.capturing_status = ATTNRT_OK;
  device.end_capture();
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  const int64_t made = device.runtime->plans_made();
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.runtime->plans_made(), made) << "no graph uses the plan that was refused";
  device.counters.complete();
}

TEST(Capture, NothingIsTriedInsteadAndNothingIsRemembered) {
  FakeDevice device("", {}, {"fake_rocm", "fake_rocm_two"});
  DeviceAttention a(device.runtime, kShape);
  device.capture(nullptr, 1);
  for (int64_t* status : {&device.counters.plan_status, &device.counters.run_status}) {
    *status = ATTNRT_INTERNAL;
    EXPECT_EQ(a.run(device.runtime), ATTNRT_INTERNAL);
    EXPECT_THAT(a.error.message, HasSubstr("fake_rocm: "));
    *status = ATTNRT_OK;
  }
  EXPECT_THAT(device.runtime.log(), IsEmpty());
  EXPECT_EQ(
      device.runtime->decide(checked(a.problem), {})->winner()->candidate.plugin->manifest->name,
      "fake_rocm");
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  device.end_capture();
}

TEST(Capture, NoMemoryIsGivenBack) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  device.counters.complete();
  device.capture(nullptr, 1);
  device.counters.memory_limit = 1;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(device.counters.plans_alive, 1) << "the idle plan is still there";
  device.end_capture();
  device.counters.memory_limit = 0;
}

TEST(Capture, TheCpuIsNeverAsked) {
  const TestRuntime runtime({"fake_full"});
  Attention a(kShape);
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
}

}  // namespace
}  // namespace attnrt::core
