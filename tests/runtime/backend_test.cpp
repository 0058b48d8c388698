// tests/runtime/backend_test.cpp: calls, options and devices of an open plugin
#include "backend.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfenv>
#include <new>
#include <optional>

#include "fakes/fake.h"
#include "support/load_fixture.hpp"

namespace attnrt::core {
namespace {

using support::outcome;
using support::run_failure;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using BackendTest = support::LoadFixture;

TEST_F(BackendTest, AnExceptionIsAnInternalError) {
  for (const std::string call : {"open", "devices", "supports", "plan", "run"}) {
    const auto backend = loaded("fake_throws_in_" + call);
    EXPECT_THAT(outcome(backend) + (backend ? (*backend)->no_device_reason() : ""),
                HasSubstr("threw an exception"))
        << call;
  }
}

TEST_F(BackendTest, AStatusThatDoesNotExistIsAnInternalError) {
  EXPECT_THAT(outcome(loaded("fake_plan_nonsense")), HasSubstr("plan: internal error"));
  EXPECT_THAT(outcome(loaded("fake_run_nonsense")), HasSubstr("run: internal error"));
}

TEST_F(BackendTest, OptionsReachOpen) {
  EXPECT_TRUE(loaded("fake_full", {{"note", "a"}}));
  const auto refused = loaded("fake_full", {{"note", "a"}, {"colour", "red"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ATTNRT_INVALID_ARGUMENT);
  EXPECT_THAT(refused.error().message, HasSubstr("colour"));
  const auto takes_none = loaded("fake_minimal", {{"note", "a"}});
  ASSERT_FALSE(takes_none);
  EXPECT_EQ(takes_none.error().code, ATTNRT_INVALID_ARGUMENT);
}

TEST_F(BackendTest, AnOlderTableEndsWhereItEnds) {
  const auto backend = loaded("fake_older");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_EQ((*backend)->extension(FAKE_COUNTERS), nullptr);
  EXPECT_EQ(run_failure(**backend), "");
}

TEST_F(BackendTest, ANewerTableIsReadAsFarAsItIsKnown) {
  const auto backend = loaded("fake_newer");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_NE((*backend)->extension(FAKE_COUNTERS), nullptr);
  EXPECT_EQ(run_failure(**backend), "");
}

TEST_F(BackendTest, DevicesAndTheirMemory) {
  const auto backend = loaded("fake_rocm_two");
  ASSERT_TRUE(backend) << backend.error().message;
  ASSERT_THAT((*backend)->devices(), SizeIs(2));
  EXPECT_EQ((*backend)->devices()[1].id, 1);
  EXPECT_EQ((*backend)->devices()[1].arch, "gfx1100");
  EXPECT_EQ((*backend)->devices_note(), "both are fakes");
  EXPECT_EQ((*backend)->no_device_reason(), "");
  EXPECT_NE((*backend)->memory(), nullptr);
  EXPECT_THAT(outcome(loaded("fake_rocm_no_memory")), HasSubstr(ATTNRT_MEMORY));
}

TEST_F(BackendTest, NoDeviceHasItsReason) {
  const auto backend = loaded("fake_no_devices");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT((*backend)->devices(), IsEmpty());
  EXPECT_EQ((*backend)->no_device_reason(), "no fake device is plugged in");
  EXPECT_EQ((*backend)->devices_note(), "");
}

TEST_F(BackendTest, ADeviceOutsideTheManifestIsNoReasonWhereOthersAreLeft) {
  const auto backend = loaded("fake_rocm_and_cpu");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT(log, ElementsAre(HasSubstr("its device cpu is left out")));
  EXPECT_THAT((*backend)->devices(), SizeIs(1));
  EXPECT_EQ((*backend)->no_device_reason(), "");
}

TEST_F(BackendTest, WhatAPluginSaysIsBounded) {
  const auto backend = loaded("fake_bad_many");
  ASSERT_TRUE(backend) << backend.error().message;
  ASSERT_THAT((*backend)->devices(), SizeIs(64));
  EXPECT_EQ((*backend)->devices()[0].name, std::string(256, 'x'));
  Problem problem = fakes::Tiny().problem;
  problem.causal = 1;
  std::vector<std::string> reasons;
  EXPECT_EQ((*backend)->supports(problem, &reasons), ATTNRT_UNSUPPORTED);
  EXPECT_THAT(reasons, AllOf(SizeIs(16), Each(std::string(256, 'x'))));
}

TEST_F(BackendTest, AnErrorTextWithoutItsNulEndsAtTheStructsEnd) {
  const auto backend = loaded("fake_bad_no_nul");
  ASSERT_TRUE(backend) << backend.error().message;
  struct {
    attnrt_error error = ATTNRT_ERROR_INIT;
    char behind[8] = "yyyyyyy";
  } memory;
  attnrt_plan_info info{};
  void* plan = nullptr;
  EXPECT_EQ((*backend)->plan(fakes::Tiny().problem, &info, &plan, &memory.error), ATTNRT_INTERNAL);
  EXPECT_EQ(std::string(memory.error.message), std::string(255, 'x'));
}

TEST_F(BackendTest, AnExtensionWithoutOneOfItsCallsIsRefused) {
  const auto memory = loaded("fake_rocm_no_events");
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(memory.error().message,
              HasSubstr("has a device but an extension attnrt.memory/1 without event_create"));
  const auto timing = loaded("fake_rocm_null_timing");
  ASSERT_TRUE(timing) << timing.error().message;
  EXPECT_EQ((*timing)->timing(), nullptr);
  EXPECT_THAT(log.back(), HasSubstr("attnrt.timing/1 without record"));
  const auto scheduling = loaded("fake_rocm_bad_null_build");
  ASSERT_TRUE(scheduling) << scheduling.error().message;
  EXPECT_EQ((*scheduling)->scheduling(), nullptr);
  EXPECT_THAT(log.back(), HasSubstr("attnrt.schedule/1 without build"));
  const auto whole = loaded("fake_rocm");
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_NE((*whole)->timing(), nullptr);
}

TEST_F(BackendTest, SupportsThatRanOutOfMemoryIsNoAnswer) {
  const auto backend = loaded("fake_supports_out_of_memory");
  ASSERT_TRUE(backend) << backend.error().message;
  std::vector<std::string> reasons;
  EXPECT_THROW((void)(*backend)->supports(fakes::Tiny().problem, &reasons), std::bad_alloc);
}

// Sets an environment that no plugin expects, until it is destroyed.
struct OddFloatingPoint {
  OddFloatingPoint() {
    fegetenv(&before);
    fesetround(FE_DOWNWARD);
#if defined(__SSE__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040U);
    control = __builtin_ia32_stmxcsr() & ~0x3FU;
#endif
  }
  OddFloatingPoint(const OddFloatingPoint&) = delete;
  OddFloatingPoint& operator=(const OddFloatingPoint&) = delete;
  ~OddFloatingPoint() { fesetenv(&before); }
  bool holds() const {
#if defined(__SSE__)
    if ((__builtin_ia32_stmxcsr() & ~0x3FU) != control) return false;
#endif
    return fegetround() == FE_DOWNWARD;
  }
  fenv_t before;
  uint32_t control = 0;
};

TEST_F(BackendTest, CallsRunInTheDefaultFloatingPointEnvironmentAndLeaveTheCallersAlone) {
  const auto plugin = found("fake_bad_floating");
  for (const bool odd : {false, true}) {
    std::optional<OddFloatingPoint> environment;
    if (odd) environment.emplace();
    const auto as_before = [&] {
      return odd ? environment->holds() : fegetround() == FE_TONEAREST;
    };
    auto loaded = load(plugin, {}, services, false);
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_TRUE(as_before()) << "after open and devices";
    const Backend& backend = **loaded;
    std::vector<std::string> reasons;
    EXPECT_EQ(backend.supports(fakes::Tiny().problem, &reasons), ATTNRT_OK);
    EXPECT_TRUE(as_before()) << "after supports";
    EXPECT_EQ(run_failure(backend), "");
    EXPECT_TRUE(as_before()) << "after plan, run and plan_destroy";
    const auto* counters = static_cast<const fake_counters*>(backend.extension(FAKE_COUNTERS));
    EXPECT_EQ(counters->odd_environments, 0);
    loaded->reset();
    EXPECT_TRUE(as_before()) << "after close";
  }
}

TEST_F(BackendTest, TheInstanceIsClosedWithItsLastOwner) {
  auto backend = loaded("fake_rocm");
  ASSERT_TRUE(backend) << backend.error().message;
  std::shared_ptr<const Backend> kept = *backend;
  backend->reset();
  EXPECT_THAT(log, IsEmpty());
  kept.reset();
  EXPECT_THAT(log, ElementsAre(HasSubstr("fake_rocm: allocations 0 (0 alive)")));
}

}  // namespace
}  // namespace attnrt::core
