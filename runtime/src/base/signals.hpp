// runtime/src/base/signals.hpp: keeps signals away from this thread for a while
#pragma once

#include <signal.h>

#include <cerrno>
#include <initializer_list>

namespace attnrt::core {

// While it lives, a write of this thread that is beyond RLIMIT_FSIZE (memory files count, too)
// fails with EFBIG and raises no SIGXFSZ, which would end the process. The application's handler
// and the mask of the thread are as before afterwards.
class NoFileSizeSignal {
 public:
  NoFileSizeSignal() {
    sigset_t pending;
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGXFSZ);
    was_pending_ = sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 1;
    blocked_ = pthread_sigmask(SIG_BLOCK, &signal_, &mask_) == 0;
  }
  NoFileSizeSignal(const NoFileSizeSignal&) = delete;
  NoFileSizeSignal& operator=(const NoFileSizeSignal&) = delete;
  ~NoFileSizeSignal() {
    if (!blocked_) return;
    const int error = errno;  // of the write, for its caller
    const timespec now{};
    // One that was pending before is the application's, and stays pending.
    while (!was_pending_ && sigtimedwait(&signal_, nullptr, &now) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    errno = error;
  }

 private:
  sigset_t signal_{}, mask_{};
  bool was_pending_ = false, blocked_ = false;
};

// Blocks the signals that are for the application's own threads. Those that report a fault of the
// thread itself stay as they are, so that the application's reports of crashes work.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
      sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace attnrt::core
