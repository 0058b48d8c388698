// tests/runtime/rollout_test.cpp: which calls a new version gets, and what ends its rollout
#include "rollout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "run.hpp"
#include "support/fake_device.hpp"
#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// A policy with one rollout of fake_versions.
std::string rollout(const std::string& settings) {
  return "backends: {fake_versions: {rollout: {" + settings + "}}, cpu: {priority: -1}}\n";
}

const std::string kCanary = rollout("version: '>=1.2', canary: 1/4, after: 3");
const std::string kShadow = rollout("version: '>=1.2', shadow: 1/2, after: 2");

const std::string kOld = "fake_versions-1.0.0", kNew = "fake_versions-1.2.0";

RolloutReport only(Runtime& runtime) {
  const auto reports = runtime.rollouts();
  return reports.size() == 1 ? reports.front() : RolloutReport{};
}

// Which versions serve so many one-shot calls, one digit each: 1.0.0 is 0, 1.2.0 is 2.
std::string served(Runtime& runtime, int calls) {
  std::string digits;
  Attention a({.seq_q = 2, .seq_kv = 3});
  for (int i = 0; i < calls; ++i) {
    std::map<std::string, int64_t> before;
    for (const auto& row : runtime.stats().candidates) before[row.version] = row.counts.runs;
    std::fill(a.out.begin(), a.out.end(), NAN);
    attnrt_error error = ATTNRT_ERROR_INIT;
    EXPECT_EQ(runtime.attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
    for (const auto& row : runtime.stats().candidates) {
      if (row.counts.runs > before[row.version]) digits += row.version.at(2);
    }
  }
  return digits;
}

// The counters of one version, which must be loaded.
fake_counters& counters(const TestRuntime& runtime, const std::string& version) {
  for (const auto& entry : runtime->snapshot()->entries) {
    if (entry->plugin->manifest->version_text != version || !entry->backend()) continue;
    return *const_cast<fake_counters*>(
        static_cast<const fake_counters*>(entry->backend()->extension(FAKE_COUNTERS)));
  }
  throw std::runtime_error("not loaded: " + version);
}

std::string reason_of(const Decision& decision, const std::string& version) {
  for (const Verdict& verdict : decision.verdicts) {
    if (verdict.candidate.plugin->manifest->version_text == version)
      return verdict.reasons.empty() ? "" : verdict.reasons.front();
  }
  return "no such version";
}

// ---- the state machine ----

FoundPlugin plugin(const std::string& hash = std::string(64, 'a')) {
  FoundPlugin found;
  found.hash = hash;
  found.manifest.emplace();
  found.manifest->name = "flash";
  found.manifest->version_text = "1.3.0";
  return found;
}

RolloutSettings settings(std::optional<Share> shadow, std::optional<Share> canary,
                         std::optional<int64_t> after) {
  return {parse_version_range(">=1.3").value(), shadow, canary, after};
}

struct Lines {
  std::vector<std::string> all;
  const std::shared_ptr<std::atomic<uint64_t>> generation =
      std::make_shared<std::atomic<uint64_t>>(0);
  Rollout::Changed log() {
    return [this](int32_t severity, const std::string& text) {
      all.push_back(fmt::format("{}: {}", severity, text));
    };
  }
};

TEST(Rollout, ASharesCallsAreCountedOut) {
  Lines lines;
  const auto taken = [&](Share share, int calls) {
    Rollout rollout(plugin(), settings({}, share, {}), "policy:1:1", lines.log(), lines.generation);
    std::string text;
    for (int i = 0; i < calls; ++i) text += rollout.takes_call() ? '1' : '0';
    return text;
  };
  EXPECT_EQ(taken({1, 4}, 14), "01001000010010");
  EXPECT_EQ(taken({1, 1}, 3), "111");
  const auto count = [](const std::string& text, size_t from, size_t step) {
    int64_t ones = 0;
    for (size_t i = from; i < text.size(); i += step) ones += text[i] == '1';
    return ones;
  };
  for (const Share share : {Share{1, 2}, Share{2, 3}, Share{1, 20}, Share{1, 1000}}) {
    const std::string text = taken(share, 60'000);
    const double part =
        static_cast<double>(share.numerator) / static_cast<double>(share.denominator);
    // Of all calls, and of every second and third one: a pattern of calls does not matter.
    for (const size_t step : {1, 2, 3}) {
      for (size_t from = 0; from < step; ++from) {
        const double calls = 60'000.0 / static_cast<double>(step);
        EXPECT_NEAR(static_cast<double>(count(text, from, step)), part * calls, 12)
            << share.text() << ", every " << step << " from " << from;
      }
    }
  }
}

TEST(Rollout, ShadowThenCanaryThenPromoted) {
  Lines lines;
  Rollout rollout(plugin(), settings(Share{1, 2}, Share{1, 3}, 2), "p.yaml:4:5", lines.log(),
                  lines.generation);
  EXPECT_EQ(rollout.phase(), Phase::shadow);
  rollout.served();  // of a version that nothing else could replace: not what shadow counts
  rollout.compared();
  EXPECT_EQ(rollout.report().text(), "shadow 1/2 (p.yaml:4:5)");
  EXPECT_EQ(rollout.report().count(), "1 of 2 comparisons agreed");
  rollout.compared();
  EXPECT_EQ(rollout.phase(), Phase::canary);
  EXPECT_EQ(rollout.report().clean, 0);
  rollout.compared();  // that began before
  rollout.served();
  EXPECT_EQ(rollout.phase(), Phase::canary);
  rollout.served();
  EXPECT_EQ(rollout.phase(), Phase::promoted);
  EXPECT_FALSE(rollout.takes_call());
  EXPECT_THAT(
      lines.all,
      ElementsAre("1: rollout of flash 1.3.0 (p.yaml:4:5): canary, after shadow: 2 comparisons "
                  "agreed",
                  "1: rollout of flash 1.3.0 (p.yaml:4:5): promoted, after canary: 2 clean runs"));
}

TEST(Rollout, WithoutAfterAPhaseLastsUntilACall) {
  Lines lines;
  Rollout rollout(plugin(), settings({}, Share{1, 1}, {}), "p:1:1", lines.log(), lines.generation);
  for (int i = 0; i < 1000; ++i) rollout.served();
  EXPECT_EQ(rollout.phase(), Phase::canary);
  EXPECT_EQ(rollout.report().count(), "1000 clean runs");
  rollout.roll_back("by a test");
  EXPECT_EQ(rollout.phase(), Phase::rolled_back);
  rollout.promote("by a test");
  EXPECT_EQ(rollout.phase(), Phase::promoted);
  rollout.promote("again");
  EXPECT_EQ(lines.all.size(), 2U);
}

TEST(Rollout, OnlyFailuresOfTheVersionRollItBack) {
  Lines lines;
  for (const attnrt_status status :
       {ATTNRT_UNSUPPORTED, ATTNRT_OUT_OF_MEMORY, ATTNRT_INVALID_ARGUMENT}) {
    Rollout rollout(plugin(), settings({}, Share{1, 1}, {}), "p:1:1", lines.log(),
                    lines.generation);
    rollout.failed(status, "text");
    EXPECT_EQ(rollout.phase(), Phase::canary) << status;
  }
  for (const attnrt_status status : {ATTNRT_INTERNAL, ATTNRT_DEVICE_LOST}) {
    Rollout rollout(plugin(), settings({}, Share{1, 1}, {}), "p:1:1", lines.log(),
                    lines.generation);
    rollout.failed(status, "text");
    EXPECT_EQ(rollout.phase(), Phase::rolled_back) << status;
    EXPECT_EQ(rollout.report().reason, fmt::format("text ({})", status_name(status)));
  }
  Rollout promoted(plugin(), settings({}, Share{1, 1}, {}), "p:1:1", lines.log(), lines.generation);
  promoted.promote("by a test");
  promoted.failed(ATTNRT_INTERNAL, "text");
  EXPECT_EQ(promoted.phase(), Phase::promoted) << "from then on the breaker holds it back";
}

TEST(Rollout, AWrongResultThatComesLateRollsBackAllTheSame) {
  Lines lines;
  Rollout rollout(plugin(), settings(Share{1, 1}, {}, 1), "p:1:1", lines.log(), lines.generation);
  rollout.compared();
  EXPECT_EQ(rollout.phase(), Phase::promoted);
  rollout.mismatched("text");
  EXPECT_EQ(rollout.phase(), Phase::rolled_back);
}

TEST(Rollout, NothingChangesOneThatThePolicyNoLongerAsksFor) {
  Lines lines;
  Rollout rollout(plugin(), settings({}, Share{1, 1}, 1), "p:1:1", lines.log(), lines.generation);
  rollout.end();
  rollout.served();
  rollout.failed(ATTNRT_INTERNAL, "text");
  rollout.mismatched("text");
  rollout.promote("text");
  EXPECT_EQ(rollout.phase(), Phase::canary);
  EXPECT_THAT(lines.all, IsEmpty());
}

TEST(Rollout, ThreadsEndAPhaseOnce) {
  Lines lines;  // which no lock protects: changed is called once
  Rollout rollout(plugin(), settings({}, Share{1, 10}, 4000), "p:1:1", lines.log(),
                  lines.generation);
  std::vector<std::thread> threads;
  std::atomic<int64_t> taken = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) taken += rollout.takes_call() ? 1 : 0;
      for (int i = 0; i < 1000; ++i) rollout.served();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(rollout.phase(), Phase::promoted);
  EXPECT_EQ(lines.all.size(), 1U);
}

// ---- canary ----

TEST(Canary, ServesItsShareOfOneShotCallsThenAll) {
  const TestRuntime runtime({kOld, kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 14), "02002000022222");
  EXPECT_EQ(only(*runtime).phase, Phase::promoted);
  EXPECT_THAT(runtime.log(),
              Contains(AllOf(StartsWith("1: rollout of fake_versions 1.2.0: begins: canary 1/4 ("),
                             HasSubstr("0 of 3 clean runs"))));
}

TEST(Canary, ServesItsShareOfPlans) {
  const TestRuntime runtime({kOld, kNew}, kCanary);
  std::vector<std::string> versions;
  for (int i = 0; i < 5; ++i) versions.push_back(chosen(*runtime).substr(14));
  EXPECT_THAT(versions, ElementsAre("1.0.0", "1.2.0", "1.0.0", "1.0.0", "1.2.0"));
}

TEST(Canary, RunsOfItsPlansCount) {
  const TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', canary: 1/2, after: 3"));
  Attention a({.seq_q = 2, .seq_kv = 3});
  const auto first = runtime->plan(kAny, {}), second = runtime->plan(kAny, {});
  ASSERT_TRUE(first && second);
  EXPECT_EQ((*first)->version(), "1.0.0");
  ASSERT_EQ((*second)->version(), "1.2.0");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(only(*runtime).phase, Phase::canary);
    EXPECT_EQ(run(**first, a.args, nullptr), ATTNRT_OK);
    EXPECT_EQ(run(**second, a.args, nullptr), ATTNRT_OK);
  }
  EXPECT_EQ(only(*runtime).phase, Phase::promoted);
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.2.0");
}

