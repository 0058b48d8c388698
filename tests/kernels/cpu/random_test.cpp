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
    static const std::set<std::string> kv_dtypes{"kv_i8", "kv_f8_e4m3fn", "kv_f8_e4m3fnuz"};
    static const std::set<std::string> kv_scales{"kv_scale_tensor", "kv_scale_head",
                                                 "kv_scale_token"};
    for (const auto* words : {&dtypes, &masks, &layouts, &kv_dtypes, &kv_scales})
      if (a != b && words->count(a) && words->count(b)) return true;
    return (masks.count(a) && b == "varlen") || (a == "varlen" && masks.count(b)) ||
           (a == "f32" && b == "out_f32");
  };
  EXPECT_EQ(names.size(), 32u);
  for (const std::string& a : names) {
    for (const std::string& b : names) {
      if (a > b || exclude_each_other(a, b)) continue;
      EXPECT_TRUE(pairs.count({a, b})) << a << " with " << b;
    }
  }
}

}  // namespace
}  // namespace kernels::test
