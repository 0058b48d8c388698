// tests/runtime/breaker_test.cpp: the breaker's states, by failures and the time that passes
#include "breaker.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "base/result.hpp"

namespace attnrt::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Stage = Breaker::Stage;

const CandidateId kFlash{"hash of flash", ATTNRT_DEVICE_ROCM, 0};
const CandidateId kOther{"hash of other", ATTNRT_DEVICE_ROCM, 0};
const CandidateId kElsewhere{"hash of flash", ATTNRT_DEVICE_ROCM, 1};

Problem problem(int64_t keys) {
  Problem p = ATTNRT_PROBLEM_INIT;
  p.head_dim = p.head_dim_v = 64;
  p.seq_kv = keys;
  return p;
}

class States : public ::testing::Test {
 protected:
  // In a word: closed, open or due.
  std::string state(const Problem& p, const CandidateId& id = kFlash) const {
    const Quarantine quarantine = breaker.quarantine(p, now);
    if (quarantine.find_lost(id) != nullptr) return "lost";
    const auto* held = quarantine.find(id);
    return held == nullptr ? "closed" : held->due ? "due" : "open";
  }
  void fail(const Problem& p, attnrt_status status, Stage stage = Stage::run,
            const CandidateId& id = kFlash) {
    breaker.failed(id, p, stage, status, now);
  }
  // How long it stays open, in seconds. Goes there.
  double seconds_until_due(const Problem& p) {
    const Breaker::Time start = now;
    while (state(p) == "open") now += milliseconds(500);
    return std::chrono::duration<double>(now - start).count();
  }

  Breaker breaker;
  Breaker::Time now = Breaker::Time() + seconds(1000);
};

TEST_F(States, AFailureThatSaysNothingNewChangesNothing) {
  const auto generation = [this] { return breaker.generation([this] { return now; }); };
  fail(problem(1), ATTNRT_INTERNAL);
  const uint64_t before = generation();
  fail(problem(1), ATTNRT_INTERNAL);
  EXPECT_EQ(generation(), before);
  fail(problem(2), ATTNRT_INTERNAL);
  EXPECT_NE(generation(), before);
}

TEST_F(States, TheTimesDoubleUpToTheLongestAndASuccessResetsThem) {
  struct Row {
    attnrt_status status;
    std::vector<double> times;
  };
  for (const Row& row : {Row{ATTNRT_OUT_OF_MEMORY, {1, 2, 4, 8, 16, 32, 60, 60}},
                         Row{ATTNRT_INTERNAL, {30, 60, 120, 240, 480, 960, 1920, 3600, 3600}},
                         Row{ATTNRT_UNSUPPORTED, {30, 60, 120, 240, 480, 960, 1920, 3600, 3600}}}) {
    const Problem p = problem(row.status);
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(state(p), "closed");
      for (const double time : row.times) {
        fail(p, row.status);
        EXPECT_EQ(state(p), "open");
        EXPECT_EQ(seconds_until_due(p), time) << status_name(row.status);
        EXPECT_EQ(state(p), "due");
        ASSERT_TRUE(breaker.begin_trial(kFlash, p, now));
      }
      breaker.succeeded(kFlash, p, Stage::run);
    }
  }
}

TEST_F(States, WhatIsNoFailureOfTheCandidateChangesNothing) {
  for (const attnrt_status status : {ATTNRT_OK, ATTNRT_INVALID_ARGUMENT, ATTNRT_NOT_FOUND}) {
    fail(problem(1), status);
    EXPECT_EQ(state(problem(1)), "closed");
  }
  EXPECT_TRUE(breaker.empty());
}

TEST_F(States, AnotherProblemCandidateOrDeviceIsNotConcerned) {
  fail(problem(1), ATTNRT_INTERNAL);
  EXPECT_EQ(state(problem(1)), "open");
  EXPECT_EQ(state(problem(2)), "closed");
  EXPECT_EQ(state(problem(1), kOther), "closed");
  EXPECT_EQ(state(problem(1), kElsewhere), "closed");
}

