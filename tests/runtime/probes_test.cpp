// tests/runtime/probes_test.cpp: which plugins a runtime loads, by what their probes have shown
#include "probes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "support/sanitized.hpp"
#include "support/test_runtime.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A folder with a registry, and a program that counts how often it is started.
struct Probing {
  fakes::Directory directory;

  std::string policy(const std::string& more = "") const {
    return fmt::format("admission: {{level: loads, registry: {}/registry{}}}\n", directory.text(),
                       more);
  }
  Probing() { unsetenv("ATTNRT_REGISTRY"); }  // it would replace the policy's

  // seconds: how long the program waits before it probes.
  RuntimeOptions options(const std::string& seconds = "0") const {
    const auto program = directory.write(
        "probe", fmt::format("#!/bin/sh\necho x >> {}/starts\nsleep {}\nexec {} \"$@\"\n",
                             directory.text(), seconds, ATTNRT_PROBE));
    fs::permissions(program, fs::perms::owner_all);
    RuntimeOptions options;
    options.admission_level = AdmissionLevel::loads;
    options.probe_program = program;
    return options;
  }
  size_t starts() const {
    const fs::path file = directory.path() / "starts";
    return fs::exists(file) ? fs::file_size(file) / 2 : 0;
  }
};

std::string state(const TestRuntime& runtime, size_t row = 0) {
  const auto rows = runtime->plugins(false);
  return rows.at(row).state + ": " + rows.at(row).reason;
}

template <class Condition>
bool soon(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return condition();
}

TEST(ProbesTest, APluginThatKillsItsProcessCostsOnlyItself) {
  const Probing probing;
  const TestRuntime runtime({"fake_aborts", "fake_full"}, probing.policy(), probing.options());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_THAT(state(runtime), HasSubstr("refused: ABI-3: the process ended by signal 6"));
  EXPECT_THAT(chosen(*runtime, kAny, "fake_aborts"), HasSubstr("signal 6"));
}

TEST(ProbesTest, TheNextRuntimeReadsTheRegistry) {
  const Probing probing;
  const auto options = probing.options();  // another program would be another machine
  for (int n = 0; n < 2; ++n) {
    const TestRuntime runtime({"fake_aborts", "fake_full"}, probing.policy(), options);
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    EXPECT_THAT(state(runtime), HasSubstr("signal 6"));
  }
  EXPECT_EQ(probing.starts(), 2);
}

// A program that answers as if the plugin hung, `times` times, and then probes it.
std::string slow_at_first(const Probing& probing, int times) {
  return fmt::format(
      "#!/bin/sh\necho x >> {0}/starts\n"
      "if [ $(wc -l < {0}/starts) -le {1} ]; then\n"
      "  printf 'attnrt-probe 1\\nlate ABI-3 it did not end within 9 s\\nend fail\\n' >&4\n"
      "else\n  exec {2} \"$@\"\nfi\n",
      probing.directory.text(), times, ATTNRT_PROBE);
}

TEST(ProbesTest, APluginThatWasSlowOnceIsAdmitted) {
  const Probing probing;
  auto options = probing.options();
  fakes::overwrite_file(probing.directory.path() / "probe", slow_at_first(probing, 1));
  const TestRuntime runtime({"fake_full"}, probing.policy(), options);
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_EQ(probing.starts(), 2);
}

TEST(ProbesTest, APluginThatIsLateTwiceIsRefusedAndThatIsKept) {
  const Probing probing;
  auto options = probing.options();
  fakes::overwrite_file(probing.directory.path() / "probe", slow_at_first(probing, 2));
  for (int n = 0; n < 2; ++n) {
    const TestRuntime runtime({"fake_full"}, probing.policy(), options);
    EXPECT_THAT(state(runtime), HasSubstr("refused: ABI-3: it did not end within 9 s (in each of 2 "
                                          "probes)"));
    EXPECT_EQ(probing.starts(), 2) << "the second runtime reads the registry";
  }
}

