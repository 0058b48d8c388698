// tests/runtime/cli/bench/grid_test.cpp: the problems that axes and grid files give, in order
#include "cli/bench/grid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnrt::cli::bench {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

// The words of each problem, as `attnrt explain` takes them, without device, dtype and batch.
std::vector<std::string> words_of(const core::Result<std::vector<core::Problem>>& problems) {
  if (!problems) return {"error: " + problems.error().message};
  std::vector<std::string> words;
  for (const core::Problem& problem : *problems) {
    const std::string text = core::describe(problem);
    words.push_back(text.substr(text.find("heads_q=")));
  }
  return words;
}

TEST(Grid, TheLastAxisChangesFastest) {
  EXPECT_THAT(words_of(problems_of({{"causal", {"false", "true"}},
                                    {"head_dim", {"32"}},
                                    {"heads", {"2"}},
                                    {"seq", {"8", "16"}}})),
              ElementsAre("heads_q=2 heads_kv=2 seq_q=8 seq_kv=8 head_dim=32 head_dim_v=32",
                          "heads_q=2 heads_kv=2 seq_q=16 seq_kv=16 head_dim=32 head_dim_v=32",
                          "heads_q=2 heads_kv=2 seq_q=8 seq_kv=8 head_dim=32 head_dim_v=32 "
                          "causal=true",
                          "heads_q=2 heads_kv=2 seq_q=16 seq_kv=16 head_dim=32 head_dim_v=32 "
                          "causal=true"));
}

TEST(Grid, WordsThatNoAxisNamesHaveUsualValues) {
  EXPECT_THAT(words_of(problems_of({})),
              ElementsAre("heads_q=8 heads_kv=8 seq_q=2048 seq_kv=2048 head_dim=64 head_dim_v=64"));
}

TEST(Grid, ASideThatNoAxisNamesIsAsTheOther) {
  EXPECT_THAT(words_of(problems_of({{"seq_q", {"1"}}, {"heads_kv", {"2"}}})),
              ElementsAre("heads_q=2 heads_kv=2 seq_q=1 seq_kv=1 head_dim=64 head_dim_v=64"));
  EXPECT_THAT(words_of(problems_of(
                  {{"seq_q", {"1"}}, {"seq_kv", {"9"}}, {"heads_q", {"4"}}, {"heads_kv", {"2"}}})),
              ElementsAre("heads_q=4 heads_kv=2 seq_q=1 seq_kv=9 head_dim=64 head_dim_v=64"));
}

TEST(Grid, BothSidesAtOnceExcludeOneSide) {
  EXPECT_THAT(words_of(problems_of({{"seq", {"8"}}, {"seq_kv", {"9"}}})),
              ElementsAre("error: found both seq and seq_kv, expected one of them: seq is seq_q "
                          "and seq_kv"));
}

TEST(Grid, HasALargestNumberOfProblems) {
  const std::vector<std::string> hundred(100, "1");
  EXPECT_EQ(problems_of({{"seq", hundred}, {"batch", hundred}})->size(), 10000U);
  EXPECT_THAT(
      words_of(problems_of({{"seq", hundred}, {"batch", hundred}, {"lse", {"false", "true"}}})),
      ElementsAre("error: found more than 10000 problems, expected at most 10000"));
}

TEST(Grid, ParsesTheValuesOfAnAxis) {
  EXPECT_THAT(parse_axis("seq", "512,2048")->values, ElementsAre("512", "2048"));
  EXPECT_THAT(parse_axis("causal", "both")->values, ElementsAre("false", "true"));
  EXPECT_THAT(parse_axis("window_left", "unbounded,7")->values, ElementsAre("unbounded", "7"));
  EXPECT_EQ(parse_axis("causal", "maybe").error().message,
            "found maybe, expected true or false, or both");
  EXPECT_EQ(parse_axis("seq", "8,").error().message, "found \"\", expected a whole number");
}

TEST(Grid, NamesEveryWordButThoseOfTheDevice) {
  const auto words = grid_words();
  for (const char* word : {"seq", "heads", "seq_q", "causal", "deterministic", "kv_dtype",
                           "kv_scale", "v_in_k", "out_dtype", "diagonal_offset", "batch_invariant"})
    EXPECT_THAT(words, Contains(word));
  EXPECT_THAT(words, Not(Contains("device")));
  EXPECT_THAT(words, Not(Contains("arch")));
}

TEST(Grid, AFileGivesTheProblemsOfItsEntriesInTurn) {
  const char* const text =
      "schema: 1\nproblems:\n  - {heads: 1, head_dim: 8, seq: [2, 3]}\n"
      "  - {heads: 1, head_dim: 8, seq: 4, causal: both}\n";
  EXPECT_THAT(words_of(read_grid(text, "grid.yaml")),
              ElementsAre("heads_q=1 heads_kv=1 seq_q=2 seq_kv=2 head_dim=8 head_dim_v=8",
                          "heads_q=1 heads_kv=1 seq_q=3 seq_kv=3 head_dim=8 head_dim_v=8",
                          "heads_q=1 heads_kv=1 seq_q=4 seq_kv=4 head_dim=8 head_dim_v=8",
                          "heads_q=1 heads_kv=1 seq_q=4 seq_kv=4 head_dim=8 head_dim_v=8 "
                          "causal=true"));
}

TEST(Grid, AnErrorOfAFileNamesItsPlace) {
  EXPECT_THAT(
      words_of(read_grid("schema: 1\nproblems:\n  - dtype: [f32, f8]\n", "grid.yaml")),
      ElementsAre("error: grid.yaml:3:18: dtype: found f8, expected one of f32, f16, bf16"));
}

}  // namespace
}  // namespace attnrt::cli::bench
