// tests/runtime/probe_test.cpp: fakes in attnrt-probe, and programs that are no attnrt-probe
#include "probe.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "support/load_fixture.hpp"
#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using enum AdmissionLevel;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Clock = std::chrono::steady_clock;

const auto kGoOn = [] { return false; };

// Waits up to 20 s for a file of at least one byte.
bool appears(const std::filesystem::path& file) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  std::error_code error;
  while (!(std::filesystem::file_size(file, error) > 0 && !error)) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

struct ProbeTest : testing::Test {
  std::shared_ptr<const FoundPlugin> found(const std::string& name) {
    directory.add(name);
    const auto all = discover({directory.text()});
    for (const auto& plugin : all->plugins)
      if (plugin->path.ends_with("/" + name + ".so")) return plugin;
    throw std::runtime_error(name + " is not found");
  }
  Result<ProbeResult> probed(const std::string& name, AdmissionLevel level = loads,
                             const std::string& program = ATTNRT_PROBE) {
    return probe(program, *found(name), level, {}, environment_of_probe(), kGoOn);
  }
  // A program in the place of attnrt-probe.
  std::string script(const std::string& name, const std::string& text) const {
    const auto path = directory.write(name, "#!/bin/sh\n" + text);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  std::string reason(const std::string& name, AdmissionLevel level = loads) {
    const auto result = probed(name, level);
    if (!result) return "error: " + result.error().message;
    return result->passed ? "passed" : result->reason;
  }
  fakes::Directory directory;
};

TEST_F(ProbeTest, APluginThatLoadsPasses) {
  EXPECT_EQ(reason("fake_full"), "passed");
  EXPECT_EQ(reason("fake_minimal"), "passed");
  EXPECT_EQ(reason("fake_newer"), "passed")
      << "what its manifest says to newer runtimes is no fault";
  EXPECT_EQ(reason("fake_two_symbols"), "passed") << "another symbol harms nobody";
  EXPECT_EQ(reason("fake_no_devices"), "passed");
}

TEST_F(ProbeTest, APluginThatEndsItsProcessFails) {
  EXPECT_THAT(reason("fake_aborts"), StartsWith("ABI-3: the process ended by signal 6 (Aborted)"));
}

TEST_F(ProbeTest, APluginThatCannotBeLoadedFails) {
  EXPECT_THAT(reason("fake_undefined_symbol"), StartsWith("ABI-3: cannot be loaded: "));
  EXPECT_THAT(reason("fake_short"), StartsWith("ABI-4: "));
  EXPECT_THAT(reason("fake_other_name"), StartsWith("ABI-5: "));
  EXPECT_THAT(reason("fake_open_fails"), StartsWith("ABI-7: open without options: internal error"));
}

TEST_F(ProbeTest, APluginThatChangesTheProcessFails) {
  EXPECT_THAT(reason("fake_chdir"), StartsWith("ABI-12: folder was "));
}

TEST_F(ProbeTest, OnlyTheHigherLevelRunsThePlugin) {
  if (kThreadSanitizer) GTEST_SKIP() << "the rules take minutes under ThreadSanitizer";
  EXPECT_EQ(reason("fake_bad_crash"), "passed");
  // A sanitizer ends the process in its own way.
  EXPECT_THAT(reason("fake_bad_crash", conforms),
              testing::AnyOf(HasSubstr("the process ended by signal"), HasSubstr("exit(1)")));
  EXPECT_THAT(reason("fake_bad_rough", conforms), StartsWith("ACC-"));
  EXPECT_EQ(reason("fake_full", conforms), "passed");
}

TEST_F(ProbeTest, ThePolicysOptionsAreTried) {
  const auto plugin = found("fake_full");
  const auto result = probe(ATTNRT_PROBE, *plugin, loads, {{"nonsense", "1"}}, {}, kGoOn);
  ASSERT_TRUE(result);
  EXPECT_THAT(result->reason, StartsWith("ABI-7: open with the policy's options: "));
}

TEST_F(ProbeTest, AProgramThatIsMissingIsAnError) {
  for (const char* program : {"", "/nonexistent/attnrt-probe", "/etc/passwd"}) {
    const auto result = probed("fake_full", loads, program);
    ASSERT_FALSE(result) << program;
    EXPECT_EQ(result.error().code, ATTNRT_UNSUPPORTED) << program;
  }
}

TEST_F(ProbeTest, AnotherProgramIsAnError) {
  const auto silent = probed("fake_full", loads, "/bin/true");
  ASSERT_FALSE(silent);
  EXPECT_THAT(silent.error().message, HasSubstr("answered nothing; expected \"attnrt-probe 1\""));
  const auto script = directory.write("other", "#!/bin/sh\necho attnrt-probe 2 >&4\n");
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const auto other = probed("fake_full", loads, script);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("expected \"attnrt-probe 1\""));
}

