// tests/runtime/probe_test.cpp: fakes in attnrt-probe, and programs that are no attnrt-probe
#include "probe.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
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

const auto kGoOn = [] { return false; };

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
