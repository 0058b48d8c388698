// tests/runtime/failover_test.cpp: when the next candidate is tried after a failure, and when not
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "run.hpp"
#include "support/fake_device.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

struct Status {
  std::string word;
  attnrt_status status;
  bool another_may_succeed;
};
const std::vector<Status> kStatuses = {{"unsupported", ATTNRT_UNSUPPORTED, true},
                                       {"out_of_memory", ATTNRT_OUT_OF_MEMORY, true},
                                       {"internal", ATTNRT_INTERNAL, true},
                                       {"nonsense", ATTNRT_INTERNAL, true},
                                       {"invalid_argument", ATTNRT_INVALID_ARGUMENT, false},
                                       {"device_lost", ATTNRT_DEVICE_LOST, false}};

// A backend that supports everything and then fails, ranked above one that works.
struct Pair {
  Pair(const std::string& call, const Status& status, const std::string& policy = {})
      : failing("fake_" + call + "_" + status.word), runtime({failing, "fake_full"}, policy) {}

  attnrt_status attention(const Call& call = {}) {
    for (float& value : a.out) value = NAN;
    return runtime->attention(a.problem, a.args, call, &error);
  }
  bool right() const { return largest_error(a.problem, a.args) < kTolerance; }

  std::string failing;
  TestRuntime runtime;
  Attention a{{.seq_q = 2, .seq_kv = 3}};
  attnrt_error error = ATTNRT_ERROR_INIT;
};

TEST(Failover, OfPlans) {
  for (const Status& status : kStatuses) {
    Pair pair("plan", status);
    const auto plan = pair.runtime->plan(checked(pair.a.problem), {});
    if (status.another_may_succeed) {
      ASSERT_TRUE(plan) << status.word << plan.error().message;
      EXPECT_EQ((*plan)->backend_name(), "fake_full");
      EXPECT_THAT(pair.runtime.log(), Contains(AllOf(HasSubstr("plan: " + pair.failing),
                                                     HasSubstr("the next candidate is tried"))));
      EXPECT_EQ(pair.attention(), ATTNRT_OK);
      EXPECT_TRUE(pair.right());
    } else {
      ASSERT_FALSE(plan) << status.word;
      EXPECT_EQ(plan.error().code, status.status);
      EXPECT_EQ(pair.attention(), status.status);
      EXPECT_THAT(pair.error.message, HasSubstr(pair.failing));
    }
  }
}

TEST(Failover, OfOneShotRuns) {
  for (const Status& status : kStatuses) {
    Pair pair("run", status);
    EXPECT_EQ(pair.attention(), status.another_may_succeed ? ATTNRT_OK : status.status)
        << status.word;
    EXPECT_EQ(pair.right(), status.another_may_succeed) << status.word;
    if (!status.another_may_succeed) {
      EXPECT_THAT(pair.error.message, HasSubstr("run: " + pair.failing + ": run was told to fail"));
      const bool backends_fault = status.status != ATTNRT_INVALID_ARGUMENT;
      EXPECT_EQ(pair.runtime.log().size(), backends_fault ? 1U : 0U) << status.word;
      continue;
    }
    const int64_t plans = pair.runtime->plans_made();
    EXPECT_EQ(pair.attention(), ATTNRT_OK);
    EXPECT_EQ(pair.runtime->plans_made(), plans)
        << "later calls begin where the first one succeeded";
    EXPECT_THAT(pair.runtime.log(), Contains(HasSubstr("the next candidate is tried")).Times(1));
  }
}

TEST(Failover, NeverOfAPlansOwnRun) {
  for (const Status& status : kStatuses) {
    Pair pair("run", status);
    const auto plan = pair.runtime->plan(checked(pair.a.problem), {});
    ASSERT_TRUE(plan);
    EXPECT_EQ(run(**plan, pair.a.args, nullptr), status.status) << status.word;
    EXPECT_THAT(pair.runtime.log(), IsEmpty());
  }
}

TEST(Failover, NeverOfANameThatWasAskedFor) {
  for (const std::string call : {"plan", "run"}) {
    for (const Status& status : kStatuses) {
      Pair by_call(call, status);
      EXPECT_EQ(by_call.attention({by_call.failing}), status.status) << status.word;
      Pair by_default(call, status, "default: fake_" + call + "_" + status.word + "\n");
      EXPECT_EQ(by_default.attention(), status.status) << status.word;
      const Variable backend("ATTNRT_BACKEND", by_call.failing);
      Pair by_environment(call, status);
      EXPECT_EQ(by_environment.attention(), status.status) << status.word;
      for (const Pair* pair : {&by_call, &by_default, &by_environment})
        EXPECT_THAT(pair->runtime.log(), Each(HasSubstr("this is said once")));
    }
  }
}