TEST_F(ProbeTest, AProgramThatIsKilledHoldsItAgainstThePlugin) {
  const auto script = directory.write("killed", "#!/bin/sh\necho attnrt-probe 1 >&4\nkill -9 $$\n");
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const auto result = probed("fake_full", loads, script);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_FALSE(result->passed);
  EXPECT_THAT(result->reason, HasSubstr("was killed, or hung"));
}

// An application that forks at the wrong moment has a child that keeps the program's end of the
// answers, so that they never end. Here another process of the program keeps it.
TEST_F(ProbeTest, TheEndOfTheProgramIsSeenThoughItsAnswersGoOn) {
  const auto program = script("killed", "echo attnrt-probe 1 >&4\nsleep 15 &\nkill -9 $$\n");
  const auto start = Clock::now();
  const auto result = probed("fake_full", loads, program);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_THAT(result->reason, HasSubstr("was killed, or hung"));
  EXPECT_FALSE(result->timed_out);
}

TEST_F(ProbeTest, WhatWasAnsweredBeforeTheEndCounts) {
  const auto program = script(
      "quick", "echo attnrt-probe 1 >&4\nsleep 15 &\nprintf 'pass ABI-3\\nend pass\\n' >&4\n");
  const auto result = probed("fake_full", loads, program);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_TRUE(result->passed);
}

TEST_F(ProbeTest, ARuleThatWasStoppedAtItsDeadlineIsNoOtherFailure) {
  const auto timed_out = [&](const std::string& answers) {
    const auto result =
        probed("fake_full", loads,
               script("answers", "printf 'attnrt-probe 1\\n" + answers + "end fail\\n' >&4\n"));
    return result->reason + (result->timed_out ? ", late" : "");
  };
  EXPECT_EQ(timed_out("pass ABI-3\\nlate ABI-7 too slow\\n"), "ABI-7: too slow, late");
  EXPECT_EQ(timed_out("fail ABI-7 wrong\\n"), "ABI-7: wrong");
  EXPECT_EQ(timed_out("late ABI-7 too slow\\nfail ABI-8 wrong\\n"), "ABI-7: too slow");
  EXPECT_EQ(timed_out("fail ABI-7 wrong\\nlate ABI-8 too slow\\n"), "ABI-7: wrong");
}

TEST_F(ProbeTest, APluginThatHangsIsLate) {
  const auto result = probed("fake_open_hangs");
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_THAT(result->reason, StartsWith("ABI-7: it did not end within 9 s"));
  EXPECT_TRUE(result->timed_out);
  EXPECT_FALSE(probed("fake_aborts")->timed_out);
}

// Other users can see the arguments of a program.
TEST_F(ProbeTest, OptionsAreNoArguments) {
  const auto seen = directory.path() / "seen";
  const auto program = script("shows", "echo \"$@\" > " + seen.string() + "\ntr '\\0' ';' <&5 >> " +
                                           seen.string() + "\necho attnrt-probe 1 >&4\n");
  const auto plugin = found("fake_full");
  ASSERT_TRUE(probe(program, *plugin, loads, {{"note", "a secret"}, {"empty", ""}}, {}, kGoOn));
  const std::string text = fakes::read_file(seen);
  const std::string arguments = text.substr(0, text.find('\n'));
  EXPECT_THAT(arguments, StartsWith("loads "));
  EXPECT_THAT(arguments, HasSubstr("fake_full.so"));
  EXPECT_THAT(arguments, testing::Not(HasSubstr("secret")));
  EXPECT_EQ(text.substr(text.find('\n') + 1), "note;a secret;empty;;");
}

TEST_F(ProbeTest, OptionsReachThePlugin) {
  const auto plugin = found("fake_full");
  const auto result =
      probe(ATTNRT_PROBE, *plugin, loads, {{"note", ""}}, environment_of_probe(), kGoOn);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->passed) << result->reason;
}

TEST_F(ProbeTest, LeavesNoDescriptorAndNoProcess) {
  found("fake_full");
  (void)probed("fake_full");
  const size_t before = open_descriptors();
  (void)probed("fake_full");
  (void)probed("fake_aborts");
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(ProbeTest, TheApplicationMayIgnoreItsChildren) {
  struct sigaction before {
  }, ignore{};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGCHLD, &ignore, &before), 0);
  const std::string good = reason("fake_full"), bad = reason("fake_aborts");
  ASSERT_EQ(sigaction(SIGCHLD, &before, nullptr), 0);
  EXPECT_EQ(good, "passed");
  EXPECT_THAT(bad, HasSubstr("signal 6"));
}

