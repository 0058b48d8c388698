// kernels/cpu/schedule.hpp: runs stages of tasks by one call of the caller's parallel_for
//
// Each stage is divided into as many shares as there are workers; a share is a range of
// neighbouring tasks, which have operands in common. A worker takes the tasks of its own share
// first (the same share in every run, whose data may still be in its cache), then tasks that other
// workers have not taken yet.
//
//   stage 0   |  share 0  |  share 1  |  share 2  |
//   stage 1   | share 0 | share 1 | share 2 |
//
// Worker 1 takes share 1 of stage 0, then what is left of shares 2 and 0, then goes on to stage 1.
//
// A worker enters a stage when every task of the stages before has been taken; some may not have
// finished. So a task may wait (wait_for) for tasks of earlier stages: those never wait for it, and
// each of them is being worked on.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <thread>

#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

struct Stage {
  int64_t count;
  void (*task)(const void* arg, int64_t index, int32_t worker);
};

// The next task of a share; alone in its cache line.
struct alignas(64) Counter {
  std::atomic<int64_t> value;
};

inline int64_t stages_bytes(int64_t stages, int64_t thread_count) {
  return stages * thread_count * static_cast<int64_t>(sizeof(Counter));
}

// Calls task(arg, index, worker) once for every index of every stage. Returns when all calls have
// returned.
// REQUIRES: memory of stages_bytes(kStageCount, workers.thread_count), aligned to a Counter.
template <int64_t kStageCount>
void run_stages(const Workers& workers, const Stage (&stages)[kStageCount], const void* arg,
                void* memory) {
  struct Call {
    const Stage* stages;
    const void* arg;
    Counter* next;  // [stages][shares]
    int64_t shares;

    void work(int32_t worker) const {
      for (int64_t s = 0; s < kStageCount; ++s) {
        const Stage& stage = stages[s];
        for (int64_t n = 0; n < shares && stage.count > 0; ++n) {
          const int64_t share = (worker + n) % shares;
          const int64_t end = stage.count * (share + 1) / shares;
          std::atomic<int64_t>& at = next[s * shares + share].value;
          while (at.load(std::memory_order_relaxed) < end) {
            const int64_t index = at.fetch_add(1, std::memory_order_relaxed);
            if (index < end) stage.task(arg, index, worker);
          }
        }
      }
    }
  };
  const int64_t shares = workers.parallel_for == nullptr ? 1 : workers.thread_count;
  Call call{stages, arg, static_cast<Counter*>(memory), shares};
  int64_t tasks = 0;
  for (int64_t s = 0; s < kStageCount; ++s) {
    for (int64_t n = 0; n < shares; ++n)
      new (call.next + s * shares + n) Counter{stages[s].count * n / shares};
    tasks = std::max(tasks, stages[s].count);
  }
  if (shares == 1 || tasks <= 1) return call.work(0);
  const auto body = [](void* pointer, int64_t, int32_t worker) {
    static_cast<const Call*>(pointer)->work(worker);
  };
  workers.parallel_for(workers.self, std::min(shares, tasks), body, &call);
}

// Waits until the counter has reached `value`. Whatever was written before the increments is
// visible then.
inline void wait_for(const std::atomic<int64_t>& counter, int64_t value) {
  constexpr int kSpins = 100;  // polls before the thread yields: most waits are shorter
  for (int n = 0; counter.load(std::memory_order_acquire) < value; ++n) {
    if (n > kSpins) std::this_thread::yield();
  }
}

}  // namespace kernels::cpu
