// runtime/src/base/pool.hpp: the threads that work on parallel_for beside its caller
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/fork.hpp"
#include "base/threads.hpp"

namespace attnrt::core {

// THREADS: parallel_for from any threads at once.
//
// Each call is a job, a struct on its caller's stack in a list of the pool. The caller works on its
// job, and each thread of the pool joins a job that has indices left:
//
//     caller:   list the job --> take indices until none is left --> unlist it --> wait for those
//     thread:   join a listed job --> take indices until none is left --> leave       that joined
//
// A thread without a job looks for one for a moment and then sleeps. A caller wakes one sleeper,
// and who was woken wakes two more while there are indices left, so that waking many costs no
// single thread much.
//
// A call allocates nothing, and cannot fail: if the system gives no threads, its caller does all of
// the work. A thread always has the same worker number, so the memory that it used in the last call
// may still be in its cache; the caller is number 0. A child made by fork starts new threads.
// Nothing of the pool is destroyed when the process ends, so a call in another thread goes on.
class Pool final : public Threads, AtFork {
 public:
  explicit Pool(int32_t count);
  ~Pool() override;
  void parallel_for(int64_t count, attnrt_parallel_body body, void* arg) override;

 private:
  struct Job;
  struct Worker {
    Pool* pool;
    int32_t number;
    pthread_t thread;
  };

  void before_fork() override { lock(); }
  void after_fork(bool in_child) override;

  void lock();
  void unlock() { locked_.store(false, std::memory_order_release); }
  void start_workers(int64_t wanted);
  void stop_workers();
  Job* join_job();
  void leave(Job& job);
  void unlist(Job& job);
  void run(Job& job, int32_t number);
  void work(int32_t number);
  bool look_for_work(uint32_t seen) const;

  // The list and its jobs' counts change under a lock of a few instructions.
  std::atomic<bool> locked_{false};
  Job* jobs_ = nullptr;

  std::vector<Worker> workers_;  // all that there may be; the first `started_` of them run
  std::atomic<int32_t> started_{0};
  std::atomic<bool> starting_{false};
  std::atomic<int64_t> calls_without_threads_{0};

  std::atomic<uint32_t> published_{0};  // jobs so far; threads without work wait for it to change
  std::atomic<int32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace attnrt::core
