// tests/runtime/runtime_test.cpp: an open Runtime into decisions, explanations, plans and what it logs of them
#include "runtime.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/tensors.hpp"
#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

TEST(Log, GoesToStderrFromItsLevelOnAlsoAfterAReload) {
  const fakes::Directory plugins;
  plugins.add("fake_open_fails");
  const auto printed = [](Runtime& runtime) {
    ::testing::internal::CaptureStderr();
    (void)chosen(runtime);
    return ::testing::internal::GetCapturedStderr();
  };
  const auto runtime = Runtime::open({.policy_text = "", .plugin_path = plugins.text()});
  ASSERT_TRUE(runtime);
  EXPECT_THAT(printed(**runtime), HasSubstr("attnrt: warning: load: "));
  const Variable level("ATTNRT_LOG", "error");
  ASSERT_TRUE((*runtime)->reload());
  EXPECT_EQ(printed(**runtime), "");
}

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

TEST(Explain, SupposesADeviceThatIsNotHere) {
  const TestRuntime runtime({"fake_full", "fake_rocm"});
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  problem.device_id = 5;
  EXPECT_EQ(runtime->decide(problem, {})->status, ATTNRT_UNSUPPORTED);
  const Decision here = runtime->explain(problem, "gfx1100", {});
  ASSERT_NE(here.winner(), nullptr) << here.message;
  EXPECT_TRUE(here.supposed);
  const Decision elsewhere = runtime->explain(problem, "gfx942", {});
  EXPECT_EQ(elsewhere.winner(), nullptr);
  EXPECT_THAT(elsewhere.message, HasSubstr("arch gfx942 is not gfx1100"));
}

TEST(Explain, AsksARealDeviceOfThatArch) {
  const TestRuntime runtime({"fake_rocm"});
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  EXPECT_FALSE(runtime->explain(problem, "gfx1100", {}).supposed);
  EXPECT_FALSE(runtime->explain(problem, "", {}).supposed);
}

// What reports no device has none, whatever its manifest says: the cpu is in every machine, and a device that another
// backend has is in this one.

TEST(Explain, SupposesNoDeviceThatIsHere) {
  const TestRuntime runtime({"fake_no_devices", "fake_full", "fake_rocm_none", "fake_rocm"});
  for (const int32_t type : {ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_ROCM}) {
    Problem problem = kAny;
    problem.device_type = type;
    const Decision decision = runtime->explain(problem, "", {});
    ASSERT_NE(decision.winner(), nullptr) << decision.message;
    EXPECT_FALSE(decision.supposed);
    EXPECT_EQ(decision.verdicts.size(), 1U) << "one backend has the device";
    EXPECT_EQ(decision_json(decision)["chosen"],
              type == ATTNRT_DEVICE_CPU ? "fake_full" : "fake_rocm");
    EXPECT_THAT(decision_text(decision), HasSubstr("no device: no fake device is plugged in"));
    EXPECT_THAT(decision_text(decision), Not(HasSubstr("by its manifest")));
  }
  const TestRuntime alone({"fake_no_devices"});
  EXPECT_EQ(alone->explain(kAny, "", {}).winner(), nullptr);
}

TEST(Explain, SaysWhoIsJudgedByItsManifestAlone) {
  const TestRuntime runtime({"fake_rocm_none", "fake_rocm_other", "fake_minimal"},
                            "backends: {fake_minimal: {enabled: false}}\n");
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  const Decision decision = runtime->explain(problem, "gfx1100", {});
  EXPECT_TRUE(decision.supposed);
  EXPECT_THAT(decision_text(decision), HasSubstr("by its manifest, that device is not here"));
  EXPECT_THAT(decision_text(decision),
              HasSubstr("arch gfx1100 is not gfx942; by its manifest alone"));
  const auto json = decision_json(decision);
  for (const auto& candidate : json["candidates"]) EXPECT_TRUE(candidate["supposed"]) << candidate;
  EXPECT_EQ(json["candidates"].size(), 2U);

  const auto disabled = decision_json(runtime->explain(kAny, "", {}));
  ASSERT_EQ(disabled["candidates"].size(), 1U);
  EXPECT_EQ(disabled["candidates"][0]["answer"], "not asked");
  EXPECT_FALSE(disabled["candidates"][0]["supposed"])
      << "the policy left it out, its device is here";
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