TEST(ProbesTest, APluginThatHangsIsRefused) {
  const Probing probing;
  const TestRuntime runtime({"fake_open_hangs"}, probing.policy(), probing.options());
  const auto refused = [&] {
    return state(runtime).find("it did not end within 9 s (in each of 2 probes)") !=
           std::string::npos;
  };
  EXPECT_TRUE(soon(refused)) << state(runtime);
  EXPECT_EQ(probing.starts(), 2);
}

TEST(ProbesTest, ADamagedRegistryCostsAProbe) {
  const Probing probing;
  const auto options = probing.options();  // another program would be another machine
  for (int n = 0; n < 2; ++n) {
    const TestRuntime runtime({"fake_full"}, probing.policy(), options);
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    for (const auto& file : fs::directory_iterator(probing.directory.path() / "registry"))
      fakes::overwrite_file(file, "attnrt admission 1\nstate admi");
  }
  EXPECT_EQ(probing.starts(), 2);
}

TEST(ProbesTest, WithoutARegistryResultsLiveInTheProcess) {
  const Probing probing;
  probing.directory.write("registry", "a file in the folder's place");
  const TestRuntime runtime({"fake_full"}, probing.policy(), probing.options());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_EQ(probing.starts(), 1);
}

TEST(ProbesTest, OffProbesNothing) {
  const Probing probing;
  auto options = probing.options();
  options.admission_level = AdmissionLevel::off;
  const TestRuntime runtime({"fake_full"}, "", std::move(options));
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_EQ(probing.starts(), 0);
  EXPECT_EQ(runtime->plugins(false).at(0).admission.state, Admission::State::off);
}

TEST(ProbesTest, ARetryForgetsRefusals) {
  const Probing probing;
  const TestRuntime runtime({"fake_aborts", "fake_full"}, probing.policy(), probing.options());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_THAT(state(runtime), HasSubstr("signal 6"));
  EXPECT_EQ(probing.starts(), 2);
  ASSERT_TRUE(runtime->reload());
  EXPECT_THAT(state(runtime), HasSubstr("signal 6"));
  EXPECT_EQ(probing.starts(), 2) << "a reload does not";
  runtime->retry();
  EXPECT_THAT(state(runtime), HasSubstr("signal 6"));
  EXPECT_EQ(probing.starts(), 3);
}

TEST(ProbesTest, NewBytesAreProbedWhileTheOldOnesServe) {
  const Probing probing;
  const TestRuntime runtime({"fake_versions-1.0.0"}, probing.policy(), probing.options("1"));
  ASSERT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  runtime.plugins.add("fake_versions-1.2.0", "fake_versions-1.0.0.so");
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  if (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(900)) {
    EXPECT_THAT(runtime->plugins(false).at(0).plugin->present_fault, HasSubstr("being probed"));
  }
  EXPECT_TRUE(soon([&] { return chosen(*runtime) == "fake_versions 1.2.0"; }))
      << "without another reload";
  EXPECT_EQ(runtime->plugins(false).at(0).plugin->present_fault, "");
}

TEST(ProbesTest, NewBytesThatKillTheirProcessLeaveTheOldOnesInService) {
  const Probing probing;
  const TestRuntime runtime({"fake_full"}, probing.policy(), probing.options());
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  runtime.plugins.add("fake_aborts", "fake_full.so");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  const auto fault = [&] { return runtime->plugins(false).at(0).plugin->present_fault; };
  EXPECT_TRUE(soon([&] { return fault().find("signal 6") != std::string::npos; })) << fault();
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_THAT(fault(), HasSubstr("signal 6"));
  EXPECT_EQ(probing.starts(), 2);
}

TEST(ProbesTest, ANewVersionBesideOneThatServesIsProbedInTheBackground) {
  const Probing probing;
  const TestRuntime runtime({"fake_versions-1.0.0"}, probing.policy(), probing.options("1"));
  ASSERT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  runtime.plugins.add("fake_versions-1.2.0");
  ASSERT_TRUE(runtime->reload());
  const auto start = std::chrono::steady_clock::now();
  const std::string first = chosen(*runtime);
  if (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(900)) {
    EXPECT_EQ(first, "fake_versions 1.0.0");
  }
  EXPECT_TRUE(soon([&] { return chosen(*runtime) == "fake_versions 1.2.0"; }));
}

