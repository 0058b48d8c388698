// tests/runtime/watcher_test.cpp: a runtime that reloads when its files have changed
#include "watcher.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "discover.hpp"
#include "run.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

namespace fs = std::filesystem;
using namespace support;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr auto kQuiet = 30ms;
constexpr auto kSoon = 20s;  // of a machine that does much else
const std::string kWatch = "watch: true\n";
const std::string kUnknownKey = "schema: 1\nplugin: {}\n";

RuntimeOptions watching(WatchTimes times = {kQuiet, 500ms}) {
  RuntimeOptions options;
  options.watch_times = times;
  return options;
}

template <class Condition>
bool comes_true(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + kSoon;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// Long enough for any reload that was due.
void let_it_reload() { std::this_thread::sleep_for(6 * kQuiet); }

bool becomes(const TestRuntime& runtime, const std::string& backend) {
  return comes_true([&] { return chosen(*runtime) == backend; });
}

std::string task(pid_t thread) { return "/proc/self/task/" + std::to_string(thread); }

std::vector<std::string> threads() {
  std::vector<std::string> all;
  for (const auto& entry : fs::directory_iterator("/proc/self/task")) all.push_back(entry.path());
  return all;
}

// Waits for it: the kernel may list a thread for a moment after it was joined.
bool thread_count_becomes(size_t count) {
  return comes_true([&] { return threads().size() == count; });
}

std::vector<std::string> warnings(const TestRuntime& runtime) {
  std::vector<std::string> found;
  for (const auto& line : runtime.log()) {
    if (line.starts_with("2: ") || line.starts_with("3: ")) found.push_back(line);
  }
  return found;
}

std::string version(const char* number) {
  return fakes::read_file(fakes::fake(std::string("fake_versions-") + number));
}

class WatcherTest : public ::testing::Test {
 protected:
  WatcherTest() {
    alarm(120);  // ends a test that waits for ever
    // With the first thread, ThreadSanitizer starts one of its own.
    pid_t first = 0;
    std::thread([&first] { first = gettid(); }).join();
    EXPECT_TRUE(comes_true([&] { return !fs::exists(task(first)); }));
  }
  ~WatcherTest() override { alarm(0); }
};

TEST_F(WatcherTest, OffByDefaultThereIsNeitherAThreadNorADescriptor) {
  const size_t threads_before = threads().size(), descriptors_before = open_descriptors();
  {
    TestRuntime runtime({"fake_full"}, "", watching());
    EXPECT_TRUE(thread_count_becomes(threads_before));
    EXPECT_EQ(open_descriptors(), descriptors_before);
    runtime.plugins.add("fake_versions-1.0.0");
    let_it_reload();
    EXPECT_EQ(runtime->plugins().size(), 1U);
  }
  {
    TestRuntime runtime({"fake_full"}, kWatch, watching());
    EXPECT_TRUE(thread_count_becomes(threads_before + 1));
    EXPECT_EQ(open_descriptors(), descriptors_before + 3);
  }
  EXPECT_TRUE(thread_count_becomes(threads_before));
  EXPECT_EQ(open_descriptors(), descriptors_before);
}

TEST_F(WatcherTest, PluginsComeChangeAndGo) {
  TestRuntime runtime({"fake_full"}, kWatch, watching());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  runtime.plugins.write("new.so", version("1.0.0"));
  EXPECT_TRUE(comes_true([&] { return runtime->plugins().size() == 2; }));
  fs::remove(runtime.plugins.path() / "fake_full.so");
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  runtime.plugins.write("new.so", version("1.2.0"));  // in place, as cp does
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.2.0"));
  runtime.plugins.write(".new", version("1.0.0"));
  fs::rename(runtime.plugins.path() / ".new", runtime.plugins.path() / "new.so");
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  EXPECT_THAT(warnings(runtime), IsEmpty());
}

TEST_F(WatcherTest, ThePolicyAndItsDirectories) {
  fakes::Directory first, second;
  first.add("fake_versions-1.0.0");
  second.add("fake_versions-1.2.0");
  fakes::Directory etc;
  const auto set_directory = [&](const fakes::Directory& directory) {
    etc.write("policy.yaml",
              "schema: 1\nwatch: true\nplugins: {directories: [" + directory.text() + "]}\n");
  };
  set_directory(first);
  RuntimeOptions options = watching();
  options.policy_path = etc.text() + "/policy.yaml";
  options.thread_count = 1;
  options.log = [](int32_t, const std::string&) {};
  const auto runtime = Runtime::open(std::move(options)).value();
  const auto becomes = [&](const std::string& backend) {
    return comes_true([&] { return chosen(*runtime) == backend; });
  };
  EXPECT_TRUE(becomes("fake_versions 1.0.0"));
  set_directory(second);
  EXPECT_TRUE(becomes("fake_versions 1.2.0"));
  fs::rename(second.path() / "fake_versions-1.2.0.so", second.path() / "no plugin");
  second.add("fake_full");
  EXPECT_TRUE(becomes("fake_full 1.0.0")) << "the watch follows the policy";
}

TEST_F(WatcherTest, ThePolicyTurnsItOffAndOn) {
  const size_t threads_before = threads().size(), descriptors_before = open_descriptors();
  TestRuntime runtime({"fake_full"}, "", watching());
  for (int round = 0; round < 20; ++round) {
    runtime.set_policy("schema: 1\nwatch: true\n");
    ASSERT_TRUE(runtime->reload());
    EXPECT_TRUE(thread_count_becomes(threads_before + 1));
    if (round % 2 == 0) {
      runtime.set_policy("schema: 1\nwatch: false\n");
      ASSERT_TRUE(thread_count_becomes(threads_before)) << round;
      ASSERT_TRUE(comes_true([&] { return open_descriptors() == descriptors_before; }));
    } else {
      // By a reload of another thread, and on again while the thread may not have ended.
      runtime.set_policy("schema: 1\nwatch: false\n");
      ASSERT_TRUE(runtime->reload());
    }
  }
  runtime.set_policy("schema: 1\nwatch: true\n");
  ASSERT_TRUE(runtime->reload());
  runtime.plugins.add("fake_versions-1.0.0");
  EXPECT_TRUE(comes_true([&] { return runtime->plugins().size() == 2; }));
}

TEST_F(WatcherTest, ABrokenPolicyLeavesTheOldOneAndIsNamedOnce) {
  TestRuntime runtime({"fake_full", "fake_versions-1.0.0"}, kWatch, watching());
  for (int n = 0; n < 3; ++n) {
    runtime.set_policy(kUnknownKey);
    EXPECT_TRUE(comes_true([&] { return !warnings(runtime).empty(); }));
    let_it_reload();
  }
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_THAT(warnings(runtime),
              ElementsAre(AllOf(StartsWith("2: watch: "), HasSubstr("plugin: unknown key"),
                                HasSubstr("; everything stays as it was"))));
  runtime.clear_log();
  runtime.set_policy("schema: [\n");
  EXPECT_TRUE(comes_true([&] { return !warnings(runtime).empty(); })) << "another cause";
  runtime.clear_log();
  runtime.set_policy("schema: 1\nwatch: true\nbackends: {fake_versions: {priority: 1}}\n");
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  runtime.set_policy("schema: [\n");
  EXPECT_TRUE(comes_true([&] { return !warnings(runtime).empty(); })) << "it was right meanwhile";
}

// A policy that is written in place is empty at first, and the watch learns of that a moment later.
TEST_F(WatcherTest, AnEmptyPolicyIsNotTaken) {
  TestRuntime runtime({"fake_full", "fake_versions-1.0.0"}, kWatch, watching());
  fakes::Directory elsewhere;
  elsewhere.write("empty", "");
  fs::rename(elsewhere.path() / "empty", runtime.policy_file());
  EXPECT_TRUE(comes_true([&] { return !warnings(runtime).empty(); }));
  EXPECT_THAT(warnings(runtime),
              ElementsAre(AllOf(StartsWith("2: watch: config: policy file"), HasSubstr(" is empty"),
                                HasSubstr("; everything stays as it was"))));
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  runtime.set_policy("schema: 1\nwatch: true\nbackends: {fake_versions: {priority: 1}}\n");
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.0.0")) << "it is still watched";
  runtime.set_policy("");
  EXPECT_TRUE(runtime->reload()) << "the application's word";
}

// The descriptor goes on, and nothing about the policy is new.
TEST_F(WatcherTest, AnEmptyPolicyThatIsInForceIsNoFailure) {
  TestRuntime runtime({"fake_full"}, kWatch, watching());
  const auto descriptor = runtime->watch();
  ASSERT_TRUE(descriptor);
  runtime.set_policy("");
  ASSERT_TRUE(runtime->reload());
  runtime.plugins.add("fake_versions-1.0.0");
  EXPECT_TRUE(comes_true([&] {
    EXPECT_TRUE(runtime->handle_events());
    return runtime->plugins().size() == 2;
  }));
}

TEST_F(WatcherTest, ABadFileIsNamedOnceAndKeepsItsLastGoodVersion) {
  TestRuntime runtime({}, kWatch, watching());
  runtime.plugins.write("plugin.so", version("1.0.0"));
  ASSERT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  runtime.plugins.write("plugin.so", "garbage");
  ASSERT_TRUE(comes_true([&] { return !warnings(runtime).empty(); }));
  for (int n = 0; n < 3; ++n) {
    runtime.plugins.write("other.so.txt", std::to_string(n));  // so that it reloads
    let_it_reload();
  }
  EXPECT_THAT(warnings(runtime), ElementsAre(HasSubstr("stays in service")));
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(warnings(runtime).size(), 2U) << "a reload by the application says it again";
}

// What a writer that makes a pause after each byte would have in the file.
TEST_F(WatcherTest, NoPrefixOfAPluginIsTaken) {
  const fakes::Directory directory;
  const auto file = directory.write("plugin.so", version("1.0.0"));
  const std::string bytes = version("1.2.0");
  auto found = discover({directory.text()});
  ASSERT_TRUE(found);
  constexpr size_t kTailInFull = 1024, kStep = 97;
  for (size_t size = 0; size < bytes.size();
       size += size + kTailInFull < bytes.size() ? kStep : 1) {
    fakes::overwrite_file(file, std::string_view(bytes).substr(0, size));
    found = discover({directory.text()}, &*found);
    ASSERT_TRUE(found) << size;
    ASSERT_EQ(found->plugins.size(), 1U);
    ASSERT_NE(found->plugins[0]->present_fault, "") << size;
    ASSERT_EQ(found->plugins[0]->manifest->version_text, "1.0.0") << size;
  }
  fakes::overwrite_file(file, bytes);
  found = discover({directory.text()}, &*found);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->plugins[0]->manifest->version_text, "1.2.0");
}

