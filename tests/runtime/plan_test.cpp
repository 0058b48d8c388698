// tests/runtime/plan_test.cpp: what a plan reports, owns and gives back, and how planning fails
#include "plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run.hpp"
#include "support/fake_device.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

Problem on_rocm(Problem problem, int32_t id = 0) {
  problem.device_type = ATTNRT_DEVICE_ROCM;
  problem.device_id = id;
  return checked(problem);
}

Result<std::unique_ptr<Plan>> planned(const TestRuntime& runtime, const Problem& problem,
                                      const std::string& name = {}) {
  const auto decision = runtime->decide(problem, Call{name});
  EXPECT_EQ(decision->status, ATTNRT_OK) << decision->message;
  return make_plan(decision, problem);
}

TEST(Plan, SaysWhatWillRun) {
  const TestRuntime runtime({"fake_full"});
  const Attention a({.seq_q = 3, .seq_kv = 4});
  const auto plan = planned(runtime, checked(a.problem));
  ASSERT_TRUE(plan);
  EXPECT_EQ((*plan)->backend_name(), "fake_full");
  EXPECT_EQ((*plan)->version(), "1.0.0");
  EXPECT_EQ((*plan)->kernel(), "fake_attention");
  EXPECT_EQ((*plan)->workspace_bytes(), 256);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*plan)->workspace()) % 64, 0u);
  EXPECT_EQ((*plan)->problem().seq_kv, 4);
}

TEST(Plan, APluginWithoutPlanHasItsNameForAKernel) {
  const TestRuntime runtime({"fake_minimal"});
  Attention a({});
  const auto plan = planned(runtime, checked(a.problem));
  ASSERT_TRUE(plan);
  EXPECT_EQ((*plan)->kernel(), "fake_minimal");
  EXPECT_EQ((*plan)->workspace_bytes(), 0);
  EXPECT_EQ((*plan)->workspace(), nullptr);
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST(Plan, FailuresHaveTheirStatusAndTheNameInFront) {
  for (const auto& [word, status] : {std::pair{"unsupported", ATTNRT_UNSUPPORTED},
                                     {"out_of_memory", ATTNRT_OUT_OF_MEMORY},
                                     {"invalid_argument", ATTNRT_INVALID_ARGUMENT},
                                     {"internal", ATTNRT_INTERNAL},
                                     {"device_lost", ATTNRT_DEVICE_LOST}}) {
    const std::string name = std::string("fake_plan_") + word;
    const TestRuntime runtime({name});
    const auto plan = planned(runtime, checked(Attention({}).problem));
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, status);
    EXPECT_EQ(plan.error().message, "plan: " + name + ": plan was told to fail");
  }
}

TEST(Plan, AnAlignmentThatIsNoPowerOfTwoIsThePluginsFault) {
  for (const auto& [name, alignment] :
       {std::pair{"fake_bad_alignment", "48"}, {"fake_bad_negative", "-64"}}) {
    const TestRuntime runtime({name});
    const auto plan = planned(runtime, checked(Attention({}).problem));
    ASSERT_FALSE(plan) << name;
    EXPECT_EQ(plan.error().code, ATTNRT_INTERNAL);
    EXPECT_THAT(
        plan.error().message,
        HasSubstr(std::string("asks for a workspace of 256 bytes, aligned to ") + alignment));
  }
}

TEST(Plan, TheNameOfAKernelIsBounded) {
  const TestRuntime runtime({"fake_bad_many"});
  const auto plan = planned(runtime, checked(Attention({}).problem));
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ((*plan)->kernel(), std::string(256, 'x'));
}

TEST(Plan, KeepsItsBackendAfterTheRuntimeIsClosed) {
  TestRuntime runtime({"fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto plan = planned(runtime, checked(a.problem));
  ASSERT_TRUE(plan);
  runtime.close();
  ASSERT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST(Plan, ADevicesWorkspaceIsItsOwnMemoryAndGoesWithThePlan) {
  const TestRuntime runtime({"fake_rocm"});
  const Problem problem = on_rocm(Attention({}).problem);
  fake_counters& counters = runtime.counters(problem);
  const int64_t before = counters.allocated;
  {
    const auto plan = planned(runtime, problem);
    ASSERT_TRUE(plan);
    EXPECT_EQ(counters.allocated, before + 1);
    EXPECT_EQ(counters.pinned, 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*plan)->workspace()) % 64, 0u);
  }
  EXPECT_EQ(counters.allocated, before);
}

TEST(Plan, ADeviceWithoutMemory) {
  const TestRuntime runtime({"fake_rocm"});
  const Problem problem = on_rocm(Attention({}).problem);
  fake_counters& counters = runtime.counters(problem);
  counters.memory_limit = 1;
  const auto plan = planned(runtime, problem);
  counters.memory_limit = 0;
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ATTNRT_OUT_OF_MEMORY);
  EXPECT_THAT(
      plan.error().message,
      HasSubstr("plan: fake_rocm: workspace: cannot allocate 256 bytes of device memory: "));
}

