// tests/runtime/candidates_test.cpp: which plugins become candidates, and on which devices
#include "candidates.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

nlohmann::json parsed(const Json& json) { return nlohmann::json::parse(json.text()); }

Problem on_rocm(int32_t device_id) {
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  problem.device_id = device_id;
  return problem;
}

// "fake_full 1.0.0 on cpu", with "(not loaded)" if so; and for an excluded plugin "fake_full 1.0.0:
// why".
std::vector<std::string> lines(const TestRuntime& runtime, const Problem& problem,
                               const std::string& arch = {}, bool suppose_device = false) {
  const auto candidates = find_candidates(*runtime->snapshot(), problem, arch, suppose_device);
  std::vector<std::string> lines;
  for (const auto& [plugin, backend, device, out_of_memory] : candidates.list) {
    lines.push_back(fmt::format("{} on {}{}", plugin_label(*plugin), device_text(device),
                                backend ? "" : " (not loaded)"));
  }
  for (const auto& [plugin, reason] : candidates.excluded)
    lines.push_back(plugin_label(*plugin) + ": " + reason);
  return lines;
}

TEST(Candidates, AreOnTheDeviceOfTheTensors) {
  const TestRuntime runtime({"fake_full", "fake_rocm_two"});
  EXPECT_THAT(lines(runtime, kAny),
              ElementsAre("fake_full 1.0.0 on cpu",
                          "fake_rocm_two 1.0.0: is for rocm; the tensors are on cpu (`staging: "
                          "allow` in the policy would copy them)"));
  EXPECT_THAT(lines(runtime, on_rocm(1)),
              ElementsAre("fake_rocm_two 1.0.0 on rocm:1 gfx1100",
                          "fake_full 1.0.0: is for cpu; the tensors are on rocm"));
  EXPECT_THAT(lines(runtime, on_rocm(2)),
              ElementsAre("fake_full 1.0.0: is for cpu; the tensors are on rocm",
                          "fake_rocm_two 1.0.0: has no rocm 2"));
}

TEST(Candidates, StagingAddsDevicesForTensorsOnTheHost) {
  const TestRuntime runtime({"fake_full", "fake_rocm_two"}, "staging: allow\n");
  EXPECT_THAT(lines(runtime, kAny),
              ElementsAre("fake_full 1.0.0 on cpu", "fake_rocm_two 1.0.0 on rocm:0 gfx1100",
                          "fake_rocm_two 1.0.0 on rocm:1 gfx1100"));
  EXPECT_THAT(lines(runtime, on_rocm(0)),
              ElementsAre("fake_rocm_two 1.0.0 on rocm:0 gfx1100",
                          "fake_full 1.0.0: is for cpu; the tensors are on rocm"));
}

TEST(Candidates, OfOneArch) {
  const TestRuntime runtime({"fake_rocm", "fake_rocm_other"});
  EXPECT_THAT(
      lines(runtime, on_rocm(0), "gfx942"),
      ElementsAre("fake_rocm_other 1.0.0 on rocm:0 gfx942", "fake_rocm 1.0.0: has no rocm 0"));
}

TEST(Candidates, WhatCannotBeLoadedIsExcludedWithItsReason) {
  const TestRuntime runtime({"fake_abi_2", "fake_no_devices", "fake_open_fails"});
  EXPECT_THAT(lines(runtime, kAny),
              ElementsAre(HasSubstr("fake_abi_2.so: is built for plugin ABI 2"),
                          "fake_no_devices 1.0.0: no device: no fake device is plugged in",
                          "fake_open_fails 1.0.0: cannot be opened: open was told to fail"));
}

TEST(Candidates, WhatIsSwitchedOffIsNotLoaded) {
  const TestRuntime runtime({"fake_aborts"}, "backends: {fake_aborts: {enabled: false}}\n");
  EXPECT_THAT(lines(runtime, kAny), ElementsAre("fake_aborts 1.0.0 on cpu (not loaded)"));
}

TEST(Candidates, ASupposedDeviceIsNotLoaded) {
  const TestRuntime runtime({"fake_rocm_none"});
  EXPECT_THAT(lines(runtime, on_rocm(5), "gfx1100", true),
              ElementsAre("fake_rocm_none 1.0.0 on rocm:5 gfx1100 (not loaded)"));
  EXPECT_THAT(lines(runtime, on_rocm(5), "gfx1100", false),
              ElementsAre("fake_rocm_none 1.0.0: no device: no fake device is plugged in"));
}

TEST(SupposedDevices, StandInForOnesThatAreNotHere) {
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

TEST(SupposedDevices, DoNotHideARealDeviceOfThatArch) {
  const TestRuntime runtime({"fake_rocm"});
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  EXPECT_FALSE(runtime->explain(problem, "gfx1100", {}).supposed);
  EXPECT_FALSE(runtime->explain(problem, "", {}).supposed);
}

// A backend that reports no device is not judged by its manifest instead if this machine has the
// device: the cpu is in every machine, and so is a device that another backend reports.
TEST(SupposedDevices, AreNeverOnesThatAreHere) {
  const TestRuntime runtime({"fake_no_devices", "fake_full", "fake_rocm_none", "fake_rocm"});
  for (const int32_t type : {ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_ROCM}) {
    Problem problem = kAny;
    problem.device_type = type;
    const Decision decision = runtime->explain(problem, "", {});
    ASSERT_NE(decision.winner(), nullptr) << decision.message;
    EXPECT_FALSE(decision.supposed);
    EXPECT_EQ(decision.verdicts.size(), 1U) << "one backend has the device";
    EXPECT_EQ(parsed(decision_json(decision))["chosen"],
              type == ATTNRT_DEVICE_CPU ? "fake_full" : "fake_rocm");
    EXPECT_THAT(decision_text(decision), HasSubstr("no device: no fake device is plugged in"));
    EXPECT_THAT(decision_text(decision), Not(HasSubstr("by its manifest")));
  }
  const TestRuntime alone({"fake_no_devices"});
  EXPECT_EQ(alone->explain(kAny, "", {}).winner(), nullptr);
}

TEST(SupposedDevices, AreSaidToBeJudgedByTheirManifest) {
  const TestRuntime runtime({"fake_rocm_none", "fake_rocm_other", "fake_minimal"},
                            "backends: {fake_minimal: {enabled: false}}\n");
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  const Decision decision = runtime->explain(problem, "gfx1100", {});
  EXPECT_TRUE(decision.supposed);
  EXPECT_THAT(decision_text(decision),
              HasSubstr("judged by its manifest, this machine has no such device"));
  EXPECT_THAT(decision_text(decision),
              HasSubstr("arch gfx1100 is not gfx942; judged by its manifest alone"));
  const auto json = parsed(decision_json(decision));
  for (const auto& candidate : json["candidates"]) EXPECT_TRUE(candidate["supposed"]) << candidate;
  EXPECT_EQ(json["candidates"].size(), 2U);

  const auto disabled = parsed(decision_json(runtime->explain(kAny, "", {})));
  ASSERT_EQ(disabled["candidates"].size(), 1U);
  EXPECT_EQ(disabled["candidates"][0]["answer"], "not asked");
  EXPECT_FALSE(disabled["candidates"][0]["supposed"])
      << "the policy excludes it, and its device is here";
}

}  // namespace
}  // namespace attnrt::core