TEST_F(WatcherTest, AWriterThatPausesLongerThanTheQuietTime) {
  TestRuntime runtime({}, kWatch, watching({10ms, 50ms}));
  runtime.plugins.write("plugin.so", version("1.0.0"));
  ASSERT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  const std::string bytes = version("1.2.0");
  for (int round = 0; round < 2; ++round) {
    std::ofstream file(runtime.plugins.path() / "plugin.so", std::ios::binary);
    constexpr size_t kParts = 12;
    for (size_t part = 0; part < kParts; ++part) {
      const size_t begin = part * bytes.size() / kParts, end = (part + 1) * bytes.size() / kParts;
      file << std::string_view(bytes).substr(begin, end - begin) << std::flush;
      std::this_thread::sleep_for(60ms);
      if (part + 1 < kParts) {
        ASSERT_EQ(chosen(*runtime), round == 0 ? "fake_versions 1.0.0" : "fake_versions 1.2.0");
      }
    }
    file.close();
    ASSERT_TRUE(becomes(runtime, "fake_versions 1.2.0"));
  }
}

TEST_F(WatcherTest, OverwritingAMappedFileInPlaceDisturbsNobody) {
  TestRuntime runtime({}, kWatch, watching());
  runtime.plugins.write("plugin.so", version("1.0.0"));
  ASSERT_TRUE(becomes(runtime, "fake_versions 1.0.0"));
  const auto plan = runtime->plan(kAny, {}).value();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::thread caller([&] {
    while (!stop) {
      Attention a({.seq_q = 2, .seq_kv = 3});
      attnrt_error error = ATTNRT_ERROR_INIT;
      wrong +=
          run(*plan, a.args, &error) != ATTNRT_OK || largest_error(a.problem, a.args) > kTolerance;
      wrong += runtime->attention(a.problem, a.args, {}, &error) != ATTNRT_OK ||
               largest_error(a.problem, a.args) > kTolerance;
    }
  });
  for (int n = 0; n < 6; ++n) {
    const char* const next = n % 2 == 0 ? "1.2.0" : "1.0.0";
    runtime.plugins.write("plugin.so", "garbage");
    let_it_reload();
    runtime.plugins.write("plugin.so", version(next));
    EXPECT_TRUE(becomes(runtime, std::string("fake_versions ") + next));
  }
  stop = true;
  caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(WatcherTest, ADirectoryThatVanishesAndComesBack) {
  fakes::Directory root;
  const fs::path directory = root.path() / "plugins", away = root.path() / "away";
  fs::create_directory(directory);
  fs::copy_file(fakes::fake("fake_versions-1.0.0"), directory / "plugin.so");
  RuntimeOptions options = watching();
  options.plugin_path = directory;
  TestRuntime runtime({}, kWatch, std::move(options));
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  fs::rename(directory, away);
  EXPECT_TRUE(comes_true([&] { return !warnings(runtime).empty(); }));
  EXPECT_THAT(warnings(runtime), ElementsAre(HasSubstr("but could be read before")));
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  fs::create_directory(directory);
  fs::copy_file(fakes::fake("fake_versions-1.2.0"), directory / "plugin.so");
  EXPECT_TRUE(becomes(runtime, "fake_versions 1.2.0"));
  fs::copy_file(fakes::fake("fake_full"), directory / "another.so");
  EXPECT_TRUE(comes_true([&] { return runtime->plugins().size() == 2; }));
}

TEST_F(WatcherTest, WithoutDescriptorsItWarnsOnceAndTheRuntimeServes) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest = dup(0);
  close(lowest);
  TestRuntime runtime({"fake_full"}, "", watching());
  runtime.set_policy("schema: 1\nwatch: true\n");
  // Enough for a reload, which holds two at a time, but not for three that stay.
  const rlimit few{static_cast<rlim_t>(lowest) + 2, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto first = runtime->reload(), second = runtime->reload();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(first && second);
  EXPECT_THAT(warnings(runtime),
              ElementsAre(AllOf(StartsWith("2: watch: "), HasSubstr("Too many open files"),
                                HasSubstr("; changes need a reload"))));
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  ASSERT_TRUE(runtime->reload());
  runtime.plugins.add("fake_versions-1.0.0");
  EXPECT_TRUE(comes_true([&] { return runtime->plugins().size() == 2; })) << "it works again";
}

TEST_F(WatcherTest, TheThreadTakesNoSignalsOfTheApplication) {
  const auto before = threads();
  const TestRuntime runtime({}, kWatch, watching());
  const auto after = threads();
  const auto thread = std::find_if(after.begin(), after.end(), [&](const std::string& each) {
    return std::find(before.begin(), before.end(), each) == before.end();
  });
  ASSERT_NE(thread, after.end());
  uint64_t blocked = 0;
  const auto is_blocked = [&blocked](int signal) { return (blocked >> (signal - 1) & 1) != 0; };
  // At its very start the C library blocks all of them for a moment.
  EXPECT_TRUE(comes_true([&] {
    const std::string status = fakes::read_file(*thread + "/status");
    blocked = std::stoull(status.substr(status.find("SigBlk:") + 7), nullptr, 16);
    return !is_blocked(SIGSEGV);
  }));
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM})
    EXPECT_TRUE(is_blocked(signal)) << signal;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) EXPECT_FALSE(is_blocked(signal));
}

