// kernels/cpu/schedule.hpp: stages of tasks onto the caller's threads, by one call of its parallel_for
//
// Each stage is cut into as many shares as there are workers, of neighbouring tasks, which have operands in common. A worker
// begins with its own share, the same one in every run, and then takes what others have left. It comes to a stage when each
// task of the stages before has been taken, not finished: a task may wait for tasks of earlier stages, since those never wait
// for it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

struct Stage {
  int64_t count;
  void (*step)(const void* arg, int64_t index, int32_t worker);
};

// Alone in its cache line.
struct alignas(64) Counter {
  std::atomic<int64_t> value;
};

inline int64_t stages_bytes(int64_t stages, int64_t thread_count) {
  return stages * thread_count * static_cast<int64_t>(sizeof(Counter));
}

// REQUIRES: memory of stages_bytes(kStages, thread_count), aligned to a Counter.
template <int64_t kStages>
void run_stages(const Workers& workers, const Stage (&stages)[kStages], const void* arg,
                void* memory) {
  struct Call {
    const Stage* stages;
    const void* arg;
    Counter* next;
    int64_t shares;

    void work(int32_t worker) const {
      for (int64_t s = 0; s < kStages; ++s) {
        const Stage& stage = stages[s];
        for (int64_t n = 0; n < shares && stage.count > 0; ++n) {
          const int64_t share = (worker + n) % shares;
          const int64_t end = stage.count * (share + 1) / shares;
          std::atomic<int64_t>& at = next[s * shares + share].value;
          while (at.load(std::memory_order_relaxed) < end) {
            const int64_t index = at.fetch_add(1, std::memory_order_relaxed);
            if (index < end) stage.step(arg, index, worker);
          }
        }
      }
    }
  };
  const int64_t shares = workers.parallel_for == nullptr ? 1 : workers.thread_count;
  Call call{stages, arg, static_cast<Counter*>(memory), shares};
  int64_t tasks = 0;
  for (int64_t s = 0; s < kStages; ++s) {
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

// Waits until a counter has that value: what was written before is seen then.
inline void wait_for(const std::atomic<int64_t>& counter, int64_t value) {
  for (int n = 0; counter.load(std::memory_order_acquire) < value; ++n) {
    if (n > 100) std::this_thread::yield();
  }
}

}  // namespace kernels::cpu