TEST(Canary, AFailureServesTheCallElsewhereAndRollsBack) {
  const TestRuntime runtime({kOld, kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 2), "02");
  counters(runtime, "1.2.0").run_status = ATTNRT_INTERNAL;
  EXPECT_EQ(served(*runtime, 12), "000000000000");
  counters(runtime, "1.2.0").run_status = ATTNRT_OK;
  const RolloutReport report = only(*runtime);
  EXPECT_EQ(report.phase, Phase::rolled_back);
  EXPECT_THAT(report.reason, AllOf(HasSubstr("told to fail by a test"), HasSubstr("internal")));
  EXPECT_THAT(runtime.log(),
              Contains(AllOf(StartsWith("2: rollout of fake_versions 1.2.0 ("),
                             HasSubstr("): rolled back, after canary: run: fake_versions"))));
  EXPECT_THAT(reason_of(runtime->explain(kAny, "", {}), "1.2.0"),
              AllOf(StartsWith("rolled back ("), HasSubstr("told to fail")));
}

TEST(Canary, APlanThatFailsRollsBack) {
  const TestRuntime runtime({kOld, "fake_versions-1.5.0"}, kCanary);
  EXPECT_EQ(served(*runtime, 8), "00000000");
  EXPECT_EQ(only(*runtime).phase, Phase::rolled_back);
}

