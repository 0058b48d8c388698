// tests/runtime/warned_test.cpp: each warning is given once, as far as they can be remembered
#include "warned.hpp"

#include <gtest/gtest.h>

namespace attnrt::core {
namespace {

using Answer = Warned::Answer;

TEST(WarnedTest, OnceForEachOfThousands) {
  Warned warned;
  for (uint64_t hash = 1; hash < Warned::kMost; ++hash)
    ASSERT_EQ(warned.note(hash), Answer::first) << hash;
  for (uint64_t hash = 1; hash < Warned::kMost; ++hash)
    ASSERT_EQ(warned.note(hash), Answer::again) << hash;
}

TEST(WarnedTest, TheLastOneThatIsRememberedSaysSo) {
  Warned warned;
  for (uint64_t hash = 1; hash < Warned::kMost; ++hash) (void)warned.note(hash);
  EXPECT_EQ(warned.note(100'000), Answer::last);
  EXPECT_EQ(warned.note(100'000), Answer::again);
  EXPECT_EQ(warned.note(100'001), Answer::again);
  warned.forget();
  EXPECT_EQ(warned.note(100'001), Answer::first);
}

}  // namespace
}  // namespace attnrt::core