TEST_F(WatcherTest, ClosesAtAnyTime) {
  for (int n = 0; n < 60; ++n) {
    TestRuntime runtime({"fake_full"}, kWatch, watching({1ms, 10ms}));
    runtime.plugins.write("new.so", version("1.0.0"));
    std::this_thread::sleep_for(n * 100us);
  }
}

// ---- The application's loop ----

// Handles the events of the descriptor until a call has done what is waited for, or has failed.
template <class Condition>
Result<void> handle_until(const TestRuntime& runtime, int descriptor, Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + kSoon;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return fail(ATTNRT_INTERNAL, "it never came");
    pollfd waited{descriptor, POLLIN, 0};
    if (poll(&waited, 1, 100) <= 0) continue;
    if (auto done = runtime->handle_events(); !done) return done;
  }
  return {};
}

TEST_F(WatcherTest, ADescriptorForALoop) {
  const size_t threads_before = threads().size(), descriptors_before = open_descriptors();
  {
    TestRuntime runtime({"fake_full"}, "", watching());
    const auto unasked = runtime->handle_events();
    ASSERT_FALSE(unasked);
    EXPECT_EQ(unasked.error().code, ATTNRT_INVALID_ARGUMENT);
    const auto descriptor = runtime->watch();
    ASSERT_TRUE(descriptor);
    EXPECT_EQ(*runtime->watch(), *descriptor);
    EXPECT_TRUE(thread_count_becomes(threads_before));
    EXPECT_TRUE(runtime->handle_events());
    runtime.plugins.add("fake_versions-1.0.0");
    let_it_reload();
    EXPECT_EQ(runtime->plugins().size(), 1U) << "nothing happens without the application";
    const auto two = [&] { return runtime->plugins().size() == 2; };
    EXPECT_TRUE(handle_until(runtime, *descriptor, two));
    runtime.set_policy(kUnknownKey);
    const auto broken = handle_until(runtime, *descriptor, [] { return false; });
    ASSERT_FALSE(broken);
    EXPECT_EQ(broken.error().code, ATTNRT_INVALID_ARGUMENT);
    EXPECT_THAT(broken.error().message, HasSubstr("plugin: unknown key"));
    // Whatever the policy says about `watch`.
    runtime.set_policy("schema: 1\nwatch: true\nbackends: {fake_versions: {priority: 1}}\n");
    EXPECT_TRUE(handle_until(runtime, *descriptor,
                             [&] { return chosen(*runtime) == "fake_versions 1.0.0"; }));
    EXPECT_TRUE(thread_count_becomes(threads_before));
    runtime.set_policy("schema: 1\nwatch: false\nbackends: {fake_full: {priority: 1}}\n");
    EXPECT_TRUE(
        handle_until(runtime, *descriptor, [&] { return chosen(*runtime) == "fake_full 1.0.0"; }));
  }
  EXPECT_EQ(open_descriptors(), descriptors_before);
}

