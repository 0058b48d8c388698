// tests/runtime/plan_cache_test.cpp: whose plans are taken, when, and when they are destroyed
#include "plan_cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/fake_device.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;

// ---- The cache alone, with entries that hold no plan ----

Problem problem(int64_t heads) {
  Problem p = ATTNRT_PROBLEM_INIT;
  p.head_dim = p.head_dim_v = 64;
  p.heads_q = p.heads_kv = heads;
  return p;
}

class Plans : public ::testing::Test {
 protected:
  Plans() { cache.restart(now.get(), INT64_MAX); }
  static CacheKey key(int64_t heads) { return cache_key(Config{}, problem(heads)); }
  void put(int64_t heads, int64_t bytes = 0, const Call& call = {}) {
    PlanCache::Taken taken;
    taken.push_back({key(heads), call, now, nullptr, {}, nullptr, bytes});
    cache.put_back(std::move(taken));
  }
  PlanCache::Taken take(int64_t heads, const Call& call = {}) {
    return cache.take({key(heads), call, nullptr, device, now.get(), {}, nullptr, {}});
  }

  std::shared_ptr<const Snapshot> now = std::make_shared<Snapshot>();
  Device device;
  PlanCache cache;
};

TEST_F(Plans, AreTakenOutAndSoNeverSharedByTwoRuns) {
  put(1);
  auto first = take(1);
  EXPECT_EQ(first.size(), 1u);
  EXPECT_TRUE(take(1).empty());
  cache.put_back(std::move(first));
  EXPECT_EQ(take(1).size(), 1u);
}

TEST_F(Plans, BelongToOneProblemAndCall) {
  put(1);
  EXPECT_TRUE(take(2).empty());
  EXPECT_TRUE(take(1, {"cpu"}).empty());
  EXPECT_EQ(take(1).size(), 1u);
}

TEST_F(Plans, TheLeastRecentlyUsedGoesFirst) {
  const auto most = static_cast<int64_t>(PlanCache::kCapacity);
  for (int64_t i = 1; i <= most; ++i) put(i);
  cache.put_back(take(1));
  put(most + 1);
  EXPECT_EQ(cache.size(), PlanCache::kCapacity);
  EXPECT_TRUE(take(2).empty());
  EXPECT_EQ(take(1).size(), 1u);
  EXPECT_EQ(take(3).size(), 1u);
}

TEST_F(Plans, AreBoundedByTheirBytes) {
  cache.restart(now.get(), 1000);
  for (int64_t i = 1; i <= 10; ++i) put(i, 300);
  EXPECT_EQ(cache.size(), 3u);
  EXPECT_EQ(cache.bytes(), 900);
  EXPECT_TRUE(take(7).empty());
  EXPECT_EQ(take(8).size(), 1u);
  EXPECT_EQ(cache.bytes(), 600);
  put(11, 1001);
  EXPECT_EQ(cache.size(), 0u) << "one that is larger than the limit is not kept";
  put(12, 1000);
  EXPECT_EQ(cache.bytes(), 1000);
}

TEST_F(Plans, AreTrimmed) {
  for (int64_t i = 1; i <= 4; ++i) put(i, 100);
  EXPECT_TRUE(cache.trim(250));
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_EQ(cache.bytes(), 200);
  EXPECT_FALSE(cache.trim(250));
  EXPECT_EQ(take(4).size(), 1u) << "the least recently used went first";
  put(5, 0);
  EXPECT_TRUE(cache.trim(-1));
  EXPECT_EQ(cache.size(), 0u);
}

TEST_F(Plans, OfAnEarlierSnapshotAreNeitherFoundNorKept) {
  put(1);
  auto running = take(1);
  put(2);
  const std::shared_ptr<const Snapshot> next = std::make_shared<Snapshot>();
  const std::weak_ptr<const Snapshot> last = now;
  cache.restart(next.get(), INT64_MAX);
  EXPECT_EQ(cache.size(), 0u);
  cache.put_back(std::move(running));
  EXPECT_EQ(cache.size(), 0u);
  now.reset();
  EXPECT_TRUE(last.expired());
}

TEST_F(Plans, PuttingNothingBackIsNothing) {
  cache.put_back({});
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_FALSE(cache.trim(-1));
}