TEST(Canary, ServesWhatNothingElseCan) {
  TestRuntime runtime({kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 3), "222");
  EXPECT_EQ(only(*runtime).phase, Phase::promoted) << "these runs count, too";
  TestRuntime both({kNew, "fake_narrow"}, kCanary);
  // Another backend serves the other calls, and that is no fallback.
  EXPECT_EQ(chosen(*both), "fake_narrow 1.0.0");
  EXPECT_EQ(both->explain(kAny, "", {}).fallback, "");
}

TEST(Canary, AfterAFailureItStillServesWhatNothingElseCan) {
  const TestRuntime runtime({kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 1), "2");
  counters(runtime, "1.2.0").run_status = ATTNRT_INTERNAL;
  Attention a({.seq_q = 2, .seq_kv = 3});
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_INTERNAL);
  counters(runtime, "1.2.0").run_status = ATTNRT_OK;
  EXPECT_EQ(only(*runtime).phase, Phase::rolled_back);
  EXPECT_EQ(served(*runtime, 2), "22") << "an outage would be worse";
  EXPECT_THAT(TestRuntime({kNew}, kCanary).log(),
              Contains(HasSubstr("every installed version is in >=1.2, so that other backends "
                                 "serve the rest of the calls")));
}

// A call that the version fails is served as if it had not been taken, whatever else holds.
TEST(Canary, AFailureFailsNoCall) {
  const std::string all = "version: '>=1.2', canary: 1/1";
  for (const attnrt_status status : {ATTNRT_UNSUPPORTED, ATTNRT_OUT_OF_MEMORY, ATTNRT_INTERNAL,
                                     ATTNRT_INVALID_ARGUMENT, ATTNRT_DEVICE_LOST}) {
    const TestRuntime runtime({kOld, kNew}, rollout(all));
    EXPECT_EQ(served(*runtime, 1), "2");
    counters(runtime, "1.2.0").run_status = status;
    Attention a({.seq_q = 2, .seq_kv = 3});
    // Also if the backend is asked for by name.
    for (const Call& call : {Call{}, Call{"fake_versions"}}) {
      std::fill(a.out.begin(), a.out.end(), NAN);
      attnrt_error error = ATTNRT_ERROR_INIT;
      EXPECT_EQ(runtime->attention(a.problem, a.args, call, &error), ATTNRT_OK) << error.message;
      EXPECT_LE(largest_error(a.problem, a.args), 1e-6);
    }
    counters(runtime, "1.2.0").run_status = ATTNRT_OK;
    const bool is_fault = status != ATTNRT_UNSUPPORTED && status != ATTNRT_OUT_OF_MEMORY;
    EXPECT_EQ(only(*runtime).phase, is_fault ? Phase::rolled_back : Phase::canary) << status;
    EXPECT_EQ(served(*runtime, 2), "00") << status << ": rolled back, or in quarantine";
  }
}