TEST_F(ProbeTest, TheApplicationMayWaitForEveryChild) {
  found("fake_full"), found("fake_aborts");
  std::atomic<bool> stop = false;
  std::atomic<int> taken = 0;
  std::thread waits([&] {
    while (!stop) {
      if (waitpid(-1, nullptr, WNOHANG) > 0) ++taken;
      std::this_thread::yield();
    }
  });
  // Who of the two gets a child's end is a race.
  for (int round = 0; round < 20 && taken == 0; ++round) {
    EXPECT_EQ(reason("fake_full"), "passed");
    EXPECT_THAT(reason("fake_aborts"), HasSubstr("signal 6"));
    const auto start = Clock::now();
    const auto killed = probed(
        "fake_full", loads, script("killed", "echo attnrt-probe 1 >&4\nsleep 15 &\nkill -9 $$\n"));
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(10)) << "its end is seen";
    EXPECT_THAT(killed->reason, HasSubstr("was killed, or hung"));
  }
  stop = true;
  waits.join();
  EXPECT_GE(taken, 1) << "else nothing was tested";
}

// Else the program would be killed only after a while, and what it started would be left behind.
TEST_F(ProbeTest, TheProgramSeesThatNobodyListensThoughAForkedChildCould) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own locks and threads do not survive a fork";
  const auto ready = directory.path() / "ready", seen = directory.path() / "seen";
  const auto program = script("waits", "echo attnrt-probe 1 >&4\necho x > " + ready.string() +
                                           "\nread x <&4\necho x > " + seen.string() + "\n");
  std::atomic<bool> cancelled = false;
  pid_t child = -1;
  std::thread forks([&] {
    if (appears(ready)) child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    cancelled = true;
  });
  (void)probe(program, *found("fake_full"), loads, {}, {}, [&] { return cancelled.load(); });
  forks.join();
  ASSERT_GT(child, 0);
  EXPECT_TRUE(std::filesystem::exists(seen)) << "it was killed instead";
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// An application that ends, and leaves a child that it forked during the probe.
TEST_F(ProbeTest, TheProgramEndsWithTheApplicationThatStartedIt) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own locks and threads do not survive a fork";
  const auto number = directory.path() / "number";
  // The file appears with its number.
  const auto program =
      script("records", "echo $$ > " + number.string() + ".new\nmv " + number.string() + ".new " +
                            number.string() + "\nexec " + std::string(ATTNRT_PROBE) + " \"$@\"\n");
  const auto plugin = found("fake_bad_hang");
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const pid_t application = fork();
  if (application == 0) {
    std::thread([&] { (void)probe(program, *plugin, conforms, {}, {}, kGoOn); }).detach();
    const bool started = appears(number);
    const pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    std::ofstream(directory.path() / "child") << child;
    _exit(started ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(application, &status, 0), application);
  EXPECT_EQ(status, 0);
  pid_t left = 0, child = 0;
  std::ifstream(number) >> left;
  std::ifstream(directory.path() / "child") >> child;
  ASSERT_GT(child, 0);
  ASSERT_GT(left, 0);
  // Long before the deadline of a plugin that hangs, 30 s.
  const auto deadline = Clock::now() + std::chrono::seconds(15);
  pid_t ended = 0;
  while ((ended = waitpid(left, nullptr, WNOHANG)) == 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ended, left) << "the program runs on";
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  if (ended == 0) kill(left, SIGKILL);
}

TEST_F(ProbeTest, IsCancelledWithinASecond) {
  const auto script = directory.write("slow", "#!/bin/sh\necho attnrt-probe 1 >&4\nsleep 60\n");
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  std::atomic<bool> cancelled = false;
  std::thread cancels([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancelled = true;
  });
  const auto start = std::chrono::steady_clock::now();
  const auto result =
      probe(script, *found("fake_full"), loads, {}, {}, [&] { return cancelled.load(); });
  cancels.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ATTNRT_INTERNAL) << "it says nothing about the plugin";
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// What only this process's own files are for does not reach the plugin's process.
TEST_F(ProbeTest, PassesOnFewVariablesAndNoDescriptors) {
  const Variable secret("SECRET_OF_THE_APPLICATION", "1"), devices("CUDA_VISIBLE_DEVICES", "none");
  const auto out = directory.path() / "seen";
  const auto script =
      directory.write("shows", "#!/bin/sh\n(env; ls /proc/self/fd) > " + out.string() +
                                   "\necho attnrt-probe 1 >&4\necho end pass >&4\n");
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  ASSERT_TRUE(probed("fake_full", loads, script));
  const std::string seen = fakes::read_file(out);
  EXPECT_THAT(seen, HasSubstr("CUDA_VISIBLE_DEVICES=none"));
  EXPECT_THAT(seen, testing::Not(HasSubstr("SECRET_OF_THE_APPLICATION")));
}

}  // namespace
}  // namespace attnrt::core
