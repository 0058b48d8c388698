// tests/runtime/stats_test.cpp: what is counted, of which candidate, and for how long
#include "stats.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "run.hpp"
#include "stats_trace.hpp"
#include "support/fake_device.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A candidate of a file whose hash begins with the number.
Candidate numbered(int number) {
  auto plugin = std::make_shared<FoundPlugin>();
  plugin->hash = fmt::format("{:064}", number);
  plugin->manifest.emplace();
  plugin->manifest->name = fmt::format("plugin{}", number);
  return {plugin, nullptr, Device{}, ""};
}

CandidateReport row(Runtime& runtime, const std::string& name) {
  for (const CandidateReport& each : runtime.stats().candidates) {
    if (each.name == name) return each;
  }
  return {};
}

int64_t failures(const CandidateReport& row, const std::string& stage, const std::string& status) {
  for (const FailureReport& each : row.counts.failures) {
    if (each.stage == stage && each.status == status) return each.count;
  }
  return 0;
}

TEST(Stats, OneShotCallsAndPlansAreCounted) {
  const TestRuntime runtime({"fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  for (int i = 0; i < 5; ++i)
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  {
    const auto plan = runtime->plan(checked(a.problem), {});
    ASSERT_TRUE(plan);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
    attnrt_args wrong = a.args;
    wrong.q.data = nullptr;
    EXPECT_EQ(run(**plan, wrong, nullptr), ATTNRT_INVALID_ARGUMENT);
    const CandidateReport now = row(*runtime, "fake_full");
    EXPECT_EQ(now.held_bytes, now.idle_bytes + (*plan)->held_bytes());
    EXPECT_GT(now.idle_bytes, 0);
  }
  const StatsReport report = runtime->stats();
  ASSERT_EQ(report.candidates.size(), 1U);
  const CandidateReport& full = report.candidates.front();
  EXPECT_EQ(full.counts.plans, 2);
  EXPECT_EQ(full.counts.runs, 7)
      << "of 5 calls and 2 runs; the caller's fault is not the backend's";
  EXPECT_THAT(full.counts.failures, IsEmpty());
  EXPECT_EQ(full.held_bytes, full.idle_bytes) << "the other plan is gone";
  EXPECT_TRUE(full.present);
  EXPECT_EQ(full.device, "cpu");
  EXPECT_EQ(report.decisions, 1);
  EXPECT_EQ(report.decision_hits, 5);
  EXPECT_EQ(report.decision_misses, 1);
  EXPECT_EQ(report.plan_hits, 4);
  EXPECT_EQ(report.plan_misses, 1);
  EXPECT_EQ(report.plan_evictions, 0);
  EXPECT_EQ(report.idle_plans, 1);
  EXPECT_EQ(report.idle_bytes, full.idle_bytes);
  EXPECT_GE(report.mapped_plugins, 1);
  EXPECT_EQ(report.pid, getpid());
}

TEST(Stats, EvictionsAreCounted) {
  const TestRuntime runtime({"fake_full"}, "plan_cache: {bytes: 0}\n");
  Attention a({});
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_EQ(runtime->stats().plan_evictions, 3);
  EXPECT_EQ(row(*runtime, "fake_full").held_bytes, 0);
}

TEST(Stats, FailuresAreCountedByStageAndClass) {
  const TestRuntime runtime(
      {"fake_plan_out_of_memory", "fake_run_internal", "fake_run_unsupported", "fake_full"});
  Attention a({});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  const CandidateReport plan = row(*runtime, "fake_plan_out_of_memory");
  EXPECT_EQ(failures(plan, "plan", "out of memory"), 1);
  EXPECT_EQ(plan.counts.plans, 0);
  EXPECT_EQ(plan.counts.failovers, 1);
  EXPECT_EQ(plan.counts.opened, 1);
  const CandidateReport internal = row(*runtime, "fake_run_internal");
  EXPECT_EQ(failures(internal, "run", "internal error"), 1);
  EXPECT_EQ(internal.counts.plans, 1);
  EXPECT_EQ(internal.counts.runs, 0);
  ASSERT_EQ(internal.counts.failures.size(), 1U);
  EXPECT_EQ(internal.counts.failures.front().message,
            "run: fake_run_internal: run was told to fail");
  EXPECT_THAT(internal.counts.failures.front().last_time, HasSubstr("Z"));
  EXPECT_EQ(failures(row(*runtime, "fake_run_unsupported"), "run", "unsupported"), 1);
  const CandidateReport full = row(*runtime, "fake_full");
  EXPECT_EQ(full.counts.runs, 1);
  EXPECT_EQ(full.counts.failovers, 0);
}

TEST(Stats, FailuresOfAPlansOwnRunsAreCountedAndNotLogged) {
  const TestRuntime runtime({"fake_run_device_lost"});
  Attention a({});
  const auto plan = runtime->plan(checked(a.problem), {});
  ASSERT_TRUE(plan);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(run(**plan, a.args, nullptr), ATTNRT_DEVICE_LOST);
  EXPECT_EQ(failures(row(*runtime, "fake_run_device_lost"), "run", "device lost"), 3);
  EXPECT_THAT(runtime.log(), IsEmpty());
}

// With a name that was asked for no other backend is tried, and no fallback tells of the failure.
TEST(Stats, AFailureIsLoggedOnceAndCountedEachTime) {
  TestRuntime runtime({"fake_run_internal", "fake_run_device_lost"});
  Attention a({});
  const Call call{"fake_run_internal"};
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(runtime->attention(a.problem, a.args, call, nullptr), ATTNRT_INTERNAL);
  EXPECT_EQ(failures(row(*runtime, "fake_run_internal"), "run", "internal error"), 4);
  EXPECT_THAT(runtime.log(),
              ::testing::ElementsAre("2: run: fake_run_internal: run was told to fail (internal "
                                     "error); this is said once, and counted each time"));
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(runtime->attention(a.problem, a.args, call, nullptr), ATTNRT_INTERNAL);
  EXPECT_EQ(runtime.log().size(), 2U) << "after a reload it is said again";
  EXPECT_EQ(runtime->attention(a.problem, a.args, {"fake_run_device_lost"}, nullptr),
            ATTNRT_DEVICE_LOST);
  EXPECT_THAT(runtime.log().back(), HasSubstr("(device lost); this is said once"));
  EXPECT_EQ(row(*runtime, "fake_run_device_lost").counts.opened, 1);
}

TEST(Stats, OnFallbackAllowStillTellsOfAFailure) {
  TestRuntime runtime({"fake_run_internal", "fake_full"}, "on_fallback: allow\n");
  Attention a({});
  for (const float scale : {1.0F, 2.0F}) {
    a.problem.scale = scale;
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  }
  EXPECT_EQ(runtime.log().size(), 1U);
  EXPECT_EQ(row(*runtime, "fake_run_internal").counts.failovers, 2);
}

TEST(Stats, TheQuarantinesEventsAreCountedAndLoggedOnce) {
  Breaker::Time now = Breaker::Time() + std::chrono::seconds(1000);
  RuntimeOptions options;
  options.clock = [&now] { return now; };
  TestRuntime runtime({"fake_full", "fake_slow"}, "", options);
  Attention a({});
  fake_counters& best = runtime.counters(checked(a.problem), "fake_full");
  const auto attend = [&] { return runtime->attention(a.problem, a.args, {}, nullptr); };
  best.run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(attend(), ATTNRT_OK);
  now += std::chrono::seconds(1);
  EXPECT_EQ(attend(), ATTNRT_OK);  // a trial, which fails
  now += std::chrono::seconds(2);
  best.run_status = ATTNRT_OK;
  EXPECT_EQ(attend(), ATTNRT_OK);  // one that succeeds
  CandidateCounts counts = row(*runtime, "fake_full").counts;
  EXPECT_EQ(counts.opened, 2);
  EXPECT_EQ(counts.trials, 2);
  EXPECT_EQ(counts.closed, 1);
  EXPECT_EQ(counts.failovers, 2);
  EXPECT_THAT(
      runtime.log(),
      Contains("1: select: fake_full 1.0.0 on cpu is tried again, after its quarantine").Times(1));
  EXPECT_THAT(
      runtime.log(),
      Contains("1: select: fake_full 1.0.0 on cpu is out of quarantine: it succeeded").Times(1));

  // Three problems at once: the candidate is out for every problem.
  best.run_status = ATTNRT_INTERNAL;
  for (const float scale : {1.0F, 2.0F, 3.0F}) {
    a.problem.scale = scale;
    EXPECT_EQ(attend(), ATTNRT_OK);
  }
  best.run_status = ATTNRT_OK;
  counts = row(*runtime, "fake_full").counts;
  EXPECT_EQ(counts.opened, 2 + 3 + 1);
  EXPECT_THAT(runtime.log(),
              Contains(AllOf(HasSubstr("fake_full 1.0.0 on cpu is in quarantine for every problem"),
                             HasSubstr("run: fake_full")))
                  .Times(1));
}

TEST(Stats, GoOnAfterReloads) {
  const TestRuntime runtime({"fake_full", "fake_slow"});
  Attention a({});
  const auto attend = [&] { return runtime->attention(a.problem, a.args, {}, nullptr); };
  EXPECT_EQ(attend(), ATTNRT_OK);
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(attend(), ATTNRT_OK);
  EXPECT_EQ(row(*runtime, "fake_full").counts.runs, 2);

  std::filesystem::rename(runtime.plugins.path() / "fake_full.so",
                          runtime.plugins.path() / "fake_full.away");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(attend(), ATTNRT_OK);
  EXPECT_FALSE(row(*runtime, "fake_full").present);
  EXPECT_EQ(row(*runtime, "fake_slow").counts.runs, 1);

  std::filesystem::rename(runtime.plugins.path() / "fake_full.away",
                          runtime.plugins.path() / "fake_full.so");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(attend(), ATTNRT_OK);
  EXPECT_TRUE(row(*runtime, "fake_full").present);
  EXPECT_EQ(row(*runtime, "fake_full").counts.runs, 3) << "it is the same candidate";

  runtime.set_policy("backend: {}\n");
  EXPECT_FALSE(runtime->reload());
  EXPECT_EQ(runtime->stats().reloads, 3);
  EXPECT_EQ(runtime->stats().failed_reloads, 1);
}

TEST(Stats, OfCandidatesThatAreGoneAreBounded) {
  Stats stats;
  constexpr int kCandidates = 200;
  const auto kept = stats.of(numbered(0));  // as by a plan of it
  kept->ran();
  for (int i = 0; i < kCandidates; ++i) {
    stats.restart({numbered(i).plugin->hash});
    const auto row = stats.of(numbered(i));
    row->made_plan();
    row->failed(Breaker::Stage::run, ATTNRT_INTERNAL, "why");
    ASSERT_EQ(stats.of(numbered(i)), row);
  }
  StatsReport report;
  stats.report({}, report);
  EXPECT_EQ(report.candidates.size(), Stats::kMostGone + 1);
  EXPECT_EQ(report.candidates.front().sha256, numbered(0).plugin->hash) << "it still has a plan";
  EXPECT_EQ(report.candidates.back().sha256, numbered(kCandidates - 1).plugin->hash);
  EXPECT_TRUE(report.candidates.back().present);
  EXPECT_EQ(report.earlier_candidates, kCandidates - static_cast<int>(report.candidates.size()));
  EXPECT_EQ(report.earlier.plans, report.earlier_candidates);
  ASSERT_EQ(report.earlier.failures.size(), 1U);
  EXPECT_EQ(report.earlier.failures.front().count, report.earlier_candidates);
  EXPECT_EQ(stats.plans(), kCandidates) << "nothing was lost";
}

TEST(Stats, CountExactlyFromManyThreadsWhileReadAndReloaded) {
  const TestRuntime runtime({"fake_minimal"});
  constexpr int kThreads = 8, kCalls = 200;
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) {
      EXPECT_TRUE(runtime->reload());
      EXPECT_LE(row(*runtime, "fake_minimal").counts.runs, kThreads * kCalls);
    }
  });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      Attention mine({});
      for (int i = 0; i < kCalls; ++i)
        EXPECT_EQ(runtime->attention(mine.problem, mine.args, {}, nullptr), ATTNRT_OK);
    });
  }
  for (auto& thread : threads) thread.join();
  done = true;
  other.join();
  const StatsReport report = runtime->stats();
  EXPECT_EQ(row(*runtime, "fake_minimal").counts.runs, kThreads * kCalls);
  EXPECT_EQ(report.decision_hits + report.decision_misses, kThreads * kCalls);
  EXPECT_EQ(report.plan_hits + report.plan_misses, kThreads * kCalls);
}

