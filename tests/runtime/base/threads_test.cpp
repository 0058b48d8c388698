// tests/runtime/base/threads_test.cpp: each index once, no worker in two bodies at once
#include "base/threads.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/sanitized.hpp"

namespace attnrt::core {
namespace {

// Records how often each index was called, and whether a worker was ever in two bodies at once.
struct Record {
  Record(int64_t count, int32_t workers)
      : visits(static_cast<size_t>(count)), busy(static_cast<size_t>(workers)) {}
  std::vector<std::atomic<int>> visits;
  std::vector<std::atomic<int>> busy;
  std::atomic<int> overlaps = 0, unknown_workers = 0;

  static void body(void* self, int64_t index, int32_t worker) {
    auto& record = *static_cast<Record*>(self);
    if (worker < 0 || static_cast<size_t>(worker) >= record.busy.size()) {
      ++record.unknown_workers;
      return;
    }
    if (record.busy[static_cast<size_t>(worker)].fetch_add(1) != 0) ++record.overlaps;
    ++record.visits[static_cast<size_t>(index)];
    for (volatile int spin = 0; spin < 200;) spin = spin + 1;
    record.busy[static_cast<size_t>(worker)].fetch_sub(1);
  }
  void expect_each_once() const {
    for (size_t i = 0; i < visits.size(); ++i) ASSERT_EQ(visits[i].load(), 1) << i;
    EXPECT_EQ(overlaps, 0);
    EXPECT_EQ(unknown_workers, 0);
  }
};

TEST(Threads, EachIndexOnceOnAWorkerOfItsOwn) {
  for (const int32_t workers : {1, 2, 3, 8}) {
    const auto threads = Threads::pool(workers);
    EXPECT_GE(threads->count(), 1);
    EXPECT_LE(threads->count(), workers);
    for (const int64_t count : {0, 1, 2, 3, 7, 64, 5000}) {
      Record record(count, threads->count());
      threads->parallel_for(count, Record::body, &record);
      record.expect_each_once();
    }
  }
}

TEST(Threads, AreNeverMoreThanCpus) {
  EXPECT_LE(Threads::pool(1000)->count(),
            static_cast<int32_t>(std::thread::hardware_concurrency()));
}

TEST(Threads, NegativeCountsAreNothing) {
  Record record(1, 2);
  Threads::pool(2)->parallel_for(-5, Record::body, &record);
  EXPECT_EQ(record.visits[0], 0);
}

TEST(Threads, ManyCallersAtOnce) {
  const auto threads = Threads::pool(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&threads] {
      for (int round = 0; round < 50; ++round) {
        Record record(97, threads->count());
        threads->parallel_for(97, Record::body, &record);
        record.expect_each_once();
      }
    });
  }
  for (auto& caller : callers) caller.join();
}

// The body sees what was written before the call, and the caller sees afterwards what the body
// wrote. ThreadSanitizer fails this test if the order is missing.
TEST(Threads, OrdersMemoryAroundTheCall) {
  const auto threads = Threads::pool(2);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> in(64, round), out(64);
    std::pair<std::vector<int64_t>*, std::vector<int64_t>*> both{&in, &out};
    const auto body = [](void* arg, int64_t index, int32_t) {
      auto& [from, to] = *static_cast<decltype(both)*>(arg);
      (*to)[static_cast<size_t>(index)] = (*from)[static_cast<size_t>(index)] + index;
    };
    threads->parallel_for(64, body, &both);
    for (int64_t i = 0; i < 64; ++i) ASSERT_EQ(out[static_cast<size_t>(i)], round + i);
  }
}

