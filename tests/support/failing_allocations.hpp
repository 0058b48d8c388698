// tests/support/failing_allocations.hpp: tries a call once for each of its allocations, which fails
//
// Each trial is a child process, so that one which dies or hangs is counted. As allocations.hpp, it
// is included in one source file of a test. Under a sanitizer can_fail_allocations is false.
//
//     const FailureCounts counts = fail_each_allocation(Failing::once, [&](const Armed& armed) {
//       const attnrt_status status = armed.run([&] { return attnrt_runtime_reload(...); });
//       ...                                   // allocations succeed again
//       return status == ATTNRT_OUT_OF_MEMORY ? Trial::out_of_memory : Trial::unexpected;
//     });
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "support/allocations.hpp"

namespace attnrt::core::support {

#ifdef ATTNRT_TEST_SANITIZED
inline constexpr bool can_fail_allocations = false;
#else
inline constexpr bool can_fail_allocations = true;
#endif

enum class Failing {
  once,     // one allocation fails
  lasting,  // that one and all later ones fail
};

// How one trial ended.
enum class Trial : int {
  succeeded,      // although an allocation failed
  out_of_memory,  // said so, and everything was usable afterwards
  lost,           // something was unusable afterwards
  unexpected      // another error
};

struct FailureCounts {
  int allocations = 0;  // of the work when none fails; there were as many trials
  int succeeded = 0, out_of_memory = 0, lost = 0, unexpected = 0;
  int died = 0, hung = 0;
  std::string
      first_bad;  // the number of the first allocation whose failure was not survived, and how
  std::string text() const {
    return "of " + std::to_string(allocations) +
           " failed allocations: " + std::to_string(succeeded) + " succeeded, " +
           std::to_string(out_of_memory) + " out of memory, " + std::to_string(lost) + " lost, " +
           std::to_string(unexpected) + " unexpected, " + std::to_string(died) + " died, " +
           std::to_string(hung) + " hung" + (first_bad.empty() ? "" : "; first: " + first_bad);
  }
};

// Fails one allocation, or all from it on, of what run() does on this thread.
class Armed {
 public:
  Armed(Failing kind, int64_t number, bool* happened)
      : kind_(kind), number_(number), happened_(happened) {}
  template <class Work>
  auto run(Work&& work) const {
    const FailingAllocation failing(number_, kind_ == Failing::lasting);
    auto result = work();
    *happened_ = failing.happened();
    return result;
  }

 private:
  Failing kind_;
  int64_t number_;
  bool* happened_;
};

// Calls trial(armed) in one child process for each allocation that it makes inside armed.run.
// REQUIRES: this process has one thread.
template <class TrialFunction>
FailureCounts fail_each_allocation(Failing kind, TrialFunction&& trial, unsigned seconds = 20) {
  constexpr int kNotFired = 16;  // added to the exit code: the work makes fewer allocations
  FailureCounts counts;
  for (int number = 1;; ++number) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) throw std::runtime_error("fork");
    if (child == 0) {
      alarm(seconds);
      bool happened = false;
      const Trial ended = trial(Armed(kind, number, &happened));
      _exit(static_cast<int>(ended) + (happened ? 0 : kNotFired));
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) / kNotFired == 1) return counts;
    counts.allocations = number;
    std::string bad;
    if (WIFSIGNALED(status)) {
      ++(WTERMSIG(status) == SIGALRM ? counts.hung : counts.died);
      bad = "signal " + std::to_string(WTERMSIG(status));
    } else {
      const auto ended = static_cast<Trial>(WEXITSTATUS(status));
      switch (ended) {
        case Trial::succeeded: ++counts.succeeded; break;
        case Trial::out_of_memory: ++counts.out_of_memory; break;
        case Trial::lost: ++counts.lost, bad = "lost"; break;
        case Trial::unexpected: ++counts.unexpected, bad = "unexpected"; break;
        default: ++counts.died, bad = "exit " + std::to_string(WEXITSTATUS(status)); break;
      }
    }
    if (!bad.empty() && counts.first_bad.empty())
      counts.first_bad = std::to_string(number) + " (" + bad + ")";
  }
}

}  // namespace attnrt::core::support
