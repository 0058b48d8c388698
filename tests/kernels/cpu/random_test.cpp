// tests/kernels/cpu/random_test.cpp: compares the CPU kernels on random problems with float64
#include "tests/kernels/support/random.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

constexpr uint32_t kRecipes = 400;
constexpr uint32_t kRecipesInOneTest = 20;

class RandomProblems : public testing::TestWithParam<uint32_t> {};

TEST_P(RandomProblems, AgreeWithTheReference) {
  for (uint32_t n = 0; n < kRecipesInOneTest && !HasFatalFailure(); ++n) {
    expect_right(random_recipe(GetParam() * kRecipesInOneTest + n));
  }
}

INSTANTIATE_TEST_SUITE_P(, RandomProblems, testing::Range(0u, kRecipes / kRecipesInOneTest));

// The random recipes are worth little unless every pair of features occurs in some of them, except
// pairs that exclude each other.
TEST(RandomRecipes, CoverEveryPairOfFeatures) {
  std::set<std::string> names;
  std::set<std::pair<std::string, std::string>> pairs;
  for (uint32_t seed = 0; seed < kRecipes; ++seed) {
    const std::vector<std::string> used = features(random_recipe(seed));
    for (const std::string& a : used) {
      names.insert(a);
      for (const std::string& b : used) pairs.insert({a, b});
    }
  }
  const auto exclude_each_other = [](const std::string& a, const std::string& b) {
    static const std::set<std::string> dtypes{"f32", "f16", "bf16"};
    static const std::set<std::string> masks{"mask_boolean", "mask_additive"};
    static const std::set<std::string> layouts{"bhsd", "gapped"};
    if ((dtypes.count(a) && dtypes.count(b)) || (masks.count(a) && masks.count(b))) return true;
    return (layouts.count(a) && layouts.count(b)) || (masks.count(a) && b == "varlen") ||
           (a == "varlen" && masks.count(b));
  };
  EXPECT_EQ(names.size(), 22u);
  for (const std::string& a : names) {
    for (const std::string& b : names) {
      if (a > b || exclude_each_other(a, b)) continue;
      EXPECT_TRUE(pairs.count({a, b})) << a << " with " << b;
    }
  }
}

}  // namespace
}  // namespace kernels::test
