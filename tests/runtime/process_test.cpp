// tests/runtime/process_test.cpp: forks and the end of the process, while threads are inside calls
#include <attnrt/attnrt.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "fakes/fakes.hpp"
#include "support/sanitized.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;

constexpr unsigned kWatchdogSeconds = 30;
constexpr int kThreads = 3;  // that call while another one forks or ends the process

// Runs `body` in a child, which a watchdog ends if it hangs. Returns how the child ended: 0 if by
// exit code 0.
int ending_of_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    alarm(kWatchdogSeconds);
    _exit(body());
  }
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

class Process : public ::testing::Test {
 protected:
  Process() {
    std::filesystem::copy_file(cpu_plugin(), directory.path() / "cpu.so");
    directory.add("fake_rocm");
    attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
    options.thread_count = 2;
    options.policy_text = "schema: 1\nbackends: {fake_rocm: {priority: 1}}\nstaging: allow\n";
    options.plugin_path = directory.path().c_str();
    options.log = [](void*, int32_t, const char*) {};
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_runtime_open(&options, &runtime, &error) != ATTNRT_OK)
      throw std::runtime_error(error.message);
  }

  ~Process() override { attnrt_runtime_close(runtime); }

  // Enough heads and rows that the pool's threads take part. Returns "" or what is wrong.
  std::string failure(const char* backend = "cpu", int64_t seq = 8) const {
    Attention a({.seq_q = seq, .seq_kv = seq, .heads_q = 4, .heads_kv = 2});
    const attnrt_call call{sizeof(attnrt_call), 0, backend};
    attnrt_error error = ATTNRT_ERROR_INIT;
    if (attnrt_attention(runtime, &a.problem, &a.args, &call, &error) != ATTNRT_OK)
      return error.message;
    return largest_error(a.problem, a.args) < kTolerance ? "" : "wrong result";
  }

  // Calls from several threads until `work` has returned. One of them reloads and lists.
  void while_others_call(const std::function<void()>& work) const {
    std::atomic<bool> stop = false;
    std::atomic<int> calls = 0, wrong = 0;
    std::vector<std::thread> threads;
    for (int n = 0; n < kThreads; ++n) {
      threads.emplace_back([&, n] {
        for (int64_t round = 0; !stop; ++round) {
          // Other problems each time: decisions, plans and backends are made as well.
          if (!failure("cpu", 1 + round % 40).empty()) ++wrong;
          if (n == 0) attnrt_runtime_reload(runtime, nullptr);
          ++calls;
        }
      });
    }
    while (calls < kThreads) std::this_thread::yield();
    work();
    stop = true;
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
  }

  fakes::Directory directory;
  attnrt_runtime* runtime = nullptr;
};

#define SKIP_FORKS_OF_THREADS() \
  if (kSanitized) GTEST_SKIP() << kNoForksOfThreads

TEST_F(Process, AChildCallsWhileOtherThreadsOfTheParentDo) {
  SKIP_FORKS_OF_THREADS();
  constexpr int kForks = 150;
  int bad = 0;
  while_others_call([&] {
    for (int n = 0; n < kForks; ++n) {
      bad += ending_of_child([this] { return failure().empty() && failure().empty() ? 0 : 1; }) != 0
                 ? 1
                 : 0;
    }
  });
  EXPECT_EQ(bad, 0) << "of " << kForks << " children";
}

TEST_F(Process, AChildReloadsListsAndCallsFromThreadsOfItsOwn) {
  SKIP_FORKS_OF_THREADS();
  constexpr int kForks = 40;
  int bad = 0;
  while_others_call([&] {
    for (int n = 0; n < kForks; ++n) {
      const int ended = ending_of_child([this] {
        if (attnrt_runtime_reload(runtime, nullptr) != ATTNRT_OK) return 1;
        char* text = nullptr;
        if (attnrt_plugins(runtime, ATTNRT_TEXT, &text, nullptr) != ATTNRT_OK) return 2;
        attnrt_text_free(text);
        std::atomic<int> wrong = 0;
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t)
          threads.emplace_back([&] { wrong += failure().empty() ? 0 : 1; });
        for (auto& thread : threads) thread.join();
        attnrt_runtime_close(runtime);
        return wrong == 0 ? 0 : 3;
      });
      bad += ended != 0 ? 1 : 0;
    }
  });
  EXPECT_EQ(bad, 0) << "of " << kForks << " children";
}

TEST_F(Process, AGrandchildWorks) {
  SKIP_FORKS_OF_THREADS();
  while_others_call([&] {
    EXPECT_EQ(ending_of_child([this] {
                if (!failure().empty()) return 1;
                return ending_of_child([this] { return failure().empty() ? 0 : 1; });
              }),
              0);
  });
}

TEST_F(Process, ADeviceThatWasOpenedBeforeAForkIsRefusedInTheChild) {
  ASSERT_EQ(failure("fake_rocm"), "");
  EXPECT_EQ(ending_of_child([this] {
              const std::string refused = failure("fake_rocm");
              if (refused.find("opened before this process was forked") == std::string::npos)
                return 1;
              if (!failure(nullptr).empty()) return 2;  // the cpu serves instead
              attnrt_runtime_close(runtime);            // and closing calls nothing either
              return 0;
            }),
            0);
  EXPECT_EQ(failure("fake_rocm"), "") << "the parent goes on";
}

TEST_F(Process, ADeviceThatAChildOpensIsItsOwn) {
  EXPECT_EQ(ending_of_child([this] { return failure("fake_rocm").empty() ? 0 : 1; }), 0);
}

// main returns, so static objects are destroyed, while threads are inside calls.
// The forks are of one thread, which AddressSanitizer can follow.
TEST_F(Process, EndsWhileThreadsAreInsideCalls) {
  if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer does not follow a child's threads";
  constexpr int kRounds = 60;
  int bad = 0;
  for (int round = 0; round < kRounds; ++round) {
    const int ended = ending_of_child([this, round]() -> int {
      std::atomic<int> calls = 0;
      for (int n = 0; n < kThreads; ++n) {
        std::thread([this, &calls] {
          for (int64_t at = 0;; ++at) {
            if (!failure("cpu", 1 + at % 40).empty()) abort();
            ++calls;
          }
        }).detach();
      }
      while (calls < kThreads + round % 7) std::this_thread::yield();
      // What exit runs after this goes on while the threads call, for as long as they like.
      std::exit(0);
    });
    bad += ended != 0 ? 1 : 0;
  }
  EXPECT_EQ(bad, 0) << "of " << kRounds << " processes";
}

}  // namespace
}  // namespace attnrt::core
