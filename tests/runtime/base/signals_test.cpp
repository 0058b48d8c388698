// tests/runtime/base/signals_test.cpp: writes beyond RLIMIT_FSIZE end no process
#include "base/signals.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <functional>

#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

// Runs the checks in a child with RLIMIT_FSIZE, and returns how it ended: 0 if all were right.
int ending(const std::function<bool()>& right) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit small{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &small);
    _exit(right() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// Writes more than the limit into a memory file.
bool write_too_much() {
  const int file = memfd_create("test", MFD_CLOEXEC);
  const std::array<char, 1500> bytes{};
  return write(file, bytes.data(), bytes.size()) == 1000 &&
         write(file, bytes.data(), bytes.size()) < 0 && errno == EFBIG;
}

TEST(NoFileSizeSignal, TheWriteFailsAndTheProcessGoesOn) {
  EXPECT_EQ(WTERMSIG(ending(write_too_much)), SIGXFSZ) << "without it";
  EXPECT_EQ(ending([] {
              bool failed = false;
              {
                const NoFileSizeSignal no_signal;
                failed = write_too_much();
              }
              sigset_t pending;
              sigset_t mask;
              sigpending(&pending);
              pthread_sigmask(SIG_SETMASK, nullptr, &mask);
              return failed && sigismember(&pending, SIGXFSZ) == 0 &&
                     sigismember(&mask, SIGXFSZ) == 0;
            }),
            0);
}

TEST(NoFileSizeSignal, TheApplicationsHandlerAndItsPendingSignalAreLeftAlone) {
  static volatile sig_atomic_t handled;
  handled = 0;
  EXPECT_EQ(ending([] {
              signal(SIGXFSZ, [](int) { handled = handled + 1; });
              {
                const NoFileSizeSignal no_signal;
                write_too_much();
              }
              if (handled != 0) return false;
              sigset_t mask;
              sigemptyset(&mask);
              sigaddset(&mask, SIGXFSZ);
              pthread_sigmask(SIG_BLOCK, &mask, nullptr);
              raise(SIGXFSZ);
              {
                const NoFileSizeSignal no_signal;
                write_too_much();
              }
              pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
              return handled == 1;
            }),
            0);
}

TEST(NoFileSizeSignal, ARuntimeOpensWherePluginsCannotBeCopied) {
  const fakes::Directory plugins;
  plugins.add("fake_full");
  EXPECT_EQ(ending([&plugins] {
              // Nothing can be copied, which is an error or a row, but not the end of the process.
              const auto runtime =
                  Runtime::open({.policy_text = "", .plugin_path = plugins.text()});
              return !runtime || !(*runtime)->plugins(false).empty();
            }),
            0);
}

}  // namespace
}  // namespace attnrt::core