TEST(Plan, DevicesAreToldApartByTheirId) {
  const TestRuntime runtime({"fake_rocm_two"});
  for (const int32_t id : {0, 1}) {
    const auto plan = planned(runtime, on_rocm(Attention({}).problem, id));
    ASSERT_TRUE(plan);
    EXPECT_EQ((*plan)->device().id, id);
  }
  const auto third = runtime->decide(on_rocm(Attention({}).problem, 2), {});
  EXPECT_EQ(third->status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(third->message, HasSubstr("has no rocm 2"));
}

// An application's allocator, on the fake device's memory.
struct Application {
  const Backend* backend = nullptr;  // absent: it serves no device
  int64_t allocated = 0, freed = 0;
  attnrt_status status = ATTNRT_OK;
  void* last_stream = nullptr;

  RuntimeOptions options() {
    RuntimeOptions options;
    options.allocator.self = this;
    options.allocator.allocate = [](void* self, int32_t type, int32_t id, int64_t bytes,
                                    void* stream, void** pointer, attnrt_error* error) {
      auto& app = *static_cast<Application*>(self);
      EXPECT_EQ(type, ATTNRT_DEVICE_ROCM);
      if (app.status != ATTNRT_OK) return attnrt_fail(error, app.status, "the pool says no");
      if (app.backend == nullptr) return attnrt_status{ATTNRT_UNSUPPORTED};
      app.last_stream = stream;
      ++app.allocated;
      return app.backend->memory()->allocate(app.backend->instance(), id, bytes, stream, pointer,
                                             error);
    };
    options.allocator.free = [](void* self, int32_t type, int32_t id, void* pointer, void* stream) {
      auto& app = *static_cast<Application*>(self);
      EXPECT_EQ(type, ATTNRT_DEVICE_ROCM);
      ++app.freed;
      app.backend->memory()->free(app.backend->instance(), id, pointer, stream);
    };
    return options;
  }
};

TEST(ApplicationsMemory, ServesWorkspaces) {
  Application app;
  FakeDevice device("", app.options());
  DeviceAttention a(device.runtime, {.seq_q = 2, .seq_kv = 3});
  app.backend = a.backend().get();
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(app.allocated, 1);
  FakeStreams streams(*a.backend());
  void* const stream = streams.make();
  {
    const auto plan = device.runtime->plan(checked(a.problem), {}, stream);
    ASSERT_TRUE(plan);
    EXPECT_EQ(app.last_stream, stream) << "in the order of the plan's stream";
    EXPECT_EQ(app.allocated, 2);
    EXPECT_EQ(app.freed, 0);
  }
  EXPECT_EQ(app.freed, 1);
  device.runtime->trim(0);
  EXPECT_EQ(app.freed, 2);
  EXPECT_TRUE(a.right());
}

TEST(ApplicationsMemory, ThatServesNotThisDeviceLeavesItToTheBackend) {
  Application app;
  FakeDevice device("", app.options());
  DeviceAttention a(device.runtime, {.seq_q = 2, .seq_kv = 3});
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  app.backend = a.backend().get();
  device.runtime->trim(0);
  EXPECT_EQ(app.freed, 0) << "what the backend gave goes back to it";
}

TEST(ApplicationsMemory, ThatRunsOutIsOutOfMemory) {
  Application app;
  FakeDevice device("", app.options());
  DeviceAttention a(device.runtime, {.seq_q = 2, .seq_kv = 3});
  app.status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OUT_OF_MEMORY);
  EXPECT_THAT(a.error.message, HasSubstr("the pool says no"));
}

TEST(ApplicationsMemory, ServesStagingBuffersToo) {
  Application app;
  const TestRuntime runtime({"fake_rocm"}, "staging: allow\n", app.options());
  Attention a({.seq_q = 2, .seq_kv = 3});
  app.backend = runtime->decide(checked(a.problem), {})->winner()->candidate.backend.get();
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  EXPECT_EQ(app.allocated, 2) << "a workspace and a buffer";
  runtime->trim(0);
  EXPECT_EQ(app.freed, 2);
}

TEST(DeviceMemory, HasTheAlignmentThatWasAskedFor) {
  const TestRuntime runtime({"fake_rocm"});
  const auto decision = runtime->decide(on_rocm(Attention({}).problem), {});
  const Candidate& candidate = decision->verdicts.front().candidate;
  using Kind = DeviceMemory::Kind;
  for (const auto kind : {Kind::host, Kind::device, Kind::pinned}) {
    for (const int64_t alignment : {1, 8, 64, 512, 4096, 65536}) {
      auto memory =
          DeviceMemory::allocate(candidate.backend, candidate.device, kind, 100, alignment);
      ASSERT_TRUE(memory) << memory.error().message;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % static_cast<uintptr_t>(alignment),
                0u);
      EXPECT_EQ(memory->bytes(), 100);
      DeviceMemory moved = std::move(*memory);
      EXPECT_EQ(memory->data(), nullptr);
      EXPECT_NE(moved.data(), nullptr);
    }
    auto none = DeviceMemory::allocate(candidate.backend, candidate.device, kind, 0, 64);
    ASSERT_TRUE(none);
    EXPECT_EQ(none->data(), nullptr);
    const auto too_much =
        DeviceMemory::allocate(candidate.backend, candidate.device, kind, INT64_MAX - 100, 4096);
    EXPECT_FALSE(too_much);
  }
  EXPECT_EQ(runtime.counters(on_rocm(Attention({}).problem)).allocated, 0);
  EXPECT_EQ(runtime.counters(on_rocm(Attention({}).problem)).pinned, 0);
}

}  // namespace
}  // namespace attnrt::core
