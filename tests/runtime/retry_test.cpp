// tests/runtime/retry_test.cpp: devices that were missing or lost are looked for again
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "run.hpp"
#include "runtime.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

const Problem kOnDevice = [] {
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  return checked(problem);
}();

// The counters of the first plugin's library, which all of its instances share.
fake_counters& counters(const TestRuntime& runtime) {
  const auto backend = runtime->snapshot()->entries.front()->backend();
  if (!backend) throw std::runtime_error("not loaded");
  return *const_cast<fake_counters*>(
      static_cast<const fake_counters*>(backend->extension(FAKE_COUNTERS)));
}

std::shared_ptr<const Backend> backend_of(const TestRuntime& runtime) {
  const auto decision = runtime->decide(kOnDevice, {});
  return decision->winner() != nullptr ? decision->winner()->candidate.backend : nullptr;
}

// Both ways to look again.
class Retry : public ::testing::TestWithParam<bool> {
 protected:
  static void look_again(const TestRuntime& runtime) {
    if (GetParam()) {
      ASSERT_TRUE(runtime->reload());
    } else {
      runtime->retry();
    }
  }
};

TEST_P(Retry, ADeviceThatAppearsIsUsedByNewPlans) {
  const TestRuntime runtime({"fake_rocm_late"});
  EXPECT_THAT(chosen(*runtime, kOnDevice), HasSubstr("no device: the fake device is unplugged"));
  look_again(runtime);
  EXPECT_THAT(chosen(*runtime, kOnDevice), HasSubstr("no device: the fake device is unplugged"));
  counters(runtime).absent = 0;
  EXPECT_THAT(chosen(*runtime, kOnDevice), HasSubstr("no device")) << "not before it is asked";
  look_again(runtime);
  EXPECT_EQ(chosen(*runtime, kOnDevice), "fake_rocm_late 1.0.0");
  counters(runtime).absent = 1;
}

TEST_P(Retry, ALostDeviceIsAskedForAgainAndOldPlansKeepTheirInstance) {
  const TestRuntime runtime({"fake_rocm"});
  auto old = runtime->plan(kOnDevice, {});
  ASSERT_TRUE(old) << old.error().message;
  const auto before = backend_of(runtime);
  look_again(runtime);
  EXPECT_EQ(backend_of(runtime), before) << "no device was lost";

  counters(runtime).run_status = ATTNRT_DEVICE_LOST;
  const attnrt_args args = Attention({.seq_q = 2, .seq_kv = 3}).args;
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ((*old)->backend().run((*old)->plugin_plan(), (*old)->device_problem(), args, &error),
            ATTNRT_DEVICE_LOST);
  counters(runtime).run_status = ATTNRT_OK;
  EXPECT_EQ(backend_of(runtime), before) << "not before it is asked";
  look_again(runtime);
  const auto after = backend_of(runtime);
  ASSERT_NE(after, nullptr);
  EXPECT_NE(after, before);
  EXPECT_NE(after->instance(), before->instance());
  EXPECT_EQ(&(*old)->backend(), before.get());
  EXPECT_FALSE(after->lost_device());
}

TEST_P(Retry, ADeviceThatIsGoneIsNoCandidateAfterwards) {
  const TestRuntime runtime({"fake_rocm_null_timing"});
  ASSERT_TRUE(runtime->plan(kOnDevice, {}));
  counters(runtime).run_status = ATTNRT_DEVICE_LOST;
  counters(runtime).absent = 1;
  const auto backend = backend_of(runtime);
  (void)backend->run(nullptr, kOnDevice, attnrt_args{}, nullptr);
  look_again(runtime);
  EXPECT_THAT(chosen(*runtime, kOnDevice), HasSubstr("no device: the fake device is unplugged"));
  counters(runtime).run_status = ATTNRT_OK;
  counters(runtime).absent = 0;
}

TEST_P(Retry, WhatCouldNotBeLoadedIsLoadedAgain) {
  const TestRuntime runtime({"fake_open_fails"});
  EXPECT_THAT(chosen(*runtime), HasSubstr("open was told to fail"));
  const auto entry = runtime->snapshot()->entries.front();
  look_again(runtime);
  EXPECT_NE(runtime->snapshot()->entries.front(), entry);
  EXPECT_FALSE(runtime->snapshot()->entries.front()->may_improve()) << "not asked yet";
}

INSTANTIATE_TEST_SUITE_P(, Retry, ::testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Reload" : "Retry"; });

TEST(RetryAlone, LeavesASnapshotWithoutFaultsAsItIs) {
  const TestRuntime runtime({"fake_full", "fake_rocm"});
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  const auto before = runtime->snapshot();
  runtime->retry();
  EXPECT_EQ(runtime->snapshot(), before);
}

}  // namespace
}  // namespace attnrt::core
