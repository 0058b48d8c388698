// tests/runtime/runtime_test.cpp: what an open Runtime decides, plans and logs
#include "runtime.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST(Decide, SaysAFallbackOnceForEachProblem) {
  TestRuntime runtime({"fake_bad_supports_nothing", "fake_full"}, "on_fallback: warn\n");
  const auto warnings = [&] {
    int count = 0;
    for (const auto& line : runtime.log())
      count += line.find("fell back from") != std::string::npos ? 1 : 0;
    return count;
  };
  for (int i = 0; i < 5; ++i) EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_EQ(warnings(), 1);
  Problem other = kAny;
  other.causal = 1;
  EXPECT_EQ(chosen(*runtime, other), "fake_full 1.0.0");
  EXPECT_EQ(warnings(), 2);
  EXPECT_THAT(runtime.log().back(), HasSubstr("it supports nothing; for device=cpu"));
}

TEST(Decide, LoadsOnlyForTheKindOfDeviceThatIsAsked) {
  TestRuntime runtime({"fake_full", "fake_aborts"},
                      "rules: [{name: r, when: {device: cpu}, prefer: [fake_full]}]\n"
                      "backends: {fake_aborts: {enabled: false}}\n");
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0") << "what is disabled is not even loaded";
}

TEST(DebugLog, SaysWhatIsFoundLoadedDecidedAndPlannedOnce) {
  const support::Variable level("ATTNRT_LOG", "debug");
  TestRuntime runtime({"fake_full", "fake_abi_2", "fake_no_devices"});
  const std::string directory = runtime.plugins.text();
  EXPECT_THAT(runtime.log(),
              ElementsAre("0: config: policy " + runtime.policy_file(),
                          "0: discover: directory " + directory + " (call)",
                          AllOf(StartsWith("0: discover: " + directory + "/fake_abi_2.so: "),
                                HasSubstr("is built for plugin ABI 2")),
                          ContainsRegex("/fake_full.so: fake_full 1.0.0, sha256 [0-9a-f]{12}$"),
                          ContainsRegex("/fake_no_devices.so: fake_no_devices 1.0.0, sha256 ")));
  runtime.clear_log();
  ASSERT_TRUE(runtime->plan(kAny, {}));
  EXPECT_THAT(
      runtime.log(),
      ElementsAre(
          ContainsRegex("^0: load: .*/fake_full.so: fake_full 1.0.0, sha256 [0-9a-f]{12}; cpu$"),
          ContainsRegex("/fake_no_devices.so: .*; no device: no fake device is plugged in$"),
          ContainsRegex("^0: select: fake_full 1.0.0 on cpu: priority .*; for device=cpu dtype="),
          ContainsRegex(
              "^1: plan: fake_full 1.0.0 on cpu: kernel fake_attention, workspace 256 bytes; "
              "for device=cpu dtype=")));
  runtime.clear_log();
  ASSERT_TRUE(runtime->decide(kAny, {})->winner());
  EXPECT_THAT(runtime.log(), IsEmpty()) << "a decision that is known is not told again";
  Problem impossible = kAny;
  impossible.head_dim = impossible.head_dim_v = 300;
  EXPECT_EQ(runtime->decide(impossible, {})->winner(), nullptr);
  EXPECT_THAT(runtime.log(),
              ElementsAre(AllOf(StartsWith("0: select: no backend supports the problem: "),
                                HasSubstr("; for device=cpu"), HasSubstr("head_dim=300"))));
}

TEST(InfoLog, SaysOnceForEachPlanWhoServesIt) {
  const support::Variable level("ATTNRT_LOG", "info");
  TestRuntime runtime({"fake_full"});
  Attention attention({.seq_q = 2, .seq_kv = 3});
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(runtime->attention(attention.problem, attention.args, {}, nullptr), ATTNRT_OK);
  EXPECT_THAT(runtime.log(),
              ElementsAre(StartsWith("1: plan: fake_full 1.0.0 on cpu: kernel fake_attention, ")));
}

TEST(DebugLog, IsSilentUnlessItIsAskedFor) {
  TestRuntime runtime({"fake_full"});
  ASSERT_TRUE(runtime->plan(kAny, {}));
  EXPECT_THAT(runtime.log(), IsEmpty());
}

}  // namespace
}  // namespace attnrt::core
