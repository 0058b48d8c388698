// tests/runtime/process_test.cpp: forks and the end of the process, while threads are inside calls
#include <attnrt/attnrt.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
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
constexpr int kThreads = 3;      // that call while another one forks or ends the process
constexpr int kProcesses = 100;  // that fork while they do something for the first time

// Starts a child that runs `body`. A watchdog ends it if it hangs.
pid_t start_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    alarm(kWatchdogSeconds);
    _exit(body());
  }
  return child;
}

// Waits for the child, and returns how it ended: 0 if by exit code 0.
int ending_of(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

int ending_of_child(const std::function<int()>& body) { return ending_of(start_child(body)); }

// Opens a runtime on the plugins in the folder.
attnrt_runtime* opened(const fakes::Directory& directory) {
  attnrt_runtime_options options = ATTNRT_RUNTIME_OPTIONS_INIT;
  options.thread_count = 2;
  options.policy_text = "schema: 1\nbackends: {fake_rocm: {priority: 1}}\nstaging: allow\n";
  options.plugin_path = directory.path().c_str();
  options.log = [](void*, int32_t, const char*) {};
  attnrt_runtime* runtime = nullptr;
  attnrt_error error = ATTNRT_ERROR_INIT;
  if (attnrt_runtime_open(&options, &runtime, &error) != ATTNRT_OK)
    throw std::runtime_error(error.message);
  return runtime;
}

// How many of `kProcesses` processes fail in which one thread calls `first`, which does something
// for the first time in its process, while another one forks children that call `in_child`. The
// forks come at all times of it.
int bad_of_forks_while(const std::function<bool()>& first, const std::function<bool()>& in_child) {
  constexpr int kChildren = 5;
  constexpr std::chrono::microseconds kStep{10};
  int bad = 0;
  for (int n = 0; n < kProcesses; ++n) {
    bad += ending_of_child([&] {
             std::atomic<int> wrong = 0;
             std::thread other([&] { wrong += first() ? 0 : 1; });
             std::vector<pid_t> children;
             for (int forks = 0; forks < kChildren; ++forks) {
               std::this_thread::sleep_for(n * kStep);
               children.push_back(start_child([&] { return in_child() ? 0 : 1; }));
             }
             for (const pid_t child : children) wrong += ending_of(child) == 0 ? 0 : 1;
             other.join();
             return wrong.load();
           }) != 0;
  }
  return bad;
}

class Process : public ::testing::Test {
 protected:
  Process() {
    directory.copy(cpu_plugin(), "cpu.so");
    directory.add("fake_rocm");
    runtime = opened(directory);
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

TEST_F(Process, AChildCallsWhileTheParentsFirstCallLoadsTheBackend) {
  SKIP_FORKS_OF_THREADS();
  const auto call = [this] { return failure().empty(); };
  EXPECT_EQ(bad_of_forks_while(call, call), 0) << "of " << kProcesses << " processes";
}

// Not of Process, which opens a runtime before.
TEST(ProcessWithoutRuntime, AChildOpensOneWhileTheParentOpensTheFirst) {
  SKIP_FORKS_OF_THREADS();
  fakes::Directory directory;
  directory.add("fake_rocm");
  const auto open = [&] {
    attnrt_runtime_close(opened(directory));
    return true;
  };
  EXPECT_EQ(bad_of_forks_while(open, open), 0) << "of " << kProcesses << " processes";
}

// What a child can do although it has the loader in the middle of another thread's work.
TEST_F(Process, AChildCallsALoadedBackendWhileTheParentUsesTheLoader) {
  SKIP_FORKS_OF_THREADS();
  constexpr int kForks = 150;
  ASSERT_EQ(failure(), "") << "loads the backend";
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) dlclose(dlopen(fakes::fake("fake_full").c_str(), RTLD_NOW | RTLD_LOCAL));
  });
  int bad = 0;
  for (int n = 0; n < kForks; ++n)
    bad += ending_of_child([this] { return failure().empty() ? 0 : 1; }) != 0 ? 1 : 0;
  stop = true;
  other.join();
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