TEST_F(WatcherTest, TheDescriptorEndsTheThread) {
  const size_t threads_before = threads().size(), descriptors_before = open_descriptors();
  TestRuntime runtime({"fake_full"}, kWatch, watching());
  const auto descriptor = runtime->watch();
  ASSERT_TRUE(descriptor);
  EXPECT_TRUE(thread_count_becomes(threads_before));
  EXPECT_EQ(open_descriptors(), descriptors_before + 3);
  ASSERT_TRUE(runtime->reload());
  EXPECT_TRUE(thread_count_becomes(threads_before));
  EXPECT_EQ(*runtime->watch(), *descriptor);
}

// ---- fork ----

TEST_F(WatcherTest, AChildHasNoThreadAndTakesNoEventsFromItsParent) {
  if (kSanitized) GTEST_SKIP() << kNoForksOfThreads;
  TestRuntime runtime({"fake_full"}, kWatch, watching());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    if (threads().size() != 1) _exit(1);
    if (chosen(*runtime) != "fake_full 1.0.0") _exit(2);
    if (!runtime->reload() || threads().size() != 1) _exit(3);
    const auto descriptor = runtime->watch();
    if (descriptor || descriptor.error().code != ATTNRT_UNSUPPORTED) _exit(4);
    if (const auto done = runtime->handle_events(); done) _exit(5);
    runtime.close();
    TestRuntime own({"fake_full"}, kWatch, watching());
    if (threads().size() != 2) _exit(6);
    own.plugins.add("fake_versions-1.0.0");
    _exit(comes_true([&] { return own->plugins().size() == 2; }) ? 0 : 7);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << (WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  runtime.plugins.add("fake_versions-1.0.0");
  EXPECT_TRUE(comes_true([&] { return runtime->plugins().size() == 2; })) << "the parent goes on";
}

}  // namespace
}  // namespace attnrt::core