TEST(Threads, OneThreadRunsOnTheCaller) {
  const auto threads = Threads::pool(1);
  struct Seen {
    std::thread::id caller;
    std::vector<int64_t> indices;
  } seen{std::this_thread::get_id(), {}};
  const auto body = [](void* arg, int64_t index, int32_t worker) {
    auto& s = *static_cast<Seen*>(arg);
    EXPECT_EQ(std::this_thread::get_id(), s.caller);
    EXPECT_EQ(worker, 0);
    s.indices.push_back(index);
  };
  threads->parallel_for(4, body, &seen);
  EXPECT_EQ(seen.indices, (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(Threads, OneIndexRunsOnTheCaller) {
  const auto threads = Threads::pool(4);
  const auto caller = std::this_thread::get_id();
  const auto body = [](void* arg, int64_t, int32_t worker) {
    EXPECT_EQ(std::this_thread::get_id(), *static_cast<const std::thread::id*>(arg));
    EXPECT_EQ(worker, 0);
  };
  threads->parallel_for(1, body, const_cast<std::thread::id*>(&caller));
}

// Two bodies that wait for each other return only if two threads run them.
TEST(Threads, TwoThreadsWorkAtOnce) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one CPU";
  struct Meeting {
    std::mutex mutex;
    std::condition_variable all_here;
    int here = 0;
  } meeting;
  const auto body = [](void* arg, int64_t, int32_t) {
    auto& m = *static_cast<Meeting*>(arg);
    std::unique_lock lock(m.mutex);
    ++m.here;
    m.all_here.notify_all();
    EXPECT_TRUE(m.all_here.wait_for(lock, std::chrono::seconds(60), [&m] { return m.here == 2; }));
  };
  Threads::pool(2)->parallel_for(2, body, &meeting);
}

TEST(Threads, TheApplicationsOwnAreUsed) {
  struct Application {
    int64_t calls = 0, indices = 0;
  } application;
  const auto parallel_for = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    auto& a = *static_cast<Application*>(self);
    ++a.calls;
    a.indices += count;
    for (int64_t i = count; i-- > 0;) body(arg, i, static_cast<int32_t>(i % 5));
  };
  const auto threads = Threads::borrowed(5, parallel_for, &application);
  EXPECT_EQ(threads->count(), 5);
  Record record(12, 5);
  threads->parallel_for(12, Record::body, &record);
  threads->parallel_for(0, Record::body, &record);
  record.expect_each_once();
  EXPECT_EQ(application.calls, 1);
  EXPECT_EQ(application.indices, 12);
}

TEST(Threads, AnIdlePoolUsesNoCpu) {
  const auto cpu_seconds = [] {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  };
  const auto threads = Threads::pool(4);
  Record record(1000, threads->count());
  threads->parallel_for(1000, Record::body, &record);
  // Workers look for work for a moment before they sleep, so the quietest of ten pauses counts.
  double quietest = 1;
  for (int pause = 0; pause < 10; ++pause) {
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    quietest = std::min(quietest, cpu_seconds() - before);
  }
  EXPECT_LT(quietest, 0.005);
}

// On every thread, whatever the caller, the application's threads and earlier bodies have set.
TEST(Threads, BodiesRunInTheDefaultFloatingPointEnvironment) {
  const auto odd = [](void* self, int64_t count, attnrt_parallel_body body, void* arg) {
    fesetround(FE_UPWARD);
    for (int64_t i = 0; i < count; ++i) body(arg, i, 0);
    EXPECT_EQ(fegetround(), FE_UPWARD);
    fesetround(*static_cast<const int*>(self));
  };
  int mode = FE_DOWNWARD;
  std::atomic<int> others = 0;
  const auto body = [](void* arg, int64_t, int32_t) {
    if (fegetround() != FE_TONEAREST) ++*static_cast<std::atomic<int>*>(arg);
  };
  const auto disturb = [](void*, int64_t, int32_t) { fesetround(FE_TOWARDZERO); };
  const auto pool = Threads::pool(2), one = Threads::pool(1),
             lent = Threads::borrowed(2, odd, &mode);
  for (int round = 0; round < 20; ++round) {
    for (const auto* threads : {&pool, &one, &lent}) {
      fesetround(FE_DOWNWARD);
      (*threads)->parallel_for(50, body, &others);
      EXPECT_EQ(fegetround(), FE_DOWNWARD);
      (*threads)->parallel_for(50, disturb, nullptr);
      EXPECT_EQ(fegetround(), FE_DOWNWARD);
      (*threads)->parallel_for(1, body, &others);
      EXPECT_EQ(fegetround(), FE_DOWNWARD);
    }
  }
  fesetround(FE_TONEAREST);
  EXPECT_EQ(others, 0);
}

TEST(Threads, AnExceptionOfABodyReachesTheCallerWhenAllHaveReturned) {
  const auto threads = Threads::pool(2);
  const auto body = [](void* arg, int64_t index, int32_t) {
    ++*static_cast<std::atomic<int>*>(arg);
    if (index == 3) throw std::runtime_error("three");
    --*static_cast<std::atomic<int>*>(arg);
  };
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> inside = 0;
    EXPECT_THROW(threads->parallel_for(1000, body, &inside), std::runtime_error);
    EXPECT_EQ(inside, 1) << "the one that threw";
  }
}

TEST(Threads, APoolWithoutThreadsLeavesTheWorkToItsCaller) {
  if (support::kSanitized) GTEST_SKIP() << "a sanitizer needs memory for each thread that it sees";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Record record(100, 2);
    const auto threads = Threads::pool(2);
    const rlimit none{0, 0};  // no memory for another thread's stack
    setrlimit(RLIMIT_AS, &none);
    threads->parallel_for(100, Record::body, &record);
    _exit(record.visits[99] == 1 && record.overlaps == 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(UsableCpus, FollowTheAffinityMask) {
  cpu_set_t mask;
  ASSERT_EQ(sched_getaffinity(0, sizeof mask, &mask), 0);
  EXPECT_LE(usable_cpus(), CPU_COUNT(&mask));
  EXPECT_GE(usable_cpus(), 1);
  int first = 0;
  while (!CPU_ISSET(first, &mask)) ++first;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    _exit(sched_setaffinity(0, sizeof one, &one) == 0 ? usable_cpus() : 99);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST(UsableCpus, AreTheDefaultOfAPool) { EXPECT_EQ(Threads::pool(0)->count(), usable_cpus()); }

TEST(Controllers, AreComparedAsWholeNames) {
  EXPECT_TRUE(names_controller("cpu", "cpu"));
  EXPECT_TRUE(names_controller("cpu,cpuacct", "cpu"));
  EXPECT_TRUE(names_controller("cpuacct,cpu", "cpu"));
  for (const char* other : {"", "cpuset", "cpuacct", "cpuset,cpuacct", "name=cpu"})
    EXPECT_FALSE(names_controller(other, "cpu")) << other;
}

TEST(CpuMax, Texts) {
  EXPECT_EQ(cpus_of_cpu_max("200000 100000"), 2);
  EXPECT_EQ(cpus_of_cpu_max("150000 100000\n"), 1.5);
  EXPECT_EQ(cpus_of_cpu_max("1000 100000"), 0.01);
  for (const char* none :
       {"max 100000", "-1 100000", "", "100000", "0 100000", "100000 0", "abc def", "100000 max"}) {
    EXPECT_EQ(cpus_of_cpu_max(none), 0) << none;
  }
}

}  // namespace
}  // namespace attnrt::core