TEST(Canary, OnFallbackErrorHoldsForTheOtherCalls) {
  const TestRuntime runtime({kNew, "fake_full"},
                            "on_fallback: error\n" + rollout("version: '>=1.2', canary: 1/1"));
  EXPECT_EQ(served(*runtime, 1), "2");
  counters(runtime, "1.2.0").run_status = ATTNRT_INTERNAL;
  EXPECT_EQ(served(*runtime, 2), "00");
  counters(runtime, "1.2.0").run_status = ATTNRT_OK;
}

TEST(Canary, AVersionThatServesByFailoverIsCountedToo) {
  const TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', canary: 1/1000, after: 2"));
  EXPECT_EQ(served(*runtime, 1), "0");
  counters(runtime, "1.0.0").run_status = ATTNRT_INTERNAL;
  EXPECT_EQ(served(*runtime, 2), "22");
  counters(runtime, "1.0.0").run_status = ATTNRT_OK;
  EXPECT_EQ(only(*runtime).phase, Phase::promoted);
}

TEST(Canary, ByHandActsOnWhatIsOpen) {
  const TestRuntime runtime({kOld, kNew, "fake_versions-1.4.0"}, kShadow);
  const auto phases = [&] {
    std::vector<std::string> all;
    for (const auto& each : runtime->rollouts()) all.push_back(each.version + name_of(each.phase));
    return all;
  };
  EXPECT_EQ(served(*runtime, 2).front(), '0');
  EXPECT_THAT(phases(), ElementsAre("1.2.0shadow", "1.4.0rolled back")) << "it gave a wrong result";
  ASSERT_TRUE(runtime->promote("fake_versions"));
  EXPECT_THAT(phases(), ElementsAre("1.2.0promoted", "1.4.0rolled back"));
  ASSERT_TRUE(runtime->roll_back("fake_versions"));
  EXPECT_THAT(phases(), ElementsAre("1.2.0rolled back", "1.4.0rolled back"));
}

