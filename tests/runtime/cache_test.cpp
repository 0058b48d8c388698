// tests/runtime/cache_test.cpp: the caches find equal problems only, and stay bounded
#include "cache.hpp"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace attnrt::core {
namespace {

Problem problem(int64_t seq_kv) {
  Problem p = ATTNRT_PROBLEM_INIT;
  p.head_dim = p.head_dim_v = 64;
  p.seq_kv = seq_kv;
  return p;
}

std::shared_ptr<const Decision> decision() { return std::make_shared<const Decision>(); }

class Decisions : public ::testing::Test {
 protected:
  Decisions() { cache.restart(now.get()); }
  bool add(int64_t seq_kv, const Call& call = {}) {
    return cache.insert(now, problem(seq_kv), call, decision());
  }
  bool has(int64_t seq_kv, const Call& call = {}) {
    return cache.find(now.get(), problem(seq_kv), call) != nullptr;
  }

  std::shared_ptr<const Snapshot> now = std::make_shared<Snapshot>();
  DecisionCache cache;
};

TEST_F(Decisions, AreFoundByProblemAndCall) {
  const auto made = decision();
  EXPECT_TRUE(cache.insert(now, problem(1), {"cpu"}, made));
  EXPECT_EQ(cache.find(now.get(), problem(1), {"cpu"}), made);
  EXPECT_FALSE(has(1));
  EXPECT_FALSE(has(1, {"cp"}));
  EXPECT_FALSE(has(2, {"cpu"}));
}

// If the key left out one field, a problem would get the answer of another.
TEST_F(Decisions, EveryByteOfTheProblemCounts) {
  ASSERT_TRUE(add(1));
  for (size_t i = 0; i < sizeof(Problem); ++i) {
    Problem other = problem(1);
    reinterpret_cast<unsigned char*>(&other)[i] ^= 1;
    EXPECT_EQ(cache.find(now.get(), other, {}), nullptr) << i;
    EXPECT_NE(hash_of(other), hash_of(problem(1))) << i;
  }
}

TEST_F(Decisions, TheLeastRecentlyUsedGoesFirst) {
  const auto most = static_cast<int64_t>(DecisionCache::kCapacity);
  for (int64_t i = 1; i <= most; ++i) ASSERT_TRUE(add(i));
  EXPECT_TRUE(has(1));  // now 1 is the most recently used, and 2 the least
  ASSERT_TRUE(add(most + 1));
  EXPECT_EQ(cache.size(), DecisionCache::kCapacity);
  EXPECT_TRUE(has(1));
  EXPECT_FALSE(has(2));
  EXPECT_TRUE(has(3));
}

TEST_F(Decisions, ThousandsOfProblemsStayWithinTheBound) {
  for (int64_t i = 1; i <= 5000; ++i) {
    ASSERT_TRUE(add(i));
    ASSERT_LE(cache.size(), DecisionCache::kCapacity);
  }
  for (int64_t i = 5000; i > 5000 - static_cast<int64_t>(DecisionCache::kCapacity); --i)
    ASSERT_TRUE(has(i)) << i;
}

TEST_F(Decisions, TheSecondOfTwoThreadsIsNotKept) {
  EXPECT_TRUE(add(1));
  EXPECT_FALSE(add(1));
  EXPECT_EQ(cache.size(), 1u);
}

TEST_F(Decisions, OfAnEarlierSnapshotAreNeitherFoundNorKept) {
  ASSERT_TRUE(add(1));
  const std::shared_ptr<const Snapshot> next = std::make_shared<Snapshot>();
  EXPECT_EQ(cache.find(next.get(), problem(1), {}), nullptr);
  const std::weak_ptr<const Snapshot> last = now;
  cache.restart(next.get());
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_FALSE(add(2)) << "a call that began before the reload comes late";
  EXPECT_EQ(cache.size(), 0u);
  now.reset();
  EXPECT_TRUE(last.expired()) << "nothing holds it, and so its backends can be closed";
}

class Plans : public ::testing::Test {
 protected:
  Plans() { cache.restart(now.get()); }
  void put(int64_t seq_kv, void* stream = nullptr, bool keep_all = false) {
    PlanCache::Taken taken;
    taken.push_back(
        {hash_of(problem(seq_kv)), now, problem(seq_kv), {}, stream, nullptr, nullptr, 0});
    cache.put_back(std::move(taken), keep_all);
  }
  PlanCache::Taken take(int64_t seq_kv, void* stream = nullptr) {
    return cache.take(now.get(), problem(seq_kv), {}, stream);
  }

  std::shared_ptr<const Snapshot> now = std::make_shared<Snapshot>();
  PlanCache cache;
};

TEST_F(Plans, AreTakenOutAndSoNeverSharedByTwoRuns) {
  put(1);
  auto first = take(1);
  EXPECT_EQ(first.size(), 1u);
  EXPECT_TRUE(take(1).empty());
  cache.put_back(std::move(first), false);
  EXPECT_EQ(take(1).size(), 1u);
}

TEST_F(Plans, BelongToOneStreamAndOneProblem) {
  int streams[2];
  put(1, &streams[0]);
  EXPECT_TRUE(take(1, &streams[1]).empty());
  EXPECT_TRUE(take(1).empty());
  EXPECT_TRUE(take(2, &streams[0]).empty());
  EXPECT_TRUE(cache.take(now.get(), problem(1), {"cpu"}, &streams[0]).empty());
  EXPECT_EQ(take(1, &streams[0]).size(), 1u);
}

TEST_F(Plans, TheLeastRecentlyUsedGoesFirst) {
  const auto most = static_cast<int64_t>(PlanCache::kCapacity);
  for (int64_t i = 1; i <= most; ++i) put(i);
  cache.put_back(take(1), false);
  put(most + 1);
  EXPECT_EQ(cache.size(), PlanCache::kCapacity);
  EXPECT_TRUE(take(2).empty());
  EXPECT_EQ(take(1).size(), 1u);
  EXPECT_EQ(take(3).size(), 1u);
}

TEST_F(Plans, NoneIsGivenBackWhileAStreamCaptures) {
  const auto most = static_cast<int64_t>(PlanCache::kCapacity);
  for (int64_t i = 1; i <= 2 * most; ++i) put(i, nullptr, true);
  EXPECT_EQ(cache.size(), 2 * PlanCache::kCapacity);
  put(1000);
  EXPECT_EQ(cache.size(), PlanCache::kCapacity);
}

TEST_F(Plans, OfAnEarlierSnapshotAreNeitherFoundNorKept) {
  put(1);
  auto running = take(1);
  put(2);
  const std::shared_ptr<const Snapshot> next = std::make_shared<Snapshot>();
  const std::weak_ptr<const Snapshot> last = now;
  cache.restart(next.get());
  EXPECT_EQ(cache.size(), 0u);
  cache.put_back(std::move(running), false);
  EXPECT_EQ(cache.size(), 0u);
  now.reset();
  EXPECT_TRUE(last.expired());
}

TEST_F(Plans, PuttingNothingBackIsNothing) {
  cache.put_back({}, false);
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_FALSE(cache.drop_idle());
  put(1);
  EXPECT_TRUE(cache.drop_idle());
  EXPECT_EQ(cache.size(), 0u);
}

TEST_F(Plans, FromManyThreads) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this] {
      for (int64_t i = 0; i < 500; ++i) {
        auto taken = take(i % 100 + 1);
        if (taken.empty()) {
          put(i % 100 + 1);
        } else {
          cache.put_back(std::move(taken), false);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(cache.size(), PlanCache::kCapacity);
}

}  // namespace
}  // namespace attnrt::core
