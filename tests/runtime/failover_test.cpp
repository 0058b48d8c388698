// tests/runtime/failover_test.cpp: when the next candidate is tried after a failure, and when not
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
      EXPECT_THAT(pair.runtime.log(), IsEmpty());
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
        EXPECT_THAT(pair->runtime.log(), IsEmpty());
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

class OnDevice : public ::testing::Test {
 protected:
  OnDevice() {
    a.problem.device_type = ATTNRT_DEVICE_ROCM;
    const auto decision = runtime->decide(checked(a.problem), {});
    const Candidate& first = decision->winner()->candidate;
    EXPECT_EQ(first.plugin->manifest->name, "fake_rocm");
    counters = const_cast<fake_counters*>(
        static_cast<const fake_counters*>(first.backend->extension(FAKE_COUNTERS)));
    *counters = {};
    for (auto [tensor, values] : {std::pair{&a.args.q, &a.q},
                                  {&a.args.k, &a.k},
                                  {&a.args.v, &a.v},
                                  {&a.args.out, &a.out}}) {
      auto copy = DeviceMemory::allocate(first.backend, first.device, DeviceMemory::Kind::device,
                                         static_cast<int64_t>(values->size() * sizeof(float)), 64);
      tensor->data = copy->data();
      memory.push_back(std::move(*copy));
    }
  }
  ~OnDevice() override { counters->capturing = counters->run_status = counters->memory_limit = 0; }
  attnrt_status attention() { return runtime->attention(a.problem, a.args, {}, &error); }

  TestRuntime runtime{{"fake_rocm", "fake_rocm_two"}};
  Attention a{{.seq_q = 2, .seq_kv = 3}};
  fake_counters* counters = nullptr;
  std::vector<DeviceMemory> memory;
  attnrt_error error = ATTNRT_ERROR_INIT;
};

TEST_F(OnDevice, NeverWhileTheStreamCaptures) {
  ASSERT_EQ(attention(), ATTNRT_OK) << error.message;
  EXPECT_EQ(runtime->plans_made(), 1);
  counters->run_status = ATTNRT_INTERNAL;
  counters->capturing = 1;
  EXPECT_EQ(attention(), ATTNRT_INTERNAL);
  EXPECT_STREQ(error.message, "run: fake_rocm: run was told to fail by a test");
  EXPECT_EQ(runtime->plans_made(), 1);
  EXPECT_THAT(runtime.log(), IsEmpty());
  counters->capturing = 0;
  // The other backend cannot read this one's memory, so the call fails; but it must have been
  // tried.
  (void)attention();
  EXPECT_EQ(runtime->plans_made(), 2);
  EXPECT_THAT(runtime.log(), Contains(HasSubstr("the next candidate is tried")));
}

TEST_F(OnDevice, DropsIdlePlansBeforeTryingAnotherBackend) {
  ASSERT_EQ(attention(), ATTNRT_OK) << error.message;
  const int64_t used = counters->allocated;
  int64_t bytes = 0;
  for (const auto& piece : memory) bytes += piece.bytes() + 63;
  counters->memory_limit = bytes + 256 + 63;  // room for one plan's workspace
  a.problem.causal = 1;
  EXPECT_EQ(attention(), ATTNRT_OK) << error.message;
  EXPECT_THAT(runtime.log(), IsEmpty());
  EXPECT_EQ(counters->allocated, used);
  EXPECT_EQ(runtime->plans_made(), 2);
}

}  // namespace
}  // namespace attnrt::core