TEST(Canary, ASmallerProblemIsDecidedAnewWhereTheVersionWasTheLast) {
  // fake_narrow serves up to 40 queries.
  const TestRuntime runtime({kNew, "fake_narrow"}, rollout("version: '>=1.2', canary: 1/1000000"));
  for (const int64_t seq : {60, 36}) {
    Attention a({.seq_q = seq, .seq_kv = 64});
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  }
  for (const auto& row : runtime->stats().candidates) EXPECT_EQ(row.counts.runs, 1) << row.name;
}

TEST(Canary, AReleaseCandidateNeedsNoOtherRange) {
  const TestRuntime runtime({kOld, "fake_versions-2.0.0-rc.1"},
                            rollout("version: '>=2.0.0-rc.1', canary: 1/2"));
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  EXPECT_EQ(chosen(*runtime), "fake_versions 2.0.0-rc.1");
}

TEST(Canary, ARolledBackVersionServesNothing) {
  const TestRuntime runtime({kNew}, kCanary);
  ASSERT_TRUE(runtime->roll_back("fake_versions"));
  const auto plan = runtime->plan(kAny, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(plan.error().message, HasSubstr("the application rolled it back"));
  ASSERT_TRUE(runtime->promote("fake_versions"));
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.2.0");
  const auto unknown = runtime->promote("fake_version");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ATTNRT_NOT_FOUND);
  EXPECT_EQ(unknown.error().message,
            "rollout: no installed version of fake_version has a rollout; did you mean "
            "fake_versions?; `backends.fake_version.rollout` in the policy begins one");
}

TEST(Canary, ACallThatNamesTheBackendIsPartOfTheRollout) {
  const TestRuntime runtime({kOld, kNew}, kCanary);
  std::vector<std::string> versions;
  for (int i = 0; i < 4; ++i)
    versions.push_back(chosen(*runtime, kAny, "fake_versions").substr(14));
  EXPECT_THAT(versions, ElementsAre("1.0.0", "1.2.0", "1.0.0", "1.0.0"));
}

