// tests/runtime/decision_cache_test.cpp: finds decisions of equal problems only, and stays bounded
#include "decision_cache.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace attnrt::core {
namespace {

Problem problem(int64_t heads) {
  Problem p = ATTNRT_PROBLEM_INIT;
  p.head_dim = p.head_dim_v = 64;
  p.heads_q = p.heads_kv = heads;
  return p;
}

class Decisions : public ::testing::Test {
 protected:
  Decisions() { cache.restart(now.get()); }
  static CacheKey key(const Problem& p) { return cache_key(Config{}, p); }
  static Choice choice(const Problem& p, uint64_t generation = 0) {
    auto decision = std::make_shared<Decision>();
    decision->problem = p;
    return {std::move(decision), bounds_of(p), bounds_of(p), generation};
  }
  bool add(const Problem& p, const Call& call = {}, uint64_t generation = 0) {
    return cache.insert(now, key(p), call, choice(p, generation));
  }
  bool has(const Problem& p, const Call& call = {}, uint64_t generation = 0) {
    return cache.find(now.get(), key(p), call, bounds_of(p), generation, false) != nullptr;
  }

  std::shared_ptr<const Snapshot> now = std::make_shared<Snapshot>();
  DecisionCache cache;
};

TEST_F(Decisions, AreFoundByProblemAndCall) {
  EXPECT_TRUE(add(problem(1), {"cpu"}));
  EXPECT_TRUE(has(problem(1), {"cpu"}));
  EXPECT_FALSE(has(problem(1)));
  EXPECT_FALSE(has(problem(1), {"cp"}));
  EXPECT_FALSE(has(problem(2), {"cpu"}));
}

// If the key left out one field, a problem would get the answer of another.
TEST_F(Decisions, EveryByteOfTheProblemCounts) {
  ASSERT_TRUE(add(problem(1)));
  for (size_t i = 0; i < sizeof(Problem); ++i) {
    Problem other = problem(1);
    reinterpret_cast<unsigned char*>(&other)[i] ^= 1;
    EXPECT_FALSE(has(other)) << i;
    EXPECT_NE(hash_of(other), hash_of(problem(1))) << i;
  }
}

TEST_F(Decisions, HoldBetweenTheirBounds) {
  Problem p = problem(1);
  p.seq_kv = 50;
  Choice made = choice(p);
  made.least = {1, 1, 40};
  made.most = {1, 1, 60};
  ASSERT_TRUE(cache.insert(now, key(p), {}, made));
  for (const auto& [keys, found] :
       {std::pair{33, false}, {39, false}, {40, true}, {55, true}, {60, true}, {61, false}}) {
    p.seq_kv = keys;
    EXPECT_EQ(has(p), found) << keys;
    EXPECT_EQ(cache.find(now.get(), key(p), {}, bounds_of(p), 0, true) != nullptr, keys == 50);
  }
  p.seq_kv = 50;
  EXPECT_NE(cache.find(now.get(), key(p), {}, bounds_of(p), 0, true), nullptr);
}

TEST_F(Decisions, OfAnEarlierGenerationAreReplaced) {
  ASSERT_TRUE(add(problem(1)));
  EXPECT_FALSE(has(problem(1), {}, 1));
  ASSERT_TRUE(add(problem(1), {}, 1));
  EXPECT_TRUE(has(problem(1), {}, 1));
  EXPECT_EQ(cache.size(), 1u);
}

TEST_F(Decisions, TheLeastRecentlyUsedGoesFirst) {
  const auto most = static_cast<int64_t>(DecisionCache::kCapacity);
  for (int64_t i = 1; i <= most; ++i) ASSERT_TRUE(add(problem(i)));
  EXPECT_TRUE(has(problem(1)));  // now 1 is the most recently used, and 2 the least
  ASSERT_TRUE(add(problem(most + 1)));
  EXPECT_EQ(cache.size(), DecisionCache::kCapacity);
  EXPECT_TRUE(has(problem(1)));
  EXPECT_FALSE(has(problem(2)));
  EXPECT_TRUE(has(problem(3)));
}

TEST_F(Decisions, ThousandsOfProblemsStayWithinTheBound) {
  for (int64_t i = 1; i <= 5000; ++i) {
    ASSERT_TRUE(add(problem(i)));
    ASSERT_LE(cache.size(), DecisionCache::kCapacity);
  }
  for (int64_t i = 5000; i > 5000 - static_cast<int64_t>(DecisionCache::kCapacity); --i)
    ASSERT_TRUE(has(problem(i))) << i;
}

TEST_F(Decisions, TheSecondOfTwoThreadsIsNotKept) {
  EXPECT_TRUE(add(problem(1)));
  EXPECT_FALSE(add(problem(1)));
  EXPECT_EQ(cache.size(), 1u);
}

TEST_F(Decisions, OfAnEarlierSnapshotAreNeitherFoundNorKept) {
  ASSERT_TRUE(add(problem(1)));
  const std::shared_ptr<const Snapshot> next = std::make_shared<Snapshot>();
  EXPECT_EQ(cache.find(next.get(), key(problem(1)), {}, bounds_of(problem(1)), 0, false), nullptr);
  const std::weak_ptr<const Snapshot> last = now;
  cache.restart(next.get());
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_FALSE(add(problem(2))) << "a call that began before the reload comes late";
  EXPECT_EQ(cache.size(), 0u);
  now.reset();
  EXPECT_TRUE(last.expired()) << "nothing holds it, and so its backends can be closed";
}

}  // namespace
}  // namespace attnrt::core