TEST_F(Plans, FromManyThreads) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this] {
      for (int64_t i = 0; i < 500; ++i) {
        auto taken = take(i % 100 + 1);
        if (taken.empty()) {
          put(i % 100 + 1, 10);
        } else {
          cache.put_back(std::move(taken));
        }
        if (i % 50 == 0) cache.trim(500);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(cache.size(), PlanCache::kCapacity);
  EXPECT_EQ(cache.bytes(), static_cast<int64_t>(10 * cache.size()));
}

// ---- With plans of the fake device, whose work is done late. FakeDevice checks that nothing was
// freed, destroyed or used again too early. ----

constexpr Shape kShape{.seq_q = 2, .seq_kv = 3};

TEST(PlansInFlight, AReloadDestroysThemWhenTheirRunsHavePassed) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape), b(device.runtime, kShape, 2);
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  ASSERT_TRUE(device.runtime->reload());
  EXPECT_EQ(device.counters.plans_alive, 1);
  EXPECT_EQ(device.counters.destroyed_in_flight, 0);
  EXPECT_EQ(device.counters.freed_in_flight, 0);
  device.counters.complete();
  EXPECT_TRUE(a.right());
  ASSERT_EQ(b.run(device.runtime), ATTNRT_OK) << b.error.message;
  EXPECT_EQ(device.counters.plans_alive, 1) << "the next call destroys what has passed";
}

TEST(PlansInFlight, WhatTheLimitPushesOutIsDestroyedWhenItsRunHasPassed) {
  FakeDevice device("plan_cache: {bytes: 0}\n");
  DeviceAttention a(device.runtime, kShape);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.plans_alive, 3);
  EXPECT_EQ(device.counters.destroyed_in_flight, 0);
  device.counters.complete();
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.plans_alive, 1);
}

TEST(PlansInFlight, ATrimWaitsForThem) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  const int64_t before = device.counters.allocated;
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.allocated, before + 1);
  device.runtime->trim(1 << 20);
  EXPECT_EQ(device.counters.allocated, before + 1);
  device.runtime->trim(0);
  EXPECT_EQ(device.counters.allocated, before);
  EXPECT_EQ(device.counters.plans_alive, 0);
  EXPECT_EQ(device.counters.event_synchronizations, 1);
  EXPECT_TRUE(a.right());
}

TEST(PlansInFlight, CloseWaitsForThem) {
  auto runtime = std::make_unique<FakeDevice>("plan_cache: {bytes: 300}\n");
  DeviceAttention a(runtime->runtime, kShape);
  for (int causal = 0; causal < 3; ++causal) {
    a.problem.causal = causal % 2;
    a.problem.softcap = static_cast<float>(causal);
    ASSERT_EQ(a.run(runtime->runtime), ATTNRT_OK) << a.error.message;
  }
  runtime->runtime.close();
  EXPECT_EQ(runtime->counters.plans_alive, 0);
  EXPECT_EQ(runtime->counters.destroyed_in_flight, 0);
  EXPECT_EQ(runtime->counters.freed_in_flight, 0);
}

TEST(PlansInFlight, MemoryThatIsNeededIsWaitedFor) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape), b(device.runtime, {.seq_q = 2, .seq_kv = 40});
  ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  device.counters.memory_limit = 1;
  FakeStreams streams(*a.backend());
  EXPECT_EQ(b.run(device.runtime, streams.make()), ATTNRT_OUT_OF_MEMORY);
  device.counters.memory_limit = 0;
  EXPECT_EQ(device.counters.plans_alive, 0);
  EXPECT_EQ(device.counters.freed_in_flight, 0);
}

TEST(PlansInFlight, AnotherStreamTakesOneThatHasPassed) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(a.run(device.runtime, streams.make()), ATTNRT_OK) << a.error.message;
    device.counters.complete();
  }
  EXPECT_EQ(device.runtime->plans_made(), 1) << "the key has no stream";
}

TEST(PlansInFlight, StreamsThatRunAtOnceHavePlansOfTheirOwnUpToALimit) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  constexpr auto kMost = static_cast<int64_t>(PlanCache::kPlansOfAKey);
  for (int64_t i = 0; i < 3 * kMost; ++i)
    ASSERT_EQ(a.run(device.runtime, streams.make()), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.runtime->plans_made(), kMost);
  EXPECT_EQ(device.counters.stream_waits, 2 * kMost) << "the streams wait, not the caller";
  EXPECT_EQ(device.counters.event_synchronizations, 0);
  EXPECT_EQ(device.counters.overlapping_runs, 0);
  device.counters.complete();
  EXPECT_TRUE(a.right());
}

TEST(PlansInFlight, ARecycledStreamHandleIsAnotherStream) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  FakeStreams streams(*a.backend());
  void* const first = streams.make();
  ASSERT_EQ(a.run(device.runtime, first), ATTNRT_OK) << a.error.message;
  streams.destroy(first);
  void* const second = streams.make();
  ASSERT_EQ(second, first) << "as a driver may do";
  ASSERT_EQ(a.run(device.runtime, second), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.overlapping_runs, 0);
  EXPECT_EQ(device.runtime->plans_made(), 1);
}

