// tests/kernels/reference/lengths_test.cpp: the lengths and page tables that are drawn
#include "kernels/reference/lengths.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace kernels::reference {
namespace {

using List = std::vector<int64_t>;

List drawn(Lengths lengths, int64_t count, const LengthRange& range, uint64_t seed = 1) {
  Random random(seed);
  return draw_lengths(random, lengths, count, range);
}

// The numbers of std::mt19937_64 are part of the C++ standard.
TEST(Lengths, AreThoseOfTheSeed) {
  EXPECT_EQ(drawn(Lengths::full, 3, {1, 9}), (List{9, 9, 9}));
  EXPECT_EQ(drawn(Lengths::one_long, 4, {1, 9}), (List{9, 1, 1, 1}));
  EXPECT_EQ(drawn(Lengths::ragged, 4, {1, 9}), (List{9, 7, 1, 1}));
  EXPECT_EQ(drawn(Lengths::edges, 6, {0, 100, 16}), (List{100, 0, 0, 0, 0, 65}));
}

TEST(Lengths, OneLongHasOneOfTheLargestAndElseTheLeast) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const List list = drawn(Lengths::one_long, 7, {2, 40}, seed);
    EXPECT_EQ(std::count(list.begin(), list.end(), 40), 1);
    EXPECT_EQ(std::count(list.begin(), list.end(), 2), 6);
  }
}

TEST(Lengths, RaggedOnesReachBothEnds) {
  std::set<int64_t> all;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const List list = drawn(Lengths::ragged, 5, {3, 8}, seed);
    EXPECT_NE(std::find(list.begin(), list.end(), 8), list.end());
    all.insert(list.begin(), list.end());
  }
  EXPECT_EQ(all, (std::set<int64_t>{3, 4, 5, 6, 7, 8}));
}

TEST(Lengths, EdgesAreNoneOneAllAndBesideTheEndsOfPagesAndTiles) {
  std::set<int64_t> all;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const List list = drawn(Lengths::edges, 5, {0, 200, 48}, seed);
    all.insert(list.begin(), list.end());
  }
  for (const int64_t edge : {0, 1, 200, 47, 48, 49, 95, 96, 97, 15, 16, 17, 127, 128, 129})
    EXPECT_TRUE(all.contains(edge)) << edge;
  EXPECT_EQ(*all.rbegin(), 200);
  EXPECT_FALSE(all.contains(100)) << "it is beside no end";
}

TEST(Lengths, AreWithinTheRangeHoweverShortItIs) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (const int64_t most : {0, 1, 2, 5}) {
      for (const int64_t length : drawn(Lengths::edges, 4, {0, most, 64}, seed)) {
        EXPECT_GE(length, 0);
        EXPECT_LE(length, most);
      }
    }
  }
  EXPECT_TRUE(drawn(Lengths::ragged, 0, {1, 9}).empty());
}

TEST(PageTable, GivesEachSequencePagesOfItsOwnInRandomOrder) {
  Random random(1);
  const List lengths = {0, 33, 1, 16, 31};
  const int64_t columns = 4, pages = 9;
  const auto table = draw_page_table(random, lengths, 16, columns, pages);
  ASSERT_EQ(table.size(), lengths.size() * columns);
  std::vector<int32_t> used;
  for (size_t b = 0; b < lengths.size(); ++b) {
    for (int64_t page = 0; page < columns; ++page) {
      const int32_t entry = table[b * columns + static_cast<size_t>(page)];
      if (page * 16 < lengths[b]) {
        used.push_back(entry);
      } else {
        EXPECT_EQ(entry, 0);
      }
    }
  }
  EXPECT_EQ(used.size(), 3U + 1 + 1 + 2);
  EXPECT_FALSE(std::is_sorted(used.begin(), used.end()) ||
               std::is_sorted(used.rbegin(), used.rend()));
  std::sort(used.begin(), used.end());
  EXPECT_EQ(std::adjacent_find(used.begin(), used.end()), used.end()) << "a page is used twice";
  EXPECT_GE(used.front(), 0);
  EXPECT_LT(used.back(), pages);
}

}  // namespace
}  // namespace kernels::reference