TEST(Failover, NotEvenToAnotherVersionOfThatName) {
  const TestRuntime runtime({"fake_versions-1.0.0", "fake_versions-1.2.0"});
  Attention a({});
  runtime.counters(checked(a.problem)).run_status = ATTNRT_INTERNAL;  // of 1.2.0
  EXPECT_EQ(runtime->attention(a.problem, a.args, {"fake_versions"}, nullptr), ATTNRT_INTERNAL);
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  runtime.counters(checked(a.problem)).run_status = ATTNRT_OK;
}

TEST(Failover, TriesEveryCandidateInOrder) {
  const TestRuntime runtime({"fake_plan_internal", "fake_run_unsupported", "fake_plan_unsupported",
                             "fake_run_internal", "fake_full"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
  const auto log = runtime.log();
  ASSERT_EQ(log.size(), 4u);
  EXPECT_THAT(log[0], HasSubstr("plan: fake_plan_internal"));
  EXPECT_THAT(log[1], HasSubstr("run: fake_run_unsupported"));
  EXPECT_THAT(log[2], HasSubstr("plan: fake_plan_unsupported"));
  EXPECT_THAT(log[3], HasSubstr("run: fake_run_internal"));
}

TEST(Failover, WhenAllFailTheLastErrorIsReturned) {
  const TestRuntime runtime({"fake_run_internal", "fake_run_unsupported"});
  Attention a({});
  attnrt_error error = ATTNRT_ERROR_INIT;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_UNSUPPORTED);
  EXPECT_STREQ(error.message, "run: fake_run_unsupported: run was told to fail");
}

TEST(Failover, AfterAllFailedTheNextCallBeginsWithTheBest) {
  const TestRuntime runtime({"fake_full", "fake_run_unsupported"});
  Attention a({.seq_q = 2, .seq_kv = 3});
  fake_counters& best = runtime.counters(checked(a.problem));
  best.run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_UNSUPPORTED);
  best.run_status = ATTNRT_OK;
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
}

