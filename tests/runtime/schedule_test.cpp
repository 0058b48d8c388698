// tests/runtime/schedule_test.cpp: what schedules build, whom they serve, and what they refuse
#include "schedule.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "run.hpp"
#include "support/allocations.hpp"
#include "support/fake_device.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr Shape kShape{.batch = 2, .seq_q = 3, .seq_kv = 8};

// One decode step of two sequences on the fake device.
struct Step : DeviceAttention {
  explicit Step(const TestRuntime& runtime, const Shape& shape = kShape, uint64_t seed = 1)
      : DeviceAttention(runtime, shape, seed),
        lengths(DeviceMemory::allocate(backend(), {ATTNRT_DEVICE_ROCM, 0, "", "", 0},
                                       DeviceMemory::Kind::device, 8, 4)
                    .value()) {
    problem.kv_lengths = 1;
    args.kv_lengths = view(lengths.data(), kI32, {shape.batch});
    set_lengths(3, 8);
  }
  void set_lengths(int32_t first, int32_t second) const {
    auto* const numbers = static_cast<int32_t*>(lengths.data());
    numbers[0] = first, numbers[1] = second;
  }
  const float* out(int64_t b) const {
    return static_cast<const float*>(args.out.data) + b * args.out.stride[0];
  }
  void clear_all() const {
    for (int64_t n = 0; n < args.out.shape[0] * args.out.stride[0]; ++n)
      static_cast<float*>(args.out.data)[n] = NAN;
  }
  std::vector<float> results() const { return {out(0), out(args.out.shape[0])}; }

  DeviceMemory lengths;
};

std::unique_ptr<Plan> planned(const TestRuntime& runtime, const Problem& problem,
                              const std::string& backend = {}) {
  auto made = runtime->plan(checked(problem), Call{backend});
  if (!made) throw std::runtime_error(made.error().message);
  return *std::move(made);
}

std::unique_ptr<Schedule> made(const Plan& plan) {
  auto schedule = Schedule::make(plan);
  if (!schedule) throw std::runtime_error(schedule.error().message);
  return *std::move(schedule);
}

std::string message_of(attnrt_status expected,
                       const std::function<attnrt_status(attnrt_error*)>& call) {
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(call(&error), expected) << error.message;
  return error.message;
}

std::string run_message(const Plan& plan, const attnrt_args& args, const Schedule& schedule,
                        attnrt_status expected = ATTNRT_INVALID_ARGUMENT) {
  return message_of(expected, [&](attnrt_error* e) { return run(plan, args, e, &schedule); });
}

struct Scheduling : FakeDevice {
  Scheduling() : FakeDevice("", {}, {"fake_rocm_every_word"}) {}
};

TEST(Schedule, ARunWithItGivesTheSameBits) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  ASSERT_EQ(run(*plan, step.args, nullptr), ATTNRT_OK);
  device.counters.complete();
  const auto expected = step.results();
  step.clear_all();
  const auto schedule = made(*plan);
  EXPECT_GT(schedule->bytes(), 0);
  attnrt_args build_args = step.args;
  build_args.workspace = &step;  // of the application, for runs; a build has none
  build_args.workspace_bytes = 1;
  ASSERT_EQ(schedule->build(build_args, nullptr), ATTNRT_OK);
  EXPECT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
  EXPECT_EQ(device.counters.builds, 1);
  EXPECT_EQ(step.results(), expected);
  EXPECT_TRUE(step.right());
}

TEST(Schedule, OfACapturedGraphIsBuiltAgainInPlace) {
  Scheduling device;
  Step step(device.runtime), other_layer(device.runtime, kShape, 2);
  other_layer.args.kv_lengths = step.args.kv_lengths;
  FakeStreams streams(*step.backend());
  void* const stream = streams.make();
  step.args.stream = other_layer.args.stream = stream;
  const auto plan = planned(device.runtime, step.problem);
  const auto other_plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  device.capture(stream, 5);
  ASSERT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  ASSERT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  ASSERT_EQ(run_message(*other_plan, other_layer.args, *schedule, ATTNRT_OK), "");
  device.end_capture();
  const int64_t allocated = device.counters.allocations;
  for (const auto& [first, second] : {std::pair{3, 8}, {8, 1}, {0, 5}}) {
    step.set_lengths(first, second);
    step.clear_all();
    other_layer.clear_all();
    EXPECT_EQ(device.counters.replay(5, stream), 3);
    device.counters.complete();
    EXPECT_TRUE(step.right()) << first;
    EXPECT_TRUE(other_layer.right()) << first;
  }
  EXPECT_EQ(device.counters.allocations, allocated);
  EXPECT_EQ(device.counters.builds, 1) << "by the host";
}