TEST(Canary, ACapturedGraphNeverGetsIt) {
  // The rollout is of every version of fake_rocm, so that another backend serves the other calls.
  TestRuntime runtime({"fake_rocm", "fake_rocm_every_word"},
                      "backends: {fake_rocm: {priority: 9, rollout: {version: '>=1', canary: "
                      "1/1}}, fake_rocm_every_word: {priority: 1}}\n");
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  EXPECT_EQ(chosen(*runtime, problem), "fake_rocm 1.0.0");
  fake_counters& fake = runtime.counters(problem, "fake_rocm_every_word");
  fake.capturing = 1;
  fake.captured_stream = nullptr;
  fake.capture_id = 7;
  const auto plan = runtime->plan(problem, {}, nullptr);
  fake.capturing = 0;
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ((*plan)->backend_name(), "fake_rocm_every_word");
}

// ---- shadow ----

TEST(Shadow, ARightVersionIsPromotedAndServesNothingBefore) {
  TestRuntime runtime({kOld, kNew}, kShadow);
  // A shadow's run counts for the version, beside the call's own.
  EXPECT_EQ(served(*runtime, 5), "0020022") << "calls 2 and 4 are compared, call 5 is served";
  EXPECT_EQ(only(*runtime).phase, Phase::promoted);
}

TEST(Shadow, AWrongVersionIsRolledBackAndTheResultIsTheOldOnes) {
  TestRuntime runtime({kOld, "fake_versions-1.4.0"}, kShadow);
  Attention a({.seq_q = 2, .seq_kv = 3});
  for (int i = 0; i < 4; ++i) {
    std::fill(a.out.begin(), a.out.end(), NAN);
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
    EXPECT_LE(largest_error(a.problem, a.args), 1e-6);
  }
  const RolloutReport report = only(*runtime);
  EXPECT_EQ(report.phase, Phase::rolled_back);
  EXPECT_THAT(report.reason, AllOf(StartsWith("wrong result: out at sequence 0, query "),
                                   HasSubstr(" gave "), HasSubstr("differ by at most")));
}

TEST(Shadow, AVersionThatFailsIsRolledBackAndTheCallIsServed) {
  TestRuntime runtime({kOld, "fake_versions-1.5.0"}, kShadow);
  EXPECT_EQ(served(*runtime, 4), "0000");
  EXPECT_EQ(only(*runtime).phase, Phase::rolled_back);
}

TEST(Shadow, EveryKindOfHostTensorsIsCompared) {
  TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', shadow: 1/1"));
  Attention dense({.batch = 2, .seq_q = 3, .seq_kv = 5, .heads_q = 4, .heads_kv = 2});
  ASSERT_EQ(runtime->attention(dense.problem, dense.args, {}, nullptr), ATTNRT_OK);
  // Packed, with lengths, lse, and out in a larger tensor.
  Attention packed({.batch = 1, .seq_q = 6, .seq_kv = 8, .heads_q = 2, .heads_kv = 1});
  const std::vector<int32_t> offsets_q{0, 2, 6}, offsets_kv{0, 5, 8};
  Aligned<float> wide(6 * 2 * 16, NAN), lse(2 * 6, NAN);
  packed.args.q = view(packed.q.data(), kF32, {6, 2, 8});
  packed.args.k = view(packed.k.data(), kF32, {8, 1, 8});
  packed.args.v = view(packed.v.data(), kF32, {8, 1, 8});
  packed.args.out = view(wide.data(), kF32, {6, 2, 8});
  packed.args.out.stride[0] = 32, packed.args.out.stride[1] = 16;
  packed.args.lse = view(lse.data(), kF32, {2, 6});
  packed.args.offsets_q = view(offsets_q.data(), kI32, {3});
  packed.args.offsets_kv = view(offsets_kv.data(), kI32, {3});
  attnrt_error error = ATTNRT_ERROR_INIT;
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  ASSERT_EQ(runtime->attention(problem, packed.args, {}, &error), ATTNRT_OK) << error.message;
  EXPECT_EQ(only(*runtime).clean, 2) << only(*runtime).reason;
  EXPECT_EQ(only(*runtime).phase, Phase::shadow);
}