TEST(Failover, ContinuesInTheDecisionThatItBeganWith) {
  // While the failure is logged, another policy is loaded, under which the candidates are in
  // another order.
  std::function<void()> on_warning;
  RuntimeOptions options;
  options.log = [&](int32_t, const std::string&) {
    if (on_warning) std::exchange(on_warning, nullptr)();
  };
  const TestRuntime runtime({"fake_run_internal", "fake_run_unsupported", "fake_full"}, "",
                            options);
  Attention a({.seq_q = 2, .seq_kv = 3});
  on_warning = [&] {
    runtime.set_policy(
        "backends: {fake_full: {priority: 900}, fake_run_unsupported: {priority: 800}, "
        "fake_run_internal: {priority: "
        "1}}\n");
    EXPECT_TRUE(runtime->reload());
  };
  EXPECT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

// ---- For how long ----

// A better backend, whose failures a test sets, and one that always serves. The test sets the time.
struct Recovering {
  explicit Recovering(const std::string& policy = {})
      : runtime({"fake_full", "fake_slow"}, policy, with_clock()),
        best(runtime.counters(checked(a.problem), "fake_full")) {
    reset(best);
  }
  Recovering(const Recovering&) = delete;
  Recovering& operator=(const Recovering&) = delete;
  ~Recovering() { reset(best); }

  RuntimeOptions with_clock() {
    RuntimeOptions options;
    options.clock = [this] { return now; };
    return options;
  }
  // Who serves the next call.
  std::string served() {
    for (float& value : a.out) value = NAN;
    const int64_t before = best.runs;
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (runtime->attention(a.problem, a.args, {}, &error) != ATTNRT_OK) return error.message;
    EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
    return best.runs > before && best.run_status == ATTNRT_OK ? "fake_full" : "fake_slow";
  }

  Attention a{{.seq_q = 2, .seq_kv = 3}};
  Breaker::Time now = Breaker::Time() + std::chrono::seconds(1000);
  TestRuntime runtime;
  fake_counters& best;
};

TEST(Recovery, AfterOneOutOfMemoryTheBestIsTriedAgainASecondLater) {
  Recovering r;
  r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(r.served(), "fake_slow");
  r.best.run_status = ATTNRT_OK;
  const int64_t plans = r.runtime->plans_made();
  r.now += std::chrono::milliseconds(900);
  EXPECT_EQ(r.served(), "fake_slow");
  EXPECT_EQ(r.runtime->plans_made(), plans) << "its plan is kept meanwhile";
  r.now += std::chrono::milliseconds(100);
  EXPECT_EQ(r.served(), "fake_full");
  EXPECT_EQ(r.served(), "fake_full");
  EXPECT_EQ(r.runtime->plans_made(), plans);
}

TEST(Recovery, EachFailedTrialDoublesTheTime) {
  Recovering r;
  r.best.run_status = ATTNRT_INTERNAL;
  EXPECT_EQ(r.served(), "fake_slow");
  for (const int seconds : {30, 60, 120}) {
    r.now += std::chrono::seconds(seconds) - std::chrono::milliseconds(1);
    const int64_t before = r.best.runs;
    EXPECT_EQ(r.served(), "fake_slow");
    EXPECT_EQ(r.best.runs, before) << "it is not asked before " << seconds << " s";
    r.now += std::chrono::milliseconds(1);
    EXPECT_EQ(r.served(), "fake_slow");
    EXPECT_EQ(r.best.runs, before + 1) << "one trial";
  }
}

TEST(Recovery, ExplainAndPlansShowAndFollowTheQuarantine) {
  Recovering r;
  r.best.plan_status = ATTNRT_OUT_OF_MEMORY;
  const auto plan = r.runtime->plan(checked(r.a.problem), {});
  ASSERT_TRUE(plan);
  EXPECT_EQ((*plan)->backend_name(), "fake_slow");
  EXPECT_THAT(decision_text((*plan)->decision()),
              HasSubstr("plan: fake_full: plan was told to fail by a test"));
  r.best.plan_status = ATTNRT_OK;
  r.now += std::chrono::milliseconds(200);
  EXPECT_THAT(decision_text(r.runtime->explain(checked(r.a.problem), "", {})),
              HasSubstr("quarantined for 0.8 s more: it ran out of memory"));
  EXPECT_EQ(chosen(*r.runtime, checked(r.a.problem)), "fake_slow 1.0.0");
  r.now += std::chrono::milliseconds(800);
  EXPECT_EQ(
      r.runtime->explain(checked(r.a.problem), "", {}).winner()->candidate.plugin->manifest->name,
      "fake_full")
      << "explain takes no trial";
  EXPECT_EQ(chosen(*r.runtime, checked(r.a.problem)), "fake_full 1.0.0");
}

TEST(Recovery, OtherProblemsAreNotConcernedUntilThreeFailed) {
  Recovering r;
  r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  for (const float scale : {1.0F, 2.0F, 3.0F}) {
    r.a.problem.scale = scale;
    EXPECT_EQ(r.served(), "fake_slow");
    r.best.run_status = ATTNRT_OK;
    r.a.problem.scale = scale / 10;
    EXPECT_EQ(r.served(), scale < 3 ? "fake_full" : "fake_slow") << scale;
    r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  }
}

TEST(Recovery, OneOfManyThreadsMakesTheTrial) {
  Recovering r;
  r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(r.served(), "fake_slow");
  r.now += std::chrono::seconds(1);
  const int64_t before = r.best.runs;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&] {
      Attention mine({.seq_q = 2, .seq_kv = 3});
      EXPECT_EQ(r.runtime->attention(mine.problem, mine.args, {}, nullptr), ATTNRT_OK);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(r.best.runs, before + 1);
}

TEST(Recovery, ALostDeviceComesBackWithAReload) {
  FakeDevice device("", {}, {"fake_rocm", "fake_rocm_two"});
  DeviceAttention a(device.runtime, {.seq_q = 2, .seq_kv = 3});
  device.counters.run_status = ATTNRT_DEVICE_LOST;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_DEVICE_LOST);
  device.counters.run_status = ATTNRT_OK;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_DEVICE_LOST) << "nor is another backend asked for it";
  EXPECT_THAT(a.error.message,
              HasSubstr("rocm:0 was lost; a reload or a retry looks for it again"));
  EXPECT_EQ(device.counters.runs, 1);
  ASSERT_TRUE(device.runtime->reload());
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
}

// ---- A backend that runs out of memory while it is loaded ----

// As Recovering, but the better backend is not loaded yet, and fails in `call` as often as it is.
class NoMemoryToLoad : public ::testing::TestWithParam<int64_t fake_counters::*> {
 protected:
  NoMemoryToLoad() { best.*GetParam() = ATTNRT_OUT_OF_MEMORY; }
  ~NoMemoryToLoad() override { reset(best); }