TEST(ProbesTest, WithoutAProbeThePolicyDecides) {
  const Probing probing;
  auto options = probing.options();
  options.probe_program = "/nonexistent/attnrt-probe";
  {
    const TestRuntime runtime({"fake_full"}, probing.policy(", without_probe: refuse"), options);
    EXPECT_THAT(state(runtime), HasSubstr("attnrt-probe cannot be started: No such file"));
    EXPECT_THAT(state(runtime), HasSubstr("admission.without_probe is refuse ("));
  }
  {
    const TestRuntime runtime({"fake_full"}, probing.policy(), options);
    EXPECT_THAT(state(runtime), HasSubstr("admission.without_probe is open installed"))
        << "the folder of a test is not the library's";
  }
  const TestRuntime runtime({"fake_full"}, probing.policy(", without_probe: open"), options);
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_THAT(runtime.log(), testing::Contains(HasSubstr("loaded without a probe")));
}

// New bytes whose probe cannot be made do not start one probe after the other.
TEST(ProbesTest, AProbeThatCannotBeMadeIsNotRepeatedWithoutEnd) {
  const Probing probing;
  const TestRuntime runtime({"fake_versions-1.0.0"}, probing.policy(), probing.options());
  ASSERT_EQ(chosen(*runtime), "fake_versions 1.0.0");
  fakes::overwrite_file(
      probing.directory.path() / "probe",
      fmt::format("#!/bin/sh\necho x >> {}/starts\nexit 1\n", probing.directory.text()));
  runtime.plugins.add("fake_versions-1.2.0", "fake_versions-1.0.0.so");
  ASSERT_TRUE(runtime->reload());
  const auto fault = [&] { return runtime->plugins(false).at(0).plugin->present_fault; };
  EXPECT_TRUE(soon([&] { return fault().find("answered nothing") != std::string::npos; }))
      << fault();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LE(probing.starts(), 2);
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0");
}

TEST(ProbesTest, ClosingARuntimeEndsItsProbe) {
  const Probing probing;
  const auto start = std::chrono::steady_clock::now();
  {
    const TestRuntime runtime({"fake_versions-1.0.0"}, probing.policy(), probing.options());
    ASSERT_EQ(chosen(*runtime), "fake_versions 1.0.0");
    (void)probing.options("60");  // writes the program again
    runtime.plugins.add("fake_versions-1.2.0", "fake_versions-1.0.0.so");
    ASSERT_TRUE(runtime->reload());
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

// As when a policy is replaced in place, and read before it is whole.
TEST(ProbesTest, WhatServesGoesOnUnderAnotherRegistry) {
  const Probing probing;
  const TestRuntime runtime({"fake_full"}, probing.policy(), probing.options());
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  runtime.plugins.write("fake_full.so", "garbage");
  runtime.set_policy(
      fmt::format("threads: 2\nadmission: {{registry: {}/other}}\n", probing.directory.text()));
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  EXPECT_EQ(probing.starts(), 1);
}

TEST(ProbesTest, CallsOfManyThreadsShareOneProbe) {
  const Probing probing;
  const TestRuntime runtime({"fake_full"}, probing.policy(), probing.options());
  std::vector<std::thread> threads;
  for (int n = 0; n < 8; ++n)
    threads.emplace_back([&] { EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0"); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(probing.starts(), 1);
}

TEST(ProbesTest, AChildProbesForItself) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own locks and threads do not survive a fork";
  const Probing probing;
  const TestRuntime runtime({"fake_full", "fake_aborts"}, probing.policy(), probing.options());
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  const pid_t child = fork();
  if (child == 0) {
    const bool refused = state(runtime, 0).find("signal 6") != std::string::npos ||
                         state(runtime, 1).find("signal 6") != std::string::npos;
    _exit(refused && chosen(*runtime) == "fake_full 1.0.0" ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace attnrt::core
