// runtime/src/watcher.hpp: reloads when watched files have changed, in a thread or when asked to
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fork.hpp"
#include "base/result.hpp"
#include "watch.hpp"

namespace attnrt::core {

// Of one runtime. Until the policy or the application wants a watch, there is neither a thread nor
// a descriptor. Once the application has asked for the descriptor, there is no thread any more.
//
// Locks, in this order: the runtime's reload_mutex_, mutex_, the watch's.
//
// FORK: the watch is the parent's. In a child nothing is watched, and the parent's descriptors stay
// open until the child ends or executes another program.
// THREADS: any call from any threads at once. The thread blocks all signals but those that report
// its own faults.
class Watcher {
 public:
  using Log = std::function<void(int32_t severity, const std::string& text)>;

  // reload: reads the policy and the directories again, then calls update. log: gets the outcome of
  // the thread's reloads, and what cannot be watched.
  Watcher(WatchTimes times, std::function<Result<void>()> reload, Log log);
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  // Waits for the reload that the thread may be in.
  ~Watcher();

  // Watches what an open or a reload has found. wanted: the policy's `watch`. A watch that cannot
  // be had is a warning, and the next reload tries again. Throws std::bad_alloc; then call
  // try_again.
  // REQUIRES: one call at a time.
  void update(bool wanted, WatchedPaths paths);
  // A reload becomes due in a second.
  void try_again();
  // Whether the policy has changed since a reload began, so that half of it may have been read.
  bool policy_changed();

  // Returns the descriptor for an application's loop. The first call ends the thread, which may
  // take as long as a reload. REQUIRES: not under a lock that a reload takes.
  Result<int> descriptor();

  // Does what the descriptor was readable for: takes events, or reloads. Errors: those of a reload.
  Result<void> handle_events();

 private:
  bool inherited() const { return generation_ != fork_generation(); }
  std::shared_ptr<Watch> watch();
  Result<void> open_watch();
  void end_watch();
  void start_thread();
  void join_thread();
  void work();
  Result<void> reload_if_due(Watch& watch, bool* reloaded);
  void warn(std::string text, std::string& last);

  const WatchTimes times_;
  const std::function<Result<void>()> reload_;
  const Log log_;
  const uint32_t generation_ = fork_generation();

  ResetMutex mutex_;
  WatchedPaths paths_;
  std::shared_ptr<Watch> watch_;  // the thread works on it while it is this one
  bool by_application_ = false;
  bool is_closing_ = false;
  pthread_t thread_{};
  bool is_running_ = false;            // the thread has not begun to end
  bool is_joinable_ = false;           // it was started and not joined
  std::atomic<int64_t> failures_ = 0;  // reloads that could not look, one after another
  // Warnings that were written last, so that each cause is named once.
  std::string last_failure_, last_gap_;
};

}  // namespace attnrt::core