  static constexpr const char* kReason[] = {"cannot be opened: open was told to fail by a test",
                                            "cannot list its devices: devices was told to fail by "
                                            "a test"};
  static std::string reason() { return kReason[GetParam() == &fake_counters::open_status ? 0 : 1]; }
  // The counters of the library, which stays mapped.
  fake_counters& best = TestRuntime({"fake_full"}).counters(kAny);
  Breaker::Time now = Breaker::Time() + std::chrono::seconds(1000);
  RuntimeOptions with_clock() {
    RuntimeOptions options;
    options.clock = [this] { return now; };
    return options;
  }
};

TEST_P(NoMemoryToLoad, TheNextOneServesAndItIsTriedAgain) {
  const TestRuntime runtime({"fake_full", "fake_slow"}, "", with_clock());
  Attention a({.seq_q = 2, .seq_kv = 3});
  attnrt_error error = ATTNRT_ERROR_INIT;
  const int64_t opens = best.opens;
  for (int call = 0; call < 3; ++call) {
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, &error), ATTNRT_OK) << error.message;
    EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
    EXPECT_EQ(chosen(*runtime, checked(a.problem)), "fake_slow 1.0.0");
  }
  EXPECT_EQ(best.opens, opens + 1) << "not by every call";
  EXPECT_THAT(runtime.log(),
              ElementsAre(HasSubstr("select: fell back from fake_full 1.0.0: " + reason())));

  now += std::chrono::seconds(1);
  EXPECT_EQ(chosen(*runtime, checked(a.problem)), "fake_slow 1.0.0");
  EXPECT_EQ(best.opens, opens + 2);
  now += std::chrono::milliseconds(1999);
  EXPECT_EQ(chosen(*runtime, checked(a.problem)), "fake_slow 1.0.0");
  EXPECT_EQ(best.opens, opens + 2) << "each failure doubles the time";
  best.*GetParam() = ATTNRT_OK;
  now += std::chrono::milliseconds(1);
  EXPECT_EQ(chosen(*runtime, checked(a.problem)), "fake_full 1.0.0");
  EXPECT_EQ(chosen(*runtime, checked(a.problem)), "fake_full 1.0.0");
  EXPECT_EQ(best.opens, opens + 3);
}

TEST_P(NoMemoryToLoad, IsTheErrorIfNoOtherMayServe) {
  const auto expect = [this](const TestRuntime& runtime, const Call& call,
                             const std::string& text) {
    best.*GetParam() = ATTNRT_OUT_OF_MEMORY;
    const auto plan = runtime->plan(kAny, call);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, ATTNRT_OUT_OF_MEMORY);
    EXPECT_THAT(plan.error().message, AllOf(HasSubstr(text), HasSubstr(reason())));
    EXPECT_THAT(runtime.log(), IsEmpty());
    best.*GetParam() = ATTNRT_OK;
    EXPECT_EQ(chosen(*runtime, kAny, call.backend), "fake_full 1.0.0") << "the next call tries it";
  };
  expect(TestRuntime({"fake_full"}), {}, "load: fake_full 1.0.0: ");
  expect(TestRuntime({"fake_full", "fake_bad_supports_nothing"}), {}, "load: fake_full 1.0.0: ");
  expect(TestRuntime({"fake_full", "fake_slow"}), {"fake_full"}, "load: fake_full 1.0.0: ");
  expect(TestRuntime({"fake_full", "fake_slow"}, "on_fallback: error\n"), {},
         "the best ranked backend cannot be loaded: fake_full 1.0.0: ");
}

TEST_P(NoMemoryToLoad, DoesNotMatterToWhomThePolicyRanksOrAsksForInstead) {
  const TestRuntime asked({"fake_full", "fake_slow"});
  EXPECT_EQ(chosen(*asked, kAny, "fake_slow"), "fake_slow 1.0.0");
  const TestRuntime denied({"fake_full", "fake_slow"},
                           "on_fallback: error\n"
                           "rules: [{name: all, when: {}, deny: [fake_full]}]\n");
  EXPECT_EQ(chosen(*denied), "fake_slow 1.0.0");
  const TestRuntime below({"fake_slow", "fake_full"}, "on_fallback: error\n");
  EXPECT_EQ(chosen(*below), "fake_slow 1.0.0");
  // Where nobody asked for it, it was not loaded; where it ranks below, its failure is said once.
  for (const TestRuntime* runtime : {&asked, &denied}) EXPECT_THAT(runtime->log(), IsEmpty());
  EXPECT_THAT(below.log(), ElementsAre(AllOf(HasSubstr("load: fake_full 1.0.0: "),
                                             HasSubstr("; this is said once"))));
}