TEST(Stats, OfADeviceHoldWhatStagingHolds) {
  const TestRuntime runtime({"fake_rocm"}, "staging: allow\n");
  Attention a({.seq_q = 2, .seq_kv = 3});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  const CandidateReport rocm = row(*runtime, "fake_rocm");
  EXPECT_EQ(rocm.device, "rocm");
  EXPECT_EQ(rocm.counts.runs, 1);
  EXPECT_GT(rocm.held_bytes, 256) << "more than the workspace";
  EXPECT_EQ(rocm.held_bytes, rocm.idle_bytes);
  runtime->trim(0);
  EXPECT_EQ(row(*runtime, "fake_rocm").held_bytes, 0);
}

TEST(StatsTrace, TextAndJsonSayTheSame) {
  const TestRuntime runtime({"fake_run_internal", "fake_full"});
  Attention a({});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  StatsReport report = runtime->stats();
  report.earlier_candidates = 3;
  report.earlier.runs = 17;
  const std::string text = stats_text(report);
  EXPECT_THAT(text, HasSubstr("decisions  2; cache: 0 hits, 1 misses"));
  EXPECT_THAT(text, HasSubstr("fake_run_internal 1.0.0"));
  EXPECT_THAT(text, HasSubstr("run: fake_run_internal: run was told to fail"));
  EXPECT_THAT(text, HasSubstr("(3 earlier ones)"));
  const auto json = nlohmann::json::parse(stats_json(report).text());
  EXPECT_EQ(json["kind"], "stats");
  EXPECT_EQ(json["candidates"].size(), 2U);
  EXPECT_EQ(json["earlier"]["runs"], 17);
  EXPECT_EQ(json["candidates"][0]["failures"][0]["status"], "internal error");
  EXPECT_EQ(nlohmann::json::parse(stats_json(StatsReport()).text())["earlier"], nullptr);
  EXPECT_THAT(stats_text(StatsReport()), HasSubstr("no candidate has planned or failed"));
}

