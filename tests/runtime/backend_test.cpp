// tests/runtime/backend_test.cpp: calls, options and devices of an open plugin
#include "backend.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/fake.h"
#include "support/load_fixture.hpp"

namespace attnrt::core {
namespace {

using support::outcome;
using support::run_failure;
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
  EXPECT_NE((*backend)->memory(), nullptr);
  EXPECT_THAT(outcome(loaded("fake_rocm_no_memory")), HasSubstr(ATTNRT_MEMORY));
}

TEST_F(BackendTest, NoDeviceHasItsReason) {
  const auto backend = loaded("fake_no_devices");
  ASSERT_TRUE(backend) << backend.error().message;
  EXPECT_THAT((*backend)->devices(), IsEmpty());
  EXPECT_EQ((*backend)->no_device_reason(), "no fake device is plugged in");
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
