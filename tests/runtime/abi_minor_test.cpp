// tests/runtime/abi_minor_test.cpp: plugins of an older or a newer plugin.h, in this runtime
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "candidates.hpp"
#include "run.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The vocabulary as if the last two words had come with ABI 1.1: as a runtime of 1.1 would have it.
std::vector<Word> words_of_1_1() {
  std::vector<Word> words(vocabulary().begin(), vocabulary().end());
  for (Word& word : words) {
    if (word.name == "diagonal_offset" || word.name == "batch_invariant") word.since = 1;
  }
  return words;
}

Decision decided(const TestRuntime& runtime, const Problem& problem,
                 std::span<const Word> words = vocabulary()) {
  const auto snapshot = runtime->snapshot();
  const Policy policy(snapshot->config, {});
  return select(policy, find_candidates(*snapshot, problem, "", false), problem, "", {}, words);
}

Problem batch_invariant() {
  Problem problem = kAny;
  problem.batch_invariant = 1;
  return checked(problem);
}

// Plans and runs one attention on the decision's winner. Returns what is wrong, or "".
std::string run_failure(const Decision& decision) {
  Attention attention({.seq_q = 2, .seq_kv = 3});
  if (decision.winner() == nullptr) return decision.message;
  const auto plan = make_plan(std::make_shared<const Decision>(decision), decision.problem);
  if (!plan) return plan.error().message;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (run(**plan, attention.args, &error) != ATTNRT_OK) return error.message;
  return largest_error(attention.problem, attention.args) < kTolerance ? "" : "wrong result";
}

TEST(AbiMinor, AnOlderPluginIsRefusedWhatCameLaterBeforeItIsAsked) {
  const TestRuntime runtime({"fake_older_header", "fake_bad_supports_nothing"});
  const Decision decision = decided(runtime, batch_invariant(), words_of_1_1());
  EXPECT_EQ(decision.status, ATTNRT_UNSUPPORTED);
  ASSERT_EQ(decision.verdicts.size(), 2U);
  EXPECT_THAT(decision.verdicts[0].reasons,
              ElementsAre("is built for ABI 1.0; batch_invariant true needs 1.1"));
  // fake_bad_supports_nothing would give a reason of its own if it were asked.
  std::vector<Word> causal_words(vocabulary().begin(), vocabulary().end());
  for (Word& word : causal_words) word.since = word.name == "causal" ? ATTNRT_ABI_MINOR + 1 : 0;
  Problem causal = kAny;
  causal.causal = 1;
  const Decision other = decided(runtime, causal, causal_words);
  ASSERT_EQ(other.verdicts.size(), 2U);
  for (const Verdict& verdict : other.verdicts) {
    EXPECT_EQ(verdict.answer, Answer::no);
    EXPECT_THAT(verdict.reasons, ElementsAre("is built for ABI 1.0; causal true needs 1.1"));
  }
}

TEST(AbiMinor, AnOlderPluginServesTheRest) {
  const TestRuntime runtime({"fake_older_header"});
  const auto words = words_of_1_1();
  const Decision decision = decided(runtime, kAny, words);
  ASSERT_NE(decision.winner(), nullptr) << decision.message;
  EXPECT_EQ(decision.winner()->candidate.backend->abi_minor(), 0);
  EXPECT_EQ(run_failure(decision), "");
}

// Its problems are longer than the host's, and its manifest names what only it knows.
TEST(AbiMinor, ANewerPluginServesWhatThisRuntimeKnows) {
  const TestRuntime runtime({"fake_newer_header"});
  const Decision decision = decided(runtime, kAny);
  ASSERT_NE(decision.winner(), nullptr) << decision.message;
  EXPECT_EQ(decision.winner()->candidate.backend->abi_minor(), ATTNRT_ABI_MINOR + 1);
  EXPECT_EQ(run_failure(decision), "");
  const auto notes = decision.winner()->candidate.plugin->manifest->notes;
  EXPECT_THAT(notes, ElementsAre(AllOf(HasSubstr("entry dropped"), HasSubstr("rotary")),
                                 AllOf(HasSubstr("features"), HasSubstr("rotary")),
                                 AllOf(HasSubstr("rotary_tables"), HasSubstr("ignored"))));
  // What its manifest does not promise in words that are known here is refused.
  Problem windowed = kAny;
  windowed.window_left = 1;
  EXPECT_THAT(decided(runtime, windowed).message,
              HasSubstr("uses window, which it does not support"));
}

TEST(AbiMinor, WhatAPluginRequiresIsRefusedByName) {
  const TestRuntime runtime({"fake_needs", "fake_abi_2", "fake_full"});
  std::vector<std::string> reasons;
  for (const PluginRow& row : runtime->plugins()) {
    if (row.state == "broken") reasons.push_back(row.reason);
  }
  EXPECT_THAT(reasons, ElementsAre("is built for plugin ABI 2; this runtime has ABI 1",
                                   "needs time_travel, rotary, which this runtime does not know"));
}

}  // namespace
}  // namespace attnrt::core
