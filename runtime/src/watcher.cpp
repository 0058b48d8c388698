// runtime/src/watcher.cpp: reloads when watched files have changed, in a thread or when asked to
#include "watcher.hpp"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <utility>

#include "base/signals.hpp"

namespace attnrt::core {
namespace {

// When a reload could not look (descriptors or memory ran out, a directory is missing), it is tried
// again after a second, then after twice as long each time.
constexpr std::chrono::seconds kFirstWait{1};
constexpr std::chrono::seconds kLongestWait{60};

Result<void> out_of_memory() { return fail(ATTNRT_OUT_OF_MEMORY, "out of host memory"); }

}  // namespace

Watcher::Watcher(WatchTimes times, std::function<Result<void>()> reload, Log log)
    : times_(times), reload_(std::move(reload)), log_(std::move(log)) {}

Watcher::~Watcher() {
  if (inherited()) {
    // Lost, not destroyed: the parent's thread may have been changing it.
    [[maybe_unused]] const auto* lost = new (std::nothrow) std::shared_ptr(std::move(watch_));
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;  // the thread's own reload makes no other watch
    end_watch();
  }
  join_thread();
}

std::shared_ptr<Watch> Watcher::watch() {
  const std::lock_guard lock(mutex_);
  return watch_;
}

// Logs a warning, unless it is the same as the last one. REQUIRES: the mutex is held, or the thread
// alone uses `last`.
void Watcher::warn(std::string text, std::string& last) {
  if (!text.empty() && text != last) log_(ATTNRT_LOG_WARNING, text);
  last = std::move(text);
}

// REQUIRES, as the next two: the mutex is held.
Result<void> Watcher::open_watch() {
  auto made = Watch::open(times_);
  if (!made) return tl::unexpected(made.error());
  watch_ = *std::move(made);
  return {};
}

// The thread sees that its watch is no longer this one, and ends.
void Watcher::end_watch() {
  if (watch_) watch_->again_after(std::chrono::milliseconds(0));
  watch_.reset();
}

void Watcher::start_thread() {
  if (is_running_) return;  // it has not seen yet that its watch was ended, and takes this one
  if (is_joinable_) pthread_join(thread_, nullptr);
  is_joinable_ = false;
  const BlockedSignals blocked;
  const auto main = [](void* self) -> void* {
    static_cast<Watcher*>(self)->work();
    return nullptr;
  };
  const int error = pthread_create(&thread_, nullptr, main, this);
  is_running_ = is_joinable_ = error == 0;
  if (error == 0) return;
  watch_.reset();
  warn(fmt::format("watch: its thread cannot be started: {}; changes need a reload",
                   std::strerror(error)),
       last_gap_);
}

void Watcher::join_thread() {
  pthread_t thread{};
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(is_joinable_, false)) return;
    thread = thread_;
  }
  pthread_join(thread, nullptr);
}

void Watcher::update(bool wanted, WatchedPaths paths) {
  if (inherited()) return;
  const std::lock_guard lock(mutex_);
  paths_ = std::move(paths);
  if (is_closing_ || (!by_application_ && !wanted)) return end_watch();
  const bool is_new = watch_ == nullptr;
  if (is_new) {
    if (const auto opened = open_watch(); !opened)
      return warn(opened.error().message + "; changes need a reload", last_gap_);
  }
  warn(watch_->follow(paths_), last_gap_);
  if (is_new) start_thread();
}

void Watcher::try_again() {
  if (inherited()) return;
  if (const auto watch = this->watch()) watch->again_after(kFirstWait);
}

bool Watcher::policy_changed() {
  const auto watch = inherited() ? nullptr : this->watch();
  return watch && watch->policy_changed();
}

Result<int> Watcher::descriptor() {
  if (inherited()) {
    return fail(ATTNRT_UNSUPPORTED,
                "watch: this runtime was opened before the process forked; open one here");
  }
  int number = -1;
  {
    const std::lock_guard lock(mutex_);
    if (by_application_ && watch_) return watch_->descriptor();
    // A watch of its own: the thread may still be using the other one.
    end_watch();
    if (const auto opened = open_watch(); !opened) {
      by_application_ = false;
      return tl::unexpected(opened.error());
    }
    by_application_ = true;
    warn(watch_->follow(paths_), last_gap_);
    number = watch_->descriptor();
  }
  join_thread();
  return number;
}

Result<void> Watcher::reload_if_due(Watch& watch, bool* reloaded) {
  Result<void> done;
  try {
    if (!watch.handle()) return {};
    *reloaded = true;
    done = reload_();
  } catch (const std::bad_alloc&) {
    done = out_of_memory();
  } catch (const std::exception& exception) {
    done = fail(ATTNRT_INTERNAL, "{}", exception.what());
  }
  if (done || !says_nothing_about_the_file(done.error())) {
    failures_ = 0;
  } else {
    const auto wait = kFirstWait * (int64_t{1} << std::min<int64_t>(failures_++, 10));
    watch.again_after(std::min<std::chrono::seconds>(wait, kLongestWait));
  }
  return done;
}

Result<void> Watcher::handle_events() {
  if (inherited()) {
    return fail(ATTNRT_UNSUPPORTED,
                "watch: this runtime was opened before the process forked; open one here");
  }
  std::shared_ptr<Watch> watch;
  {
    const std::lock_guard lock(mutex_);
    if (by_application_) watch = watch_;
  }
  if (!watch) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "watch: there is no descriptor; ask for it before its events are handled");
  }
  bool reloaded = false;
  return reload_if_due(*watch, &reloaded);
}

// The thread.
void Watcher::work() {
  for (;;) {
    std::shared_ptr<Watch> watch;
    {
      const std::lock_guard lock(mutex_);
      if (!watch_ || by_application_) {
        is_running_ = false;
        return;
      }
      watch = watch_;
    }
    if (!watch->wait()) {
      log_(ATTNRT_LOG_WARNING,
           "watch: its descriptor was closed by somebody; changes need a reload");
      const std::lock_guard lock(mutex_);
      if (watch_ == watch) watch_.reset();
      continue;
    }
    if (watch != this->watch()) continue;  // it was ended
    bool reloaded = false;
    const auto done = reload_if_due(*watch, &reloaded);
    if (!reloaded && done) continue;
    if (done) {
      last_failure_.clear();
      log_(ATTNRT_LOG_INFO, "watch: reloaded, because files have changed");
    } else {
      warn(fmt::format("watch: {}; everything stays as it was", done.error().message),
           last_failure_);
    }
  }
}

}  // namespace attnrt::core
