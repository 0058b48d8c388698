// tests/runtime/base/nearest_test.cpp: which misspelled words get a suggestion
#include "base/nearest.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace attnrt::core {
namespace {

constexpr std::string_view kNames[] = {"batch",    "seq_q",      "seq_kv", "causal",
                                       "head_dim", "head_dim_v", "lse",    "window_left"};

TEST(Nearest, ForgivesAFewWrongLetters) {
  const std::pair<std::string_view, std::string_view> rows[] = {{"head_dims", "head_dim"},
                                                                {"headdim", "head_dim"},
                                                                {"haed_dim", "head_dim"},
                                                                {"HEAD_DIM", "head_dim"},
                                                                {"head-dim", "head_dim"},
                                                                {"seqq", "seq_q"},
                                                                {"windowleft", "window_left"},
                                                                {"casual", "causal"},
                                                                {"batc", "batch"},
                                                                {"xyz", ""},
                                                                {"", ""},
                                                                {"attention", ""}};
  for (const auto& [found, expected] : rows) EXPECT_EQ(nearest(found, kNames), expected) << found;
}

TEST(Nearest, HasNoAnswerForLongWordsAndNoCandidates) {
  const std::string longest(64, 'a'), longer(65, 'a');
  const std::string_view long_names[] = {longer, longest};
  EXPECT_EQ(nearest(longest, long_names), longest);
  EXPECT_EQ(nearest(longer, long_names), "");
  EXPECT_EQ(nearest("cpu", {}), "");
}

TEST(Nearest, SuggestionsEndAMessage) {
  EXPECT_EQ(did_you_mean("casual", kNames), "; did you mean causal?");
  EXPECT_EQ(did_you_mean("xyz", kNames), "");
  const std::string_view short_list[] = {"cpu", "cuda"};
  EXPECT_EQ(expected_one_of("cdua", short_list), "; did you mean cuda?");
  EXPECT_EQ(expected_one_of("xyz", short_list), "; expected one of cpu, cuda");
}

}  // namespace
}  // namespace attnrt::core
