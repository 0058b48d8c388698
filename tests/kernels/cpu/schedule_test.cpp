// tests/kernels/cpu/schedule_test.cpp: each task runs once and in the promised order, whatever the
// host's threads do
#include "kernels/cpu/schedule.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

struct Log {
  std::vector<std::atomic<int>> done[2];
  std::atomic<int64_t> first_done{0};
  std::atomic<bool> workers_in_range{true};
  int64_t first_count = 0;
  int32_t thread_count = 0;
};

Log& log_of(const void* arg) { return *const_cast<Log*>(static_cast<const Log*>(arg)); }

void first_step(const void* arg, int64_t index, int32_t worker) {
  Log& log = log_of(arg);
  ++log.done[0][static_cast<size_t>(index)];
  log.first_done.fetch_add(1, std::memory_order_release);
  if (worker < 0 || worker >= log.thread_count) log.workers_in_range = false;
}

// Waits for the whole first stage.
void second_step(const void* arg, int64_t index, int32_t) {
  Log& log = log_of(arg);
  cpu::wait_for(log.first_done, log.first_count);
  ++log.done[1][static_cast<size_t>(index)];
}

void expect_each_once(const cpu::Workers& workers, int64_t first, int64_t second) {
  SCOPED_TRACE(testing::Message() << workers.thread_count << " threads, " << first << " and "
                                  << second << " tasks");
  Log log;
  log.done[0] = std::vector<std::atomic<int>>(static_cast<size_t>(first));
  log.done[1] = std::vector<std::atomic<int>>(static_cast<size_t>(second));
  log.first_count = first;
  log.thread_count = workers.thread_count;
  std::vector<cpu::Counter> memory(static_cast<size_t>(2 * workers.thread_count));
  ASSERT_EQ(cpu::stages_bytes(2, workers.thread_count),
            static_cast<int64_t>(memory.size() * sizeof(cpu::Counter)));
  const cpu::Stage stages[2] = {{first, first_step}, {second, second_step}};
  cpu::run_stages(workers, stages, &log, memory.data());
  for (const auto& stage : log.done) {
    for (size_t n = 0; n < stage.size(); ++n) EXPECT_EQ(stage[n], 1) << "task " << n;
  }
  EXPECT_TRUE(log.workers_in_range);
}

// A host that promises threads but makes all calls on one thread, last index first.
void backwards(void*, int64_t count, void (*body)(void*, int64_t, int32_t), void* arg) {
  for (int64_t index = count; index-- > 0;) body(arg, index, 0);
}

TEST(Stages, EachTaskRunsOnce) {
  for (const int64_t first : {0, 1, 3, 100}) {
    for (const int64_t second : {0, 1, 5, 64}) {
      expect_each_once({}, first, second);
      for (const int32_t count : {1, 2, 4, 7}) {
        expect_each_once(threads(count), first, second);
        expect_each_once({nullptr, count, backwards}, first, second);
      }
    }
  }
}

// A worker begins with its own share, a range of neighbouring tasks.
TEST(Stages, AWorkerBeginsWithItsOwnShare) {
  std::vector<int64_t> order;
  const cpu::Stage stages[1] = {{12, [](const void* arg, int64_t index, int32_t) {
                                   const_cast<std::vector<int64_t>*>(
                                       static_cast<const std::vector<int64_t>*>(arg))
                                       ->push_back(index);
                                 }}};
  std::vector<cpu::Counter> memory(3);
  const auto second = [](void*, int64_t count, void (*body)(void*, int64_t, int32_t), void* arg) {
    for (int64_t index = 0; index < count; ++index) body(arg, index, 1);
  };
  cpu::run_stages({nullptr, 3, second}, stages, &order, memory.data());
  EXPECT_EQ(order, (std::vector<int64_t>{4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3}));
}

}  // namespace
}  // namespace kernels::test
