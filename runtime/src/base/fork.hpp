// runtime/src/base/fork.hpp: keeps locks and threads usable in a child made by fork
//
// A child has one thread, the one that called fork. What the parent's other threads were doing is
// not done there, and what they had locked stays locked. So each lock is one of three kinds:
//
//   HeldMutex    fork waits until it is free, so that the data it protects is whole in the child.
//                For short sections that call nothing else: no other lock, no plugin, no log.
//   ResetMutex   is free in the child, whoever held it. For long work (a reload, loading a plugin):
//                the child repeats it from its start, and leaks what the parent's thread had made.
//   AtFork       anything else, which states what it does around a fork (the thread pool).
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>

namespace attnrt::core {

// How often this process or its ancestors forked since the runtime was loaded. Whatever was made
// under another number was made in a parent.
uint32_t fork_generation();

// Something that is told of each fork, by the thread that forks.
// REQUIRES: the constructor of a final class ends with watch_forks(), and its destructor calls
// ignore_forks(); both are called under no HeldMutex. after_fork neither allocates nor waits.
class AtFork {
 public:
  AtFork(const AtFork&) = delete;
  AtFork& operator=(const AtFork&) = delete;

 protected:
  AtFork() = default;
  ~AtFork() = default;
  void watch_forks();
  void ignore_forks();

 private:
  virtual void before_fork() = 0;
  virtual void after_fork(bool in_child) = 0;

  friend struct ForkRegistry;
  AtFork* previous_ = nullptr;
  AtFork* next_ = nullptr;
};

class HeldMutex final : AtFork {
 public:
  HeldMutex() { watch_forks(); }
  ~HeldMutex() { ignore_forks(); }
  void lock() {
    mutex_.lock();
    owner_.store(pthread_self(), std::memory_order_relaxed);
  }
  void unlock() {
    owner_.store(0, std::memory_order_relaxed);
    mutex_.unlock();
  }

 private:
  // A thread that forks while it holds the lock keeps it, in the child as well.
  void before_fork() override {
    held_by_forking_ = owner_.load(std::memory_order_relaxed) == pthread_self();
    if (!held_by_forking_) mutex_.lock();
  }
  void after_fork(bool) override {
    if (!held_by_forking_) mutex_.unlock();
  }

  std::mutex mutex_;
  std::atomic<pthread_t> owner_{0};  // 0: nobody
  bool held_by_forking_ = false;
};

class ResetMutex final : AtFork {
 public:
  ResetMutex() { watch_forks(); }
  ~ResetMutex() { ignore_forks(); }
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  void before_fork() override {}
  void after_fork(bool in_child) override {
    if (in_child) new (&mutex_) std::mutex;
  }

  std::mutex mutex_;
};

// Returns the process's only T, which the first call makes. Threads that call it at once may make
// several, all but one of which are destroyed again. The one is never destroyed, since threads may
// be inside calls when the process ends.
// A static variable of a function would not do: if another thread is initialising it at a fork, the
// child waits for that thread for ever.
template <class T>
T& only(std::atomic<T*>& made) {
  T* one = made.load(std::memory_order_acquire);
  if (one != nullptr) return *one;
  auto mine = std::make_unique<T>();
  return made.compare_exchange_strong(one, mine.get()) ? *mine.release() : *one;
}

}  // namespace attnrt::core