TEST_F(States, FailuresOfCallsThatBeganBeforeDoNotDoubleTheTime) {
  for (int i = 0; i < 8; ++i) fail(problem(1), ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(seconds_until_due(problem(1)), 1);
}

TEST_F(States, OneTrialAtATime) {
  fail(problem(1), ATTNRT_OUT_OF_MEMORY);
  EXPECT_FALSE(breaker.begin_trial(kFlash, problem(1), now)) << "it is not due yet";
  now += seconds(1);
  EXPECT_TRUE(breaker.begin_trial(kFlash, problem(1), now));
  EXPECT_EQ(state(problem(1)), "open") << "for the others";
  EXPECT_FALSE(breaker.begin_trial(kFlash, problem(1), now));
  now += seconds(1);
  EXPECT_EQ(state(problem(1)), "due") << "the trial has reported nothing";
  EXPECT_TRUE(breaker.begin_trial(kFlash, problem(1), now));
  breaker.succeeded(kFlash, problem(1), Stage::run);
  EXPECT_EQ(state(problem(1)), "closed");
  EXPECT_TRUE(breaker.begin_trial(kFlash, problem(1), now)) << "there is nothing left to try";
}

TEST_F(States, APlanThatWasMadeSaysNothingAboutRuns) {
  fail(problem(1), ATTNRT_INTERNAL, Stage::run);
  breaker.succeeded(kFlash, problem(1), Stage::plan);
  EXPECT_EQ(state(problem(1)), "open");
  fail(problem(2), ATTNRT_OUT_OF_MEMORY, Stage::plan);
  breaker.succeeded(kFlash, problem(2), Stage::plan);
  EXPECT_EQ(state(problem(2)), "closed");
}

TEST_F(States, ThreeOpenProblemsOpenAllOfTheCandidate) {
  fail(problem(1), ATTNRT_OUT_OF_MEMORY);
  fail(problem(2), ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(state(problem(9)), "closed");
  fail(problem(3), ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(state(problem(9)), "open");
  EXPECT_EQ(state(problem(9), kOther), "closed");
  EXPECT_EQ(state(problem(9), kElsewhere), "closed");
  EXPECT_THAT(breaker.quarantine(problem(9), now).held.front().reason,
              HasSubstr("it ran out of memory at 3 problems"));
  EXPECT_EQ(seconds_until_due(problem(9)), 1);
  ASSERT_TRUE(breaker.begin_trial(kFlash, problem(9), now));
  fail(problem(9), ATTNRT_OUT_OF_MEMORY);
  EXPECT_EQ(state(problem(8)), "open") << "one failed trial is enough";
  EXPECT_EQ(seconds_until_due(problem(8)), 2);
  ASSERT_TRUE(breaker.begin_trial(kFlash, problem(8), now));
  breaker.succeeded(kFlash, problem(8), Stage::run);
  EXPECT_EQ(state(problem(7)), "closed");
}

TEST_F(States, ThreeThatWereOpenOneAfterTheOtherDoNot) {
  for (int64_t keys = 1; keys <= 3; ++keys) {
    fail(problem(keys), ATTNRT_OUT_OF_MEMORY);
    now += seconds(1);
  }
  EXPECT_EQ(state(problem(9)), "closed");
}

TEST_F(States, RefusalsDoNotCountForTheWholeCandidate) {
  for (int64_t keys = 1; keys <= 5; ++keys) fail(problem(keys), ATTNRT_UNSUPPORTED);
  EXPECT_EQ(state(problem(1)), "open");
  EXPECT_EQ(state(problem(9)), "closed");
}

TEST_F(States, ALostDeviceIsLostForAllUntilAReload) {
  fail(problem(1), ATTNRT_DEVICE_LOST);
  now += std::chrono::hours(24);
  EXPECT_EQ(state(problem(9), kFlash), "lost");
  EXPECT_EQ(state(problem(9), kOther), "lost");
  EXPECT_EQ(state(problem(9), kElsewhere), "closed");
  breaker.succeeded(kFlash, problem(1), Stage::run);
  EXPECT_EQ(state(problem(1)), "lost");
  EXPECT_EQ(breaker.quarantine(problem(1), now).lost.front().reason,
            "rocm:0 was lost; a reload or a retry looks for it again");
  breaker.forget_lost_devices();
  EXPECT_EQ(state(problem(9), kFlash), "closed");
}

TEST_F(States, TheReasonSaysHowLongAndWhy) {
  fail(problem(1), ATTNRT_OUT_OF_MEMORY);
  fail(problem(2), ATTNRT_INTERNAL);
  now += milliseconds(200);
  const auto reason = [&](int64_t keys) {
    return breaker.quarantine(problem(keys), now).held.front().reason;
  };
  EXPECT_EQ(reason(1), "quarantined for 0.8 s more: it ran out of memory");
  EXPECT_EQ(reason(2), "quarantined for 30 s more: it failed");
}

TEST_F(States, TheGenerationChangesWithEveryAnswer) {
  int asked = 0;
  const auto generation = [&] { return breaker.generation([&] { return ++asked, now; }); };
  std::optional<uint64_t> last;
  const auto changed = [&] { return std::exchange(last, generation()) != generation(); };
  (void)changed();
  EXPECT_FALSE(changed());
  EXPECT_EQ(asked, 0) << "no time is running, so the clock is not asked";
  fail(problem(1), ATTNRT_OUT_OF_MEMORY);
  EXPECT_TRUE(changed());
  EXPECT_GT(asked, 0);
  now += milliseconds(999);
  EXPECT_FALSE(changed());
  now += milliseconds(1);
  EXPECT_TRUE(changed()) << "it is due";
  EXPECT_FALSE(changed());
  ASSERT_TRUE(breaker.begin_trial(kFlash, problem(1), now));
  EXPECT_TRUE(changed());
  breaker.succeeded(kFlash, problem(1), Stage::run);
  EXPECT_TRUE(changed());
  fail(problem(1), ATTNRT_DEVICE_LOST);
  EXPECT_TRUE(changed());
  breaker.forget_lost_devices();
  EXPECT_TRUE(changed());
  breaker.forget_lost_devices();
  EXPECT_FALSE(changed());
}

TEST_F(States, AreBounded) {
  for (int64_t keys = 1; keys <= 3000; ++keys) {
    fail(problem(keys), ATTNRT_UNSUPPORTED);
    now += milliseconds(1);
  }
  size_t open = 0;
  for (int64_t keys = 1; keys <= 3000; ++keys) open += state(problem(keys)) == "open";
  EXPECT_EQ(open, Breaker::kMostStates);
  EXPECT_EQ(state(problem(3000)), "open") << "what is over first was forgotten";
}

}  // namespace
}  // namespace attnrt::core
