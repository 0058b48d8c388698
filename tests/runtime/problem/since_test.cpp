// tests/runtime/problem/since_test.cpp: what of a problem a plugin of an older minor version lacks
#include "problem/since.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A vocabulary in which ABI 1.1 added the word batch_invariant and the mask additive, and 1.2 the
// word v_in_k.
std::vector<Word> later_vocabulary() {
  static constexpr std::array<int32_t, 3> kMasksSince{0, 0, 1};
  std::vector<Word> words(vocabulary().begin(), vocabulary().end());
  for (Word& word : words) {
    if (word.name == "batch_invariant") word.since = 1;
    if (word.name == "mask") word.choices_since = kMasksSince;
    if (word.name == "v_in_k") word.since = 2;
  }
  return words;
}

std::vector<std::string> later(std::string_view text, int32_t abi_minor) {
  Problem problem = default_problem();
  std::string arch;
  EXPECT_TRUE(parse_problem(text, problem, arch)) << text;
  return later_words(problem, abi_minor, later_vocabulary());
}

TEST(Since, AWordCountsIfItCameLaterAndIsNotAtItsDefault) {
  EXPECT_THAT(later("causal=true", 0), IsEmpty());
  EXPECT_THAT(later("batch_invariant=true", 0),
              ElementsAre("is built for ABI 1.0; batch_invariant true needs 1.1"));
  EXPECT_THAT(later("batch_invariant=true", 1), IsEmpty());
  EXPECT_THAT(later("batch_invariant=false", 0), IsEmpty());
}

TEST(Since, AValueCountsIfItCameLater) {
  EXPECT_THAT(later("mask=boolean", 0), IsEmpty());
  EXPECT_THAT(later("mask=additive", 0),
              ElementsAre("is built for ABI 1.0; mask additive needs 1.1"));
  EXPECT_THAT(later("mask=additive", 1), IsEmpty());
}

TEST(Since, EachWordIsAReason) {
  EXPECT_THAT(later("mask=additive batch_invariant=true v_in_k=true", 0),
              ElementsAre("is built for ABI 1.0; mask additive needs 1.1",
                          "is built for ABI 1.0; v_in_k true needs 1.2",
                          "is built for ABI 1.0; batch_invariant true needs 1.1"));
  EXPECT_THAT(later("mask=additive batch_invariant=true v_in_k=true", 1),
              ElementsAre("is built for ABI 1.1; v_in_k true needs 1.2"));
  EXPECT_THAT(later("mask=additive batch_invariant=true v_in_k=true", 7), IsEmpty());
}

// Nothing in the shipped vocabulary may need a later minor version than this header has.
TEST(Since, TheShippedVocabularyNeedsAtMostThisMinor) {
  for (const Word& word : vocabulary()) {
    EXPECT_GE(word.since, 0) << word.name;
    EXPECT_LE(word.since, ATTNRT_ABI_MINOR) << word.name;
    if (word.choices_since.empty()) continue;
    EXPECT_EQ(word.choices_since.size(), word.choices.size()) << word.name;
    for (const int32_t since : word.choices_since) EXPECT_LE(since, ATTNRT_ABI_MINOR) << word.name;
  }
}

}  // namespace
}  // namespace attnrt::core
