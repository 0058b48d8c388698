// tests/runtime/admit_test.cpp: what a record says about a plugin, level by level
#include "admit.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnrt::core {
namespace {

using enum AdmissionLevel;
using Is = Admission::State;
using Was = AdmissionRecord::State;

AdmissionRecord record(Was state, AdmissionLevel level) {
  return {state, level, state == Was::refused ? "ABI-3: it crashed" : "", 1234, "this boot"};
}

TEST(Admit, OffAsksForNothing) {
  EXPECT_EQ(admit(off, {}, "this boot").state, Is::off);
  EXPECT_EQ(admit(off, record(Was::refused, loads), "this boot").state, Is::off);
}

TEST(Admit, WithoutARecordNothingIsKnown) {
  EXPECT_EQ(admit(loads, {}, "this boot").state, Is::unknown);
}

TEST(Admit, WhatPassedAHigherLevelPassedTheLowerOne) {
  EXPECT_EQ(admit(loads, record(Was::admitted, loads), "").state, Is::admitted);
  EXPECT_EQ(admit(loads, record(Was::admitted, conforms), "").state, Is::admitted);
  EXPECT_EQ(admit(conforms, record(Was::admitted, conforms), "").state, Is::admitted);
  EXPECT_EQ(admit(conforms, record(Was::admitted, loads), "").state, Is::unknown);
}

TEST(Admit, WhatFailedALowerLevelFailsTheHigherOne) {
  EXPECT_EQ(admit(loads, record(Was::refused, loads), "").state, Is::refused);
  EXPECT_EQ(admit(conforms, record(Was::refused, loads), "").state, Is::refused);
  EXPECT_EQ(admit(conforms, record(Was::refused, conforms), "").state, Is::refused);
  EXPECT_EQ(admit(loads, record(Was::refused, conforms), "").state, Is::unknown);
}

TEST(Admit, TheRecordsReasonLevelAndTimeAreHandedOn) {
  const Admission refused = admit(conforms, record(Was::refused, loads), "");
  EXPECT_EQ(refused.reason, "ABI-3: it crashed");
  EXPECT_EQ(refused.level, loads);
  EXPECT_EQ(refused.at_seconds, 1234);
}

TEST(Admit, TwoProbesThatOtherBootsBeganAreHeldAgainstThePlugin) {
  AdmissionRecord probing = record(Was::probing, loads);
  EXPECT_EQ(admit(loads, probing, "next boot").state, Is::unknown) << "it may have been shut down";
  probing.attempts = 2;
  const Admission refused = admit(loads, probing, "next boot");
  EXPECT_EQ(refused.state, Is::refused);
  EXPECT_THAT(refused.reason, testing::HasSubstr("the machine went down"));
  EXPECT_EQ(admit(loads, probing, "this boot").state, Is::unknown);
  EXPECT_EQ(admit(loads, probing, "").state, Is::unknown) << "no boot id here";
}

// Once it is loaded, an application runs its kernels, which may have brought the machine down.
TEST(Admit, ThoseOfAHigherLevelAreHeldAgainstItAtALowerOneToo) {
  AdmissionRecord probing = record(Was::probing, conforms);
  probing.attempts = 2;
  EXPECT_EQ(admit(loads, probing, "next boot").state, Is::refused);
  EXPECT_EQ(admit(conforms, probing, "next boot").state, Is::refused);
}

TEST(Admit, LevelsHaveNames) {
  for (const AdmissionLevel level : {off, loads, conforms})
    EXPECT_EQ(find_level(level_name(level)), level);
  EXPECT_EQ(find_level("load"), std::nullopt);
}

}  // namespace
}  // namespace attnrt::core