TEST(Schedule, OtherLengthsAtRunGiveNan) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  ASSERT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  device.counters.complete();
  step.set_lengths(3, 7);
  for (const int64_t b : {0, 1}) const_cast<float*>(step.out(b))[0] = 1;
  ASSERT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
  EXPECT_FALSE(std::isnan(step.out(0)[0]));
  EXPECT_TRUE(std::isnan(step.out(1)[0]));
  ASSERT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  ASSERT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
  EXPECT_TRUE(step.right());
}

TEST(Schedule, ServesEqualProblemsOnly) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  ASSERT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  const auto refusal = [&](const std::function<void(Problem&)>& change) {
    Problem problem = step.problem;
    change(problem);
    return run_message(*planned(device.runtime, problem), step.args, *schedule);
  };
  EXPECT_EQ(refusal([](Problem& p) { p.causal = 1; }),
            "run: the schedule is of another problem: found causal=false; expected true");
  EXPECT_EQ(refusal([](Problem& p) { p.seq_kv = 16; }),
            "run: the schedule is of another problem: found seq_kv=8; expected 16");
  EXPECT_THAT(refusal([](Problem& p) { p.scale = 1 / std::sqrt(8.0F); }),
              HasSubstr("found scale=0; expected 0.35"));
  const auto equal = planned(device.runtime, step.problem);
  EXPECT_EQ(run_message(*equal, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
}

TEST(Schedule, IsGivenToARunWithoutAllocations) {
  const TestRuntime runtime({"fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto plan = planned(runtime, a.problem), equal = planned(runtime, a.problem);
  const auto schedule = made(*plan);
  ASSERT_EQ(schedule->build(a.args, nullptr), ATTNRT_OK);
  Extents extents;
  ASSERT_EQ(check_args(equal->problem(), a.args, &extents, nullptr), ATTNRT_OK);
  attnrt_status status = ATTNRT_INTERNAL;
  EXPECT_EQ(allocations_of([&] { status = schedule->give(*equal, extents, a.args, nullptr); }), 0);
  EXPECT_EQ(status, ATTNRT_OK);
}

// A rollout, or a reload, gives the layers of a model different versions.
TEST(Schedule, AnotherVersionOfItsBackendDividesItsWorkItself) {
  const TestRuntime runtime({"fake_versions-1.0.0", "fake_versions-1.2.0"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto newest = planned(runtime, a.problem);
  ASSERT_EQ(newest->version(), "1.2.0");
  const auto schedule = made(*newest);
  ASSERT_EQ(schedule->build(a.args, nullptr), ATTNRT_OK);
  runtime.set_policy("backends: {fake_versions: {version: '<1.2'}}\n");
  ASSERT_TRUE(runtime->reload());
  const auto older = planned(runtime, a.problem);
  ASSERT_EQ(older->version(), "1.0.0");
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(run(*older, a.args, &error, schedule.get()), ATTNRT_OK) << error.message;
  EXPECT_LE(largest_error(a.problem, a.args), 1e-6);
  Attention other({.seq_q = 2, .seq_kv = 3, .head_dim = 16});
  EXPECT_THAT(run_message(*planned(runtime, other.problem), other.args, *schedule),
              ::testing::HasSubstr("of another problem"));
}

TEST(Schedule, ServesItsBackendAndDeviceOnly) {
  const TestRuntime runtime({"fake_full", "fake_minimal"});
  const TestRuntime again({"fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto plan = planned(runtime, a.problem);
  const auto schedule = made(*plan);
  ASSERT_EQ(schedule->build(a.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(run_message(*planned(runtime, a.problem, "fake_minimal"), a.args, *schedule),
            "run: the schedule is of a plan of fake_full 1.0.0 on cpu; expected one of "
            "fake_minimal 1.0.0 on cpu");
  EXPECT_EQ(
      run_message(*planned(again, a.problem), a.args, *schedule),
      "run: the schedule is of another instance of fake_full 1.0.0 on cpu; make it from a new "
      "plan");

  const TestRuntime two({"fake_rocm_two"});
  Problem problem = FakeDevice::on_device();
  const auto first = planned(two, problem);
  problem.device_id = 1;
  const auto second = planned(two, problem);
  EXPECT_EQ(run_message(*second, a.args, *made(*first)),
            "run: the schedule is of a plan of fake_rocm_two 1.0.0 on rocm:0 gfx1100; expected one "
            "of fake_rocm_two 1.0.0 on rocm:1 gfx1100");
}

// The checks are the same where a schedule does nothing.
TEST(Schedule, ServesTheSizesThatItWasBuiltFor) {
  const TestRuntime runtime({"fake_full"});
  Attention large({.batch = 3, .seq_q = 4, .seq_kv = 6});
  const auto plan = planned(runtime, large.problem);
  const auto schedule = made(*plan);
  EXPECT_EQ(run_message(*plan, large.args, *schedule),
            "run: the schedule is not built; build it for this run's tensors first");
  ASSERT_EQ(schedule->build(large.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(run_message(*plan, large.args, *schedule, ATTNRT_OK), "");
  for (const auto& [shape, message] :
       {std::pair{Shape{.batch = 2, .seq_q = 4, .seq_kv = 6}, "batch is 2"},
        {Shape{.batch = 3, .seq_q = 3, .seq_kv = 6}, "seq_q is 3"},
        {Shape{.batch = 3, .seq_q = 4, .seq_kv = 5}, "seq_kv is 5"}}) {
    Attention smaller(shape);
    EXPECT_THAT(run_message(*plan, smaller.args, *schedule),
                HasSubstr(std::string("run: ") + message + "; the schedule was built for "));
  }
  Attention above({.batch = 3, .seq_q = 4, .seq_kv = 7});
  EXPECT_EQ(message_of(ATTNRT_INVALID_ARGUMENT,
                       [&](attnrt_error* e) { return schedule->build(above.args, e); }),
            "schedule: seq_kv is 7, above the 6 that was planned for");
  EXPECT_EQ(run_message(*plan, large.args, *schedule, ATTNRT_OK), "") << "as it was built";
}

TEST(Schedule, ServesTheColumnsOfThePageTableThatItWasBuiltFor) {
  const TestRuntime runtime({"fake_full"});
  Attention a({.batch = 3, .seq_q = 1, .seq_kv = 4});  // three pages of four keys
  a.problem.batch = 1, a.problem.page_size = 4, a.problem.seq_kv = 8, a.problem.kv_lengths = 1;
  a.args.q.shape[0] = a.args.out.shape[0] = 1;
  Aligned<int32_t> pages(3), length(1, 4);
  a.args.kv_lengths = view(length.data(), kI32, {1});
  a.args.page_table = view(pages.data(), kI32, {1, 2});
  const auto plan = planned(runtime, a.problem);
  const auto schedule = made(*plan);
  ASSERT_EQ(message_of(ATTNRT_OK, [&](attnrt_error* e) { return schedule->build(a.args, e); }), "");
  EXPECT_EQ(run_message(*plan, a.args, *schedule, ATTNRT_OK), "");
  attnrt_args wider = a.args;
  wider.page_table = view(pages.data(), kI32, {1, 3});
  EXPECT_EQ(run_message(*plan, wider, *schedule),
            "run: the second dimension of page_table is 3; the schedule was built for 2");
  attnrt_args fewer = a.args;
  fewer.k.shape[0] = fewer.v.shape[0] = 2;
  EXPECT_EQ(run_message(*plan, fewer, *schedule),
            "run: the first dimension of k is 2; the schedule was built for 3");
}

TEST(Schedule, WithoutASequenceNothingIsBuilt) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  attnrt_args empty = step.args;
  for (auto* tensor : {&empty.q, &empty.k, &empty.v, &empty.out, &empty.kv_lengths})
    tensor->shape[0] = 0;
  EXPECT_EQ(schedule->build(empty, nullptr), ATTNRT_OK);
  EXPECT_EQ(device.counters.builds, 0);
  EXPECT_EQ(run_message(*plan, empty, *schedule, ATTNRT_OK), "");
  EXPECT_THAT(run_message(*plan, step.args, *schedule), HasSubstr("is not built"));
  ASSERT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(schedule->build(empty, nullptr), ATTNRT_OK);
  EXPECT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "") << "as it was built";
  device.counters.complete();
}

TEST(Schedule, DoesNothingWhereNoneIsNeeded) {
  Scheduling device;
  Step step(device.runtime);
  device.counters.no_schedule = 1;
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  EXPECT_EQ(schedule->bytes(), 0);
  EXPECT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(device.counters.builds, 0);
  EXPECT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
  EXPECT_TRUE(step.right());
}

TEST(Schedule, DoesNothingWhereNoneIsOffered) {
  for (const char* backend : {"fake_rocm", "fake_rocm_bad_null_build"}) {
    FakeDevice device("", {}, {backend});
    Step step(device.runtime);
    const auto plan = planned(device.runtime, step.problem);
    const auto schedule = made(*plan);
    EXPECT_EQ(schedule->bytes(), 0);
    EXPECT_EQ(schedule->build(step.args, nullptr), ATTNRT_OK);
    EXPECT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
    device.counters.complete();
    EXPECT_TRUE(step.right());
    const bool warned = std::string(backend) == "fake_rocm_bad_null_build";
    EXPECT_EQ(warned, ::testing::Value(device.runtime.log(),
                                       Contains(HasSubstr("attnrt.schedule/1 without build, which "
                                                          "is not used"))));
  }
}

TEST(Schedule, DoesNothingForStagedTensors) {
  const TestRuntime runtime({"fake_rocm_every_word"}, "staging: allow\n");
  Attention a({.batch = 2, .seq_q = 1, .seq_kv = 4});
  const auto plan = planned(runtime, a.problem);
  ASSERT_NE(plan->staging(), nullptr);
  const auto schedule = made(*plan);
  EXPECT_EQ(schedule->bytes(), 0);
  EXPECT_EQ(schedule->build(a.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(run_message(*plan, a.args, *schedule, ATTNRT_OK), "");
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST(Schedule, CannotBeMadeIfTheBackendFailsOrMemoryRunsOut) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const auto failure = [&](attnrt_status status) {
    const auto schedule = Schedule::make(*plan);
    EXPECT_FALSE(schedule);
    if (schedule) return std::string();
    EXPECT_EQ(schedule.error().code, status);
    return schedule.error().message;
  };
  device.counters.bytes_status = ATTNRT_INTERNAL;
  EXPECT_EQ(failure(ATTNRT_INTERNAL), "schedule: fake_rocm_every_word: bytes was told to fail");
  device.counters.bytes_status = ATTNRT_OK;
  device.counters.schedule_bytes = -5;
  EXPECT_EQ(failure(ATTNRT_INTERNAL),
            "schedule: fake_rocm_every_word: asks for -5 bytes; expected at least 0");
  device.counters.schedule_bytes = 0;
  device.counters.memory_limit = 1;
  EXPECT_THAT(failure(ATTNRT_OUT_OF_MEMORY),
              HasSubstr("schedule: fake_rocm_every_word: cannot allocate 88 bytes of device "
                        "memory: "));
  device.counters.memory_limit = 0;
}

TEST(Schedule, WhoseBuildFailsIsBuiltAgainBeforeARun) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  const auto build = [&](attnrt_error* e) { return schedule->build(step.args, e); };
  EXPECT_EQ(message_of(ATTNRT_OK, build), "");
  device.counters.build_status = ATTNRT_INTERNAL;
  EXPECT_EQ(message_of(ATTNRT_INTERNAL, build),
            "schedule: fake_rocm_every_word: build was told to fail");
  EXPECT_THAT(run_message(*plan, step.args, *schedule), HasSubstr("is not built"));
  device.counters.build_status = ATTNRT_OK;
  EXPECT_EQ(message_of(ATTNRT_OK, build), "");
  EXPECT_EQ(run_message(*plan, step.args, *schedule, ATTNRT_OK), "");
  device.counters.complete();
}

TEST(Schedule, OfAPlanThatCannotBeCapturedIsNotBuiltInACapture) {
  Scheduling device;
  Step step(device.runtime);
  device.counters.not_capturable = 1;
  const auto plan = planned(device.runtime, step.problem);
  const auto schedule = made(*plan);
  device.capture(nullptr, 1);
  EXPECT_EQ(message_of(ATTNRT_UNSUPPORTED,
                       [&](attnrt_error* e) { return schedule->build(step.args, e); }),
            "schedule: fake_rocm_every_word: kernel fake_attention cannot be captured into a "
            "graph; run it on a stream that is not being captured");
  device.end_capture();
  EXPECT_EQ(device.counters.builds, 0);
}

TEST(Schedule, IsMadeWhileAGraphIsCaptured) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  device.capture(nullptr, 1);
  const auto schedule = made(*plan);
  device.end_capture();
  EXPECT_GT(schedule->bytes(), 0);
  EXPECT_EQ(device.counters.invalidated_captures, 0);
}

// An application's allocator on the fake device's memory, whose addresses are no multiples of 256.
struct Pool {
  static constexpr int64_t kShift = 64;  // bytes
  const Backend* backend = nullptr;      // absent: it serves no device
  int64_t allocated = 0, freed = 0;

  RuntimeOptions options() {
    RuntimeOptions options;
    options.allocator.self = this;
    options.allocator.allocate = [](void* self, int32_t, int32_t id, int64_t bytes, void* stream,
                                    void** pointer, attnrt_error* error) {
      auto& pool = *static_cast<Pool*>(self);
      if (pool.backend == nullptr) return attnrt_status{ATTNRT_UNSUPPORTED};
      ++pool.allocated;
      const attnrt_status status = pool.backend->memory()->allocate(
          pool.backend->instance(), id, bytes + kShift, stream, pointer, error);
      *pointer = static_cast<char*>(*pointer) + kShift;
      return status;
    };
    options.allocator.free = [](void* self, int32_t, int32_t id, void* pointer, void* stream) {
      auto& pool = *static_cast<Pool*>(self);
      ++pool.freed;
      pool.backend->memory()->free(pool.backend->instance(), id,
                                   static_cast<char*>(pointer) - kShift, stream);
    };
    return options;
  }
};

TEST(Schedule, TakesItsMemoryFromTheApplicationAndAlignsIt) {
  Pool pool;
  FakeDevice device("", pool.options(), {"fake_rocm_every_word"});
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  pool.backend = step.backend().get();
  auto schedule = made(*plan);
  EXPECT_EQ(pool.allocated, 1);
  ASSERT_EQ(message_of(ATTNRT_OK, [&](attnrt_error* e) { return schedule->build(step.args, e); }),
            "");
  device.counters.complete();
  schedule.reset();
  EXPECT_EQ(pool.freed, 1);
}

TEST(Schedule, GivesItsMemoryBack) {
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  const int64_t before = device.counters.allocated;
  auto schedule = made(*plan);
  EXPECT_EQ(device.counters.allocated, before + 1);
  schedule.reset();
  EXPECT_EQ(device.counters.allocated, before);
}

TEST(Schedule, OfTheArgsIsTheHostsToSet) {
  const TestRuntime runtime({"fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto plan = planned(runtime, a.problem);
  const std::string expected =
      "args: schedule is set; leave it at zero, and give the schedule to "
      "attnrt_plan_run_scheduled";
  a.args.schedule = &a;
  EXPECT_EQ(
      message_of(ATTNRT_INVALID_ARGUMENT, [&](attnrt_error* e) { return run(*plan, a.args, e); }),
      expected);
  a.args.schedule = nullptr;
  a.args.schedule_bytes = 64;
  EXPECT_EQ(
      message_of(ATTNRT_INVALID_ARGUMENT,
                 [&](attnrt_error* e) { return runtime->attention(a.problem, a.args, {}, e); }),
      expected);
}

TEST(Schedule, ALineOfTheLogSaysHowLargeItIs) {
  const Variable level("ATTNRT_LOG", "info");
  Scheduling device;
  Step step(device.runtime);
  const auto plan = planned(device.runtime, step.problem);
  (void)made(*plan);
  EXPECT_THAT(device.runtime.log(),
              Contains(HasSubstr("schedule: fake_rocm_every_word 1.0.0 on rocm:0 gfx1100: 88 "
                                 "bytes; for device=rocm dtype=f32 batch=2")));
}

}  // namespace
}  // namespace attnrt::core
