// tests/support/traced_child.hpp: runs a child process, and interrupts one of its system calls
//
// Every system call counts, those of the loader and of other libraries, too. It needs ptrace and
// x86-64; can_trace() tells.
//
//     const TracedChild child = trace([&] { ...; begin_calls(); reload(); end_calls(); return 0; },
//                                     5, [&](long) { return EMFILE; });  // the fifth call fails
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace attnrt::core::support {

// Calls of no system, between which a child's calls are counted.
constexpr long kBeginCalls = 0x41747400, kEndCalls = kBeginCalls + 1;
inline void begin_calls() { syscall(kBeginCalls); }
inline void end_calls() { syscall(kEndCalls); }

struct TracedChild {
  int64_t calls = 0;      // that count, until end_calls()
  long interrupted = -1;  // the number of the call that was interrupted
  int code = -1;          // the child's exit code; -1: a signal ended it
  int signal = 0;
};

// Whether a failure of the call says something about a file, memory or a descriptor. The others,
// such as close and futex, do not fail for a reason that this process could meet.
inline bool is_interruptible(long call) {
  static constexpr long kCalls[] = {
#if defined(__x86_64__)
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_readlink,
    SYS_access,
    SYS_getdents,
#endif
    SYS_openat,
    SYS_newfstatat,
    SYS_fstat,
    SYS_statx,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_read,
    SYS_pread64,
    SYS_lseek,
    SYS_getdents64,
    SYS_mmap,
    SYS_mprotect,
    SYS_fcntl,
    SYS_pwrite64,
    SYS_write,
    SYS_ftruncate,
    SYS_memfd_create,
    SYS_prlimit64
  };
  return std::find(std::begin(kCalls), std::end(kCalls), call) != std::end(kCalls);
}

// Follows a child that has stopped itself. `act` is called before the n-th call, with its number;
// the call fails with the error that it returns, or goes on if that is 0.
class Tracer {
 public:
  Tracer(pid_t child, int64_t n, std::function<int(long)> act)
      : child_(child), n_(n), act_(std::move(act)) {}

  TracedChild follow() {
    int status = 0;
    wait(status);
    ptrace(PTRACE_SETOPTIONS, child_, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    int deliver = 0;
    for (;;) {
      ptrace(PTRACE_SYSCALL, child_, nullptr, deliver);
      wait(status);
      if (WIFEXITED(status)) return result_.code = WEXITSTATUS(status), result_;
      if (WIFSIGNALED(status)) return result_.signal = WTERMSIG(status), result_;
      deliver = 0;
      if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
        at_call();
      } else {
        deliver = WSTOPSIG(status);
      }
    }
  }

 private:
  void wait(int& status) const {
    while (waitpid(child_, &status, 0) < 0) {
      if (errno != EINTR) throw std::runtime_error("the traced child is lost");
    }
  }

  // The child stops twice for each call: before and after.
  void at_call() {
#if defined(__x86_64__)
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, child_, nullptr, &registers);
    before_ = !before_;
    if (!before_) {
      if (error_ == 0) return;
      registers.rax = static_cast<unsigned long long>(-static_cast<long long>(error_));
      ptrace(PTRACE_SETREGS, child_, nullptr, &registers);
      error_ = 0;
      return;
    }
    const auto call = static_cast<long>(registers.orig_rax);
    if (call == kBeginCalls) counts_ = true;
    if (call == kEndCalls) counts_ = false;
    if (!counts_ || !is_interruptible(call) || ++result_.calls != n_) return;
    result_.interrupted = call;
    error_ = act_(call);
    if (error_ == 0) return;
    registers.orig_rax = ~0ULL;  // no call
    ptrace(PTRACE_SETREGS, child_, nullptr, &registers);
#endif
  }

  pid_t child_;
  int64_t n_;
  std::function<int(long)> act_;
  TracedChild result_;
  bool before_ = false, counts_ = false;
  int error_ = 0;
};

// Runs body in a child, whose exit code is what it returns. n: 0: no call is interrupted.
template <class Body>
TracedChild trace(const Body& body, int64_t n = 0, std::function<int(long)> act = {}) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("no child");
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    alarm(30);
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(255);
    raise(SIGSTOP);
    _exit(body());
  }
  return Tracer(child, n, std::move(act)).follow();
}

// Whether this process may trace its children, and a call can be made to fail.
inline bool can_trace() {
#if defined(__x86_64__)
  const TracedChild child = trace(
      [] {
        begin_calls();
        const int file = open("/dev/null", O_RDONLY);
        return file < 0 && errno == ENFILE ? 7 : 8;
      },
      1, [](long) { return ENFILE; });
  return child.code == 7;
#else
  return false;
#endif
}

}  // namespace attnrt::core::support