TEST(PlansInFlight, TheDefaultStreamOfAThreadDoesNotWaitForItself) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape), b(device.runtime, kShape, 2);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
  EXPECT_EQ(device.counters.stream_waits, 0) << "its work is in order in any case";
  // To another thread it may be another stream, also if the first thread has ended.
  for (int i = 0; i < 2; ++i) {
    std::thread([&] {
      EXPECT_EQ(b.run(device.runtime), ATTNRT_OK) << b.error.message;
      EXPECT_EQ(device.counters.stream_waits, i + 1);
    }).join();
  }
  EXPECT_EQ(device.runtime->plans_made(), 1);
  EXPECT_EQ(device.counters.overlapping_runs, 0);
  device.counters.complete();
  EXPECT_TRUE(a.right());
  EXPECT_TRUE(b.right());
}

TEST(PlansInFlight, OneHandleMayMeanAnotherStreamToEachThread) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape), b(device.runtime, kShape, 2);
  ASSERT_EQ(a.run(device.runtime, fake_stream_per_thread), ATTNRT_OK) << a.error.message;
  std::thread([&] {
    EXPECT_EQ(b.run(device.runtime, fake_stream_per_thread), ATTNRT_OK) << b.error.message;
    EXPECT_EQ(device.counters.overlapping_runs, 0);
    device.counters.complete();  // before the thread's stream is gone
  }).join();
  EXPECT_TRUE(a.right());
  EXPECT_TRUE(b.right());
}

TEST(PlansInFlight, ARunThatCannotBeFollowedIsWaitedFor) {
  FakeDevice device;
  DeviceAttention a(device.runtime, kShape);
  device.counters.record_status = ATTNRT_INTERNAL;
  const int64_t before = device.counters.synchronizations;
  EXPECT_EQ(a.run(device.runtime), ATTNRT_INTERNAL);
  EXPECT_STREQ(a.error.message, "run: fake_rocm: event_record was told to fail");
  EXPECT_EQ(device.counters.synchronizations, before + 1);
  EXPECT_TRUE(a.right());
  device.counters.record_status = ATTNRT_OK;
}

TEST(PlansInFlight, TheLimitCountsWorkspaceAndWhatThePluginHolds) {
  FakeDevice device("plan_cache: {bytes: 1 KiB}\n");
  DeviceAttention a(device.runtime, kShape);
  const auto kept = [&](int64_t workspace_bytes, int64_t held_bytes) {
    device.runtime->trim(0);
    device.counters.workspace_bytes = workspace_bytes;
    device.counters.held_bytes = held_bytes;
    for (int i = 1; i <= 8; ++i) {
      a.problem.softcap = static_cast<float>(i);
      EXPECT_EQ(a.run(device.runtime), ATTNRT_OK) << a.error.message;
      device.counters.complete();
    }
    return device.counters.plans_alive;
  };
  EXPECT_EQ(kept(500, 0), 2);
  EXPECT_EQ(kept(200, 300), 2);
  EXPECT_EQ(kept(200, 0), 5);
}

TEST(PlansInFlight, TheLimitCountsStagingBuffers) {
  const TestRuntime runtime({"fake_rocm"}, "staging: allow\nplan_cache: {bytes: 100 KiB}\n");
  Attention a({.seq_q = 64, .seq_kv = 64});
  fake_counters& counters = runtime.counters(checked(a.problem));
  reset(counters);
  for (int i = 1; i <= 8; ++i) {
    a.problem.softcap = static_cast<float>(i);
    ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
  }
  // q, k, v and out take 8 KiB; staging rounds up, and has them on the device and pinned.
  EXPECT_EQ(counters.plans_alive, 100 / (8 + 8));
  runtime->trim(0);
  reset(counters);
}

TEST(PlansInFlight, FromManyThreadsAndStreams) {
  FakeDevice device("plan_cache: {bytes: 2 KiB}\n");
  std::vector<std::unique_ptr<DeviceAttention>> calls;
  for (uint64_t n = 0; n < 4; ++n)
    calls.push_back(std::make_unique<DeviceAttention>(device.runtime, kShape, n));
  FakeStreams streams(*calls.front()->backend());
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (auto& call : calls) {
    threads.emplace_back([&, stream = streams.make(), a = call.get()] {
      for (int i = 0; i < 50; ++i) {
        a->problem.scale = 0.1F * static_cast<float>(1 + i % 3);
        wrong += a->run(device.runtime, stream) != ATTNRT_OK;
        if (i % 7 == 0) device.counters.complete();
        if (i % 20 == 0) device.runtime->trim(500);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  device.counters.complete();
  for (auto& call : calls) EXPECT_TRUE(call->right());
}

}  // namespace
}  // namespace attnrt::core