TEST(Shadow, PlansAndOtherDevicesAreNotCompared) {
  TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', shadow: 1/1, after: 1"));
  const auto plan = runtime->plan(kAny, {});
  ASSERT_TRUE(plan);
  Attention a({.seq_q = 2, .seq_kv = 3});
  EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
  EXPECT_EQ(only(*runtime).calls, 0);
}

TEST(Shadow, ADeviceThatItLosesIsNotTheCallers) {
  const TestRuntime runtime({kOld, kNew}, kShadow);
  EXPECT_EQ(served(*runtime, 2), "002");
  counters(runtime, "1.2.0").run_status = ATTNRT_DEVICE_LOST;
  EXPECT_EQ(served(*runtime, 4), "0000");
  counters(runtime, "1.2.0").run_status = ATTNRT_OK;
  EXPECT_EQ(only(*runtime).phase, Phase::rolled_back);
}

TEST(Shadow, PaddedRowsOfOutAreCompared) {
  const TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', shadow: 1/1"));
  Attention a({.seq_q = 3, .seq_kv = 4, .heads_q = 2, .heads_kv = 2, .head_dim = 5});
  // Rows of 8 elements, so that each begins at a multiple of 16 bytes or more.
  Aligned<float> q(3 * 2 * 8), k(4 * 2 * 8), v(4 * 2 * 8), out(3 * 2 * 8, NAN);
  const auto pad = [](attnrt_tensor& tensor, const Aligned<float>& memory) {
    tensor.data = memory.data();
    tensor.stride[2] = 8;
    tensor.stride[1] = tensor.shape[2] * 8;
    tensor.stride[0] = tensor.shape[1] * tensor.stride[1];
  };
  pad(a.args.q, q), pad(a.args.k, k), pad(a.args.v, v), pad(a.args.out, out);
  attnrt_error error = ATTNRT_ERROR_INIT;
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
  EXPECT_EQ(only(*runtime).clean, 1) << only(*runtime).reason;
}

TEST(Shadow, ARunOfNothingIsNotCounted) {
  TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', shadow: 1/1"));
  Attention a({.batch = 0, .seq_q = 2, .seq_kv = 3});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_EQ(only(*runtime).clean, 0);
}

// ---- what goes on, what begins again ----

TEST(Rollouts, GoOnAfterReloadsAndBeginAgainWithOtherSettings) {
  TestRuntime runtime({kOld, kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 4), "0200");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(only(*runtime).clean, 1);
  ASSERT_TRUE(runtime->roll_back("fake_versions"));
  // The file goes and comes back: what was rolled back stays so.
  std::filesystem::remove(runtime.plugins.path() / (kNew + ".so"));
  ASSERT_TRUE(runtime->reload());
  runtime.plugins.add(kNew);
  runtime.set_policy("# a line above\n" + kCanary);
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(only(*runtime).phase, Phase::rolled_back);
  EXPECT_THAT(only(*runtime).origin, HasSubstr("policy.yaml:2:"));
  EXPECT_EQ(served(*runtime, 4), "0000");
  // Another share is another rollout, and forgives what was rolled back, which is a warning.
  runtime.clear_log();
  runtime.set_policy(rollout("version: '>=1.2', canary: 1/2, after: 3"));
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(served(*runtime, 4), "0202");
  EXPECT_THAT(runtime.log(),
              Contains(AllOf(StartsWith("2: rollout of fake_versions 1.2.0: ended, because"),
                             HasSubstr("it was rolled back ("))));
  // None is none.
  runtime.set_policy("backends: {cpu: {priority: -1}}\n");
  ASSERT_TRUE(runtime->reload());
  EXPECT_THAT(runtime->rollouts(), IsEmpty());
  EXPECT_EQ(served(*runtime, 2), "22");
}

