// runtime/src/base/pool.cpp: the threads that work on parallel_for beside its caller
#include "base/pool.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "base/floating_point.hpp"

namespace attnrt::core {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread looks for work, or for the end of work, before it sleeps. Calls of a decode
// loop follow each other faster than that, and waking a thread takes about as long.
constexpr std::chrono::microseconds kLookFor{50};
constexpr std::chrono::microseconds kYieldAfter{10};  // lets other threads have the CPU
constexpr int kPausesBetweenLooks = 16;
constexpr int kPausesForLock = 100;

// After a failure to start a thread, how many calls make no further attempt.
constexpr int64_t kCallsBetweenAttempts = 1000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Polls until `done` says so, for a moment. Returns whether it did.
template <class Done>
bool poll(Done&& done) {
  if (done()) return true;
  const auto start = Clock::now();
  for (;;) {
    for (int n = 0; n < kPausesBetweenLooks; ++n) {
      if (done()) return true;
      pause();
    }
    const auto waited = Clock::now() - start;
    if (waited > kLookFor) return done();
    if (waited > kYieldAfter) std::this_thread::yield();
  }
}

}  // namespace

struct Pool::Job {
  attnrt_parallel_body body;
  void* arg;
  int64_t count;
  std::atomic<int64_t> next{0};    // the first index that nobody has taken
  std::atomic<int32_t> inside{0};  // threads of the pool that work on it
  std::exception_ptr thrown;       // what a body threw first
  Job* previous = nullptr;
  Job* following = nullptr;
  bool listed = false;

  bool has_work() const { return next.load(std::memory_order_relaxed) < count; }
};

Pool::Pool(int32_t count) : Threads(count), workers_(static_cast<size_t>(count - 1)) {
  for (size_t i = 0; i < workers_.size(); ++i)
    workers_[i] = {this, static_cast<int32_t>(i) + 1, pthread_t{}};
  watch_forks();
}

Pool::~Pool() {
  stop_workers();
  ignore_forks();
}

void Pool::lock() {
  for (int tries = 0; locked_.exchange(true, std::memory_order_acquire); ++tries) {
    while (locked_.load(std::memory_order_relaxed)) {
      pause();
      if (++tries > kPausesForLock) std::this_thread::yield();
    }
  }
}

// The threads of the pool do not exist in a child, nor do the other callers.
void Pool::after_fork(bool in_child) {
  if (in_child) {
    for (Job* job = jobs_; job != nullptr; job = job->following) {
      job->inside = 0;
      job->listed = false;
    }
    jobs_ = nullptr;
    started_ = sleepers_ = 0;
    starting_ = false;
    calls_without_threads_ = 0;
  }
  unlock();
}

// Starts threads until `wanted` of them run. If the system refuses, the next calls do without.
void Pool::start_workers(int64_t wanted) {
  if (started_.load(std::memory_order_relaxed) >= wanted) return;
  if (calls_without_threads_.load(std::memory_order_relaxed) > 0 &&
      calls_without_threads_.fetch_sub(1, std::memory_order_relaxed) > 0)
    return;
  if (starting_.exchange(true, std::memory_order_acquire)) return;  // another caller does it
  for (int32_t at = started_; at < wanted; at = ++started_) {
    Worker& worker = workers_[static_cast<size_t>(at)];
    const auto main = [](void* self) -> void* {
      const Worker& me = *static_cast<const Worker*>(self);
      me.pool->work(me.number);
      return nullptr;
    };
    if (pthread_create(&worker.thread, nullptr, main, &worker) == 0) continue;
    calls_without_threads_ = kCallsBetweenAttempts;
    break;
  }
  starting_.store(false, std::memory_order_release);
}

void Pool::stop_workers() {
  stopping_ = true;
  published_.fetch_add(1);
  published_.notify_all();
  for (int32_t at = 0; at < started_; ++at)
    pthread_join(workers_[static_cast<size_t>(at)].thread, nullptr);
}

// Joins a listed job that has indices left. nullptr: there is none.
Pool::Job* Pool::join_job() {
  lock();
  Job* job = jobs_;
  while (job != nullptr && !job->has_work()) job = job->following;
  if (job != nullptr) job->inside.fetch_add(1, std::memory_order_relaxed);
  unlock();
  return job;
}

// Under the lock, so that the job's caller, which takes it once more, does not return and end the
// job's life before the last thread has finished with it.
void Pool::leave(Job& job) {
  lock();
  if (job.inside.fetch_sub(1, std::memory_order_release) == 1) job.inside.notify_one();
  unlock();
}

void Pool::unlist(Job& job) {
  if (!job.listed) return;
  if (job.previous != nullptr) job.previous->following = job.following;
  if (job.following != nullptr) job.following->previous = job.previous;
  if (jobs_ == &job) jobs_ = job.following;
  job.listed = false;
}

// Takes indices of the job until none is left.
void Pool::run(Job& job, int32_t number) {
  const DefaultFloatingPoint floating_point;
  try {
    for (int64_t index; (index = job.next.fetch_add(1, std::memory_order_relaxed)) < job.count;)
      job.body(job.arg, index, number);
  } catch (...) {
    job.next = job.count;
    lock();
    if (job.thrown == nullptr) job.thrown = std::current_exception();
    unlock();
  }
}

// Whether a job was published since `seen`, or is within a moment.
bool Pool::look_for_work(uint32_t seen) const {
  return poll([&] { return published_.load(std::memory_order_acquire) != seen; });
}

void Pool::work(int32_t number) {
  bool woken = false;
  while (!stopping_.load(std::memory_order_relaxed)) {
    const uint32_t seen = published_.load(std::memory_order_acquire);
    if (Job* job = join_job()) {
      if (woken && job->has_work() && sleepers_ > 0) {
        published_.notify_one();
        published_.notify_one();
      }
      run(*job, number);
      leave(*job);
      woken = false;
      continue;
    }
    woken = !look_for_work(seen);
    if (!woken) continue;
    // Counted first: either the caller that publishes sees it and wakes a sleeper, or this thread
    // sees what was published and does not sleep.
    sleepers_.fetch_add(1);
    published_.wait(seen);
    sleepers_.fetch_sub(1);
  }
}

void Pool::parallel_for(int64_t count, attnrt_parallel_body body, void* arg) {
  if (count <= 0) return;
  if (count == 1 || count_ == 1) {  // nothing to share, so no other thread is woken
    const DefaultFloatingPoint floating_point;
    for (int64_t index = 0; index < count; ++index) body(arg, index, 0);
    return;
  }
  start_workers(std::min<int64_t>(count, count_) - 1);
  Job job{body, arg, count, {}, {}, {}, nullptr, nullptr, true};
  lock();
  job.following = jobs_;
  if (jobs_ != nullptr) jobs_->previous = &job;
  jobs_ = &job;
  unlock();
  published_.fetch_add(1);
  if (sleepers_ > 0) published_.notify_one();

  run(job, 0);

  lock();
  unlist(job);
  unlock();
  const auto all_left = [&] { return job.inside.load(std::memory_order_acquire) == 0; };
  if (!poll(all_left)) {
    for (int32_t left; (left = job.inside.load(std::memory_order_acquire)) != 0;)
      job.inside.wait(left, std::memory_order_acquire);
  }
  lock();  // the last thread has left when it has given up the lock
  unlock();
  if (job.thrown != nullptr) std::rethrow_exception(job.thrown);
}

}  // namespace attnrt::core