// ---- ATTNRT_STATS ----

TEST(StatsFile, IsWrittenWhenTheRuntimeCloses) {
  const fakes::Directory directory;
  const Variable variable("ATTNRT_STATS", directory.text() + "/%p.json");
  const std::filesystem::path path = directory.path() / fmt::format("{}.json", getpid());
  TestRuntime idle({"fake_full"});
  idle.close();
  EXPECT_FALSE(std::filesystem::exists(path)) << "nothing was decided";
  TestRuntime runtime({"fake_full"});
  Attention a({});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  runtime.close();
  const auto json = nlohmann::json::parse(fakes::read_file(path));
  EXPECT_EQ(json["candidates"][0]["runs"], 1);
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  EXPECT_THAT(runtime.log(), IsEmpty());
}

TEST(StatsFile, ThatCannotBeWrittenIsOneWarning) {
  const fakes::Directory directory;
  const Variable variable("ATTNRT_STATS", directory.text() + "/absent/stats.json");
  TestRuntime runtime({"fake_full"});
  Attention a({});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  runtime.close();
  EXPECT_THAT(runtime.log(), ::testing::ElementsAre(
                                 AllOf(HasSubstr("2: stats: "), HasSubstr("(ATTNRT_STATS) cannot "
                                                                          "be written: No such"))));
}

}  // namespace
}  // namespace attnrt::core
