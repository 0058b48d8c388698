// tests/runtime/cli/bench/grid_test.cpp: the problems that axes and grid files give, in order
#include "cli/bench/grid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "formats/yaml.hpp"

namespace attnrt::cli::bench {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

// The words of each problem, as `attnrt explain` takes them, without device, dtype and batch.
std::vector<std::string> words_of(const core::Result<std::vector<GridProblem>>& problems) {
  if (!problems) return {"error: " + problems.error().message};
  std::vector<std::string> words;
  for (const GridProblem& problem : *problems) {
    const std::string text = core::describe(problem.problem);
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
  for (const char* word :
       {"seq", "heads", "lengths", "seq_q", "causal", "deterministic", "kv_dtype", "kv_scale",
        "v_in_k", "out_dtype", "diagonal_offset", "batch_invariant"})
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

TEST(Grid, LengthsNeedAWordThatLetsThemDiffer) {
  const auto problems = problems_of({{"kv_lengths", {"true"}}, {"lengths", {"full", "ragged"}}});
  ASSERT_EQ(problems->size(), 2U);
  EXPECT_EQ(problems->front().lengths, kernels::reference::Lengths::full);
  EXPECT_EQ(problems->back().lengths, kernels::reference::Lengths::ragged);
  EXPECT_THAT(words_of(problems_of({{"lengths", {"one_long"}}})),
              ElementsAre("error: lengths: found one_long without kv_lengths and varlen, expected "
                          "full"));
  EXPECT_THAT(
      words_of(problems_of(
          {{"varlen", {"true"}}, {"lengths", {"ragged"}}, {"seq", {"1"}}, {"batch", {"65537"}}})),
      ElementsAre("error: batch: found 65537 with lengths ragged, expected at most 65536"));
  EXPECT_EQ(parse_axis("lengths", "raged").error().message,
            "found raged, expected one of full, one_long, ragged; did you mean ragged?");
}

TEST(Grid, GroupsAreChosenInTheOrderOfTheProblems) {
  const char* const text =
      "schema: 1\nproblems:\n  - {group: b, seq: [2, 3]}\n  - {seq: 4}\n  - {group: a, seq: 5}\n"
      "  - {group: b, seq: 6}\n";
  const auto all = read_grid(text, "grid.yaml");
  ASSERT_EQ(all->size(), 5U);
  const auto lengths = [&](const std::vector<std::string>& groups) {
    std::string found;
    const auto chosen = in_groups(*all, groups);
    if (!chosen) return chosen.error().message;
    for (const GridProblem& problem : *chosen)
      found += problem.group + std::to_string(problem.problem.seq_q) + " ";
    return found;
  };
  EXPECT_EQ(lengths({"a", "b"}), "b2 b3 a5 b6 ");
  EXPECT_EQ(lengths({"a"}), "a5 ");
  EXPECT_EQ(lengths({"c"}), "there is no group c; expected one of b, a");
  EXPECT_EQ(in_groups({GridProblem{}}, {"c"}).error().message,
            "found c, and the grid has no groups");
  EXPECT_THAT(words_of(read_grid("schema: 1\nproblems: [{group: [a], seq: 1}]\n", "grid.yaml")),
              ElementsAre("error: grid.yaml:2:20: group: found a list, expected a name without "
                          "commas"));
}

// The built-in problems are those of a server, and each is legal.
TEST(Grid, TheBuiltInGridHasTheGroupsOfAServer) {
  const auto text = core::yaml::read_text(ATTNRT_TESTS_DIR "/../config/bench.yaml");
  ASSERT_TRUE(text) << text.error().message;
  const auto problems = read_grid(*text, "config/bench.yaml");
  ASSERT_TRUE(problems) << problems.error().message;
  for (const char* group : {"prefill", "decode", "ragged", "paged", "varlen", "chunked"})
    EXPECT_TRUE(in_groups(*problems, {group})) << group;
}

TEST(Lengths, AreTheSameEachTimeAndWithinTheBounds) {
  GridProblem problem;
  problem.problem = core::default_problem();
  problem.problem.batch = 9, problem.problem.seq_q = 20, problem.problem.seq_kv = 160;
  problem.problem.varlen = 1;
  using kernels::reference::Lengths;
  EXPECT_EQ(lengths_of(problem).total_q(), 9 * 20);
  EXPECT_EQ(lengths_of(problem).total_kv(), 9 * 160);
  problem.lengths = Lengths::one_long;
  EXPECT_EQ(lengths_of(problem).total_kv(), 160 + 8 * 10);
  EXPECT_EQ(lengths_of(problem).total_q(), 20 + 8 * 10) << "no more queries than keys";
  problem.lengths = Lengths::ragged;
  const SequenceLengths lengths = lengths_of(problem);
  EXPECT_EQ(lengths.kv, lengths_of(problem).kv);
  EXPECT_EQ(*std::max_element(lengths.kv.begin(), lengths.kv.end()), 160);
  EXPECT_GE(*std::min_element(lengths.kv.begin(), lengths.kv.end()), 10);
  problem.problem.varlen = 0, problem.problem.kv_lengths = 1;
  EXPECT_EQ(lengths_of(problem).total_q(), 9 * 20) << "q is not packed";
}

TEST(Grid, AnErrorOfAFileNamesItsPlace) {
  EXPECT_THAT(
      words_of(read_grid("schema: 1\nproblems:\n  - dtype: [f32, f8]\n", "grid.yaml")),
      ElementsAre("error: grid.yaml:3:18: dtype: found f8, expected one of f32, f16, bf16"));
}

}  // namespace
}  // namespace attnrt::cli::bench