TEST(Rollouts, VersionsOutsideOfTheRangesAndBackendsThatAreOffHaveNone) {
  TestRuntime runtime({kOld, kNew},
                      "backends: {fake_versions: {version: '<1.2', rollout: "
                      "{version: '>=1.2', canary: 1/2}}}\n");
  EXPECT_THAT(runtime->rollouts(), IsEmpty());
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
}

// Calls that a reload overtakes are decided by the policy that they began with, and its rollouts.
TEST(Rollouts, AReloadLetsNoCallThrough) {
  TestRuntime runtime({kOld, kNew}, rollout("version: '>=1.2', canary: 1/1000000"));
  std::atomic<bool> stop = false;
  std::atomic<int> calls = 0;  // since the last reload: too few for a canary's share
  std::thread caller([&] {
    Attention a({.seq_q = 2, .seq_kv = 3});
    while (!stop) {
      if (++calls > 10'000) continue;
      EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
    }
  });
  for (int i = 0; i < 100; ++i) {
    runtime.set_policy(i % 2 == 0 ? "backends: {fake_versions: {version: '<1.2'}}\n"
                                  : rollout("version: '>=1.2', canary: 1/1000000"));
    ASSERT_TRUE(runtime->reload());
    calls = 0;
  }
  stop = true;
  caller.join();
  for (const auto& row : runtime->stats().candidates) EXPECT_EQ(row.version, "1.0.0");
}

TEST(Rollouts, AVersionThatIsNotTheNewestGetsNoCallAndAWarningSaysSo) {
  TestRuntime runtime({kOld, kNew}, rollout("version: '<1.2', canary: 1/1"));
  EXPECT_THAT(runtime.log(), Contains(AllOf(StartsWith("2: "), HasSubstr("backends.fake_versions."
                                                                         "rollout: 1.0.0 is in "
                                                                         "rollout and gets no "
                                                                         "call, because 1.2.0 is "
                                                                         "newer"))));
  EXPECT_EQ(served(*runtime, 2), "22");
  EXPECT_THAT(TestRuntime({kOld, kNew}, kCanary).log(), Not(Contains(HasSubstr("gets no call"))));
}

TEST(Rollouts, ExplainListAndStatsShowThem) {
  TestRuntime runtime({kOld, kNew}, kCanary);
  EXPECT_EQ(served(*runtime, 4), "0200");
  const Decision decision = runtime->explain(kAny, "", {});
  EXPECT_THAT(decision_text(decision),
              AllOf(HasSubstr("decision  fake_versions 1.0.0 on cpu"),
                    HasSubstr("rollout   fake_versions 1.2.0 on cpu: canary 1/4 ("),
                    HasSubstr("), 1 of 3 clean runs\n")));
  EXPECT_THAT(decision_json(decision).text(), HasSubstr("\"phase\": \"canary\""));
  EXPECT_THAT(reason_of(decision, "1.2.0"), StartsWith("in rollout: canary 1/4 ("));
  const auto listed = [&] { return plugins_text(*runtime->snapshot(), runtime->plugins()); };
  EXPECT_THAT(listed(), HasSubstr("note: rollout: canary 1/4 ("));
  EXPECT_EQ(runtime->stats().rollouts.size(), 1U);
  // Each version's decision is in the ring.
  EXPECT_THAT(runtime->decisions(0),
              AllOf(HasSubstr("\"version\": \"1.2.0\""), HasSubstr("\"phase\": \"canary\"")));
  ASSERT_TRUE(runtime->roll_back("fake_versions"));
  EXPECT_THAT(listed(), AllOf(HasSubstr(" rolled back "), HasSubstr("the application rolled it "
                                                                    "back")));
}

}  // namespace
}  // namespace attnrt::core
