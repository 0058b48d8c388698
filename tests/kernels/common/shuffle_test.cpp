// tests/kernels/common/shuffle_test.cpp: one seed gives one order, with every standard library
#include "kernels/common/shuffle.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace kernels {
namespace {

std::vector<int> shuffled(size_t count, uint32_t seed) {
  std::vector<int> values(count);
  std::iota(values.begin(), values.end(), 0);
  shuffle(values, std::mt19937(seed));
  return values;
}

// The numbers of std::mt19937 are part of the C++ standard.
TEST(Shuffle, TheOrderIsThatOfTheSeed) {
  EXPECT_EQ(shuffled(8, 1), (std::vector{7, 2, 1, 4, 6, 0, 3, 5}));
  EXPECT_EQ(shuffled(8, 2), (std::vector{1, 6, 7, 2, 4, 5, 3, 0}));
}

TEST(Shuffle, KeepsEveryValue) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{100}}) {
    std::vector<int> values = shuffled(count, 5), sorted(count);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::sort(values.begin(), values.end());
    EXPECT_EQ(values, sorted);
  }
}

}  // namespace
}  // namespace kernels