TEST_P(NoMemoryToLoad, ExplainShowsIt) {
  const TestRuntime runtime({"fake_full", "fake_slow"});
  const Decision decision = runtime->explain(kAny, "", {});
  EXPECT_EQ(decision.status, ATTNRT_OK);
  EXPECT_THAT(decision_text(decision),
              AllOf(HasSubstr("fake_full 1.0.0  cpu     200       no      " + reason() + "\n"),
                    HasSubstr("fallback  passed over: fake_full 1.0.0: " + reason())));
}

INSTANTIATE_TEST_SUITE_P(, NoMemoryToLoad,
                         ::testing::Values(&fake_counters::open_status,
                                           &fake_counters::devices_status),
                         [](const auto& test) {
                           return test.param == &fake_counters::open_status ? "Open" : "Devices";
                         });

// ---- on_fallback ----

TEST(OnFallback, ErrorTriesNoOtherAfterAPlanOrARun) {
  Recovering r("on_fallback: error\n");
  for (int64_t* status : {&r.best.plan_status, &r.best.run_status}) {
    *status = ATTNRT_OUT_OF_MEMORY;
    EXPECT_THAT(r.served(), AllOf(HasSubstr("fake_full: "),
                                  HasSubstr("was told to fail by a test; on_fallback is error ("),
                                  HasSubstr("), so no other backend is tried")));
    *status = ATTNRT_OK;
    EXPECT_EQ(r.served(), "fake_full") << "and the next call tries it again";
    r.a.problem.causal = 1;
  }
  EXPECT_THAT(r.runtime.log(),
              ElementsAre(HasSubstr("2: plan: fake_full: "), HasSubstr("is out of quarantine"),
                          HasSubstr("2: run: fake_full: ")))
      << "each failure once, and that it serves again once";
}

TEST(OnFallback, WarnSaysSoOnceForEachProblem) {
  Recovering r("on_fallback: warn\n");
  const auto warnings = [&r] {
    const auto log = r.runtime.log();
    return std::count_if(log.begin(), log.end(),
                         [](const std::string& line) { return line.starts_with("2: "); });
  };
  r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(r.served(), "fake_slow");
    r.now += std::chrono::minutes(1);
  }
  EXPECT_EQ(warnings(), 1);
  r.a.problem.causal = 1;
  EXPECT_EQ(r.served(), "fake_slow");
  EXPECT_EQ(warnings(), 2);
}

TEST(OnFallback, AllowSaysNothingOfTheFallback) {
  Recovering r("on_fallback: allow\n");
  r.best.run_status = ATTNRT_OUT_OF_MEMORY;
  EXPECT_EQ(r.served(), "fake_slow");
  EXPECT_THAT(r.runtime.log(), ElementsAre(AllOf(HasSubstr("2: run: fake_full: "),
                                                 Not(HasSubstr("the next candidate is tried")))));
}

TEST(OnFallback, OnceForEachProblemAlsoBeyondWhatTheCachesHold) {
  const TestRuntime runtime({"fake_bad_supports_nothing", "fake_full"}, "on_fallback: warn\n");
  for (int round = 0; round < 2; ++round) {
    for (int64_t heads = 1; heads <= 600; ++heads) {
      Attention a({.heads_q = heads, .head_dim = 1});
      ASSERT_NE(runtime->decide(checked(a.problem), {})->winner(), nullptr);
    }
    EXPECT_EQ(runtime.log().size(), 600u) << round;
  }
}

TEST(OnDevice, DropsIdlePlansBeforeTryingAnotherBackend) {
  FakeDevice device("", {}, {"fake_rocm", "fake_rocm_two"});
  DeviceAttention a(device.runtime, {.seq_q = 2, .seq_kv = 3});
  const int64_t used = device.counters.allocated;
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  // What the four tensors and one workspace take, but not two.
  device.counters.memory_limit = 4 * (2 * 8 * 4 + 63) + 2 * 8 * 4 + 256 + 63;
  a.problem.causal = 1;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_THAT(device.runtime.log(), IsEmpty());
  EXPECT_EQ(device.counters.allocated, used + 1);
  EXPECT_EQ(device.runtime->plans_made(), 2);
}

}  // namespace
}  // namespace attnrt::core
