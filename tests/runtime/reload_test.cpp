// tests/runtime/reload_test.cpp: plugin files that come, change and go into plans that keep what they were made for
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"
#include "run.hpp"
#include "runtime.hpp"

namespace attnrt::core {
namespace {

using fakes::Directory;
using fakes::Tiny;
using ::testing::HasSubstr;

class Reload : public ::testing::Test {
 protected:
  std::unique_ptr<Runtime> open(RuntimeOptions options = {}) {
    options.plugin_path = directory.text();
    options.thread_count = 2;
    options.log = [](int32_t, const std::string&) {};
    if (!options.policy_path) options.policy_text = "schema: 1\n";
    auto runtime = Runtime::open(std::move(options));
    if (!runtime) throw std::runtime_error(runtime.error().message);
    return std::move(*runtime);
  }

  static std::unique_ptr<Plan> plan(Runtime& runtime) {
    auto planned = runtime.plan(Tiny().problem, {});
    if (!planned) throw std::runtime_error(planned.error().message);
    return std::move(*planned);
  }

  static bool runs(const Plan& plan) {
    Tiny tiny;
    attnrt_error error = ATTNRT_ERROR_INIT;
    return run(plan, tiny.args, &error) == ATTNRT_OK && tiny.right();
  }

  Directory directory;
};

TEST_F(Reload, ANewFileIsTakenByNewPlansOnly) {
  directory.add("fake_versions-1.0.0");
  const auto runtime = open();
  const auto old_plan = plan(*runtime);
  EXPECT_EQ(old_plan->version(), "1.0.0");
  directory.add("fake_versions-1.2.0");
  EXPECT_EQ(plan(*runtime)->version(), "1.0.0");  // nobody has asked yet
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(plan(*runtime)->version(), "1.2.0");
  EXPECT_EQ(old_plan->version(), "1.0.0");
  EXPECT_TRUE(runs(*old_plan));
}

TEST_F(Reload, AFileThatWasOverwrittenIsANewPlugin) {
  const auto path = directory.add("fake_versions-1.0.0", "plugin.so");
  const auto runtime = open();
  const auto old_plan = plan(*runtime);
  fakes::overwrite_file(path, fakes::read_file(fakes::fake("fake_versions-1.2.0")));
  EXPECT_TRUE(runs(*old_plan));
  EXPECT_TRUE(runs(*plan(*runtime)));
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(plan(*runtime)->version(), "1.2.0");
  EXPECT_EQ(old_plan->version(), "1.0.0");
  EXPECT_TRUE(runs(*old_plan));
}

TEST_F(Reload, AFileThatIsGoneIsNoCandidate) {
  const auto path = directory.add("fake_full");
  const auto runtime = open();
  const auto old_plan = plan(*runtime);
  std::filesystem::remove(path);
  ASSERT_TRUE(runtime->reload());
  const auto none = runtime->plan(Tiny().problem, {});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ATTNRT_UNSUPPORTED);
  EXPECT_TRUE(runs(*old_plan));
}

TEST_F(Reload, ABrokenFileTakesNobodyElseWithIt) {
  directory.add("fake_full");
  const auto runtime = open();
  directory.write("half.so", fakes::read_file(fakes::fake("fake_minimal")).substr(0, 3000));
  ASSERT_TRUE(runtime->reload());
  EXPECT_TRUE(runs(*plan(*runtime)));
  EXPECT_EQ(runtime->plugins().size(), 2u);
}

TEST_F(Reload, AnErrorLeavesEverythingAsItWas) {
  directory.add("fake_versions-1.0.0");
  const auto policy = directory.write("policy.yaml", "schema: 1\n");
  const auto runtime = open({.policy_path = policy.string()});
  directory.add("fake_versions-1.2.0");
  fakes::overwrite_file(policy, "schema: 1\nbackend: {}\n");
  const auto failed = runtime->reload();
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("policy.yaml:2:1"));
  EXPECT_EQ(plan(*runtime)->version(), "1.0.0");
  fakes::overwrite_file(policy, "schema: 1\n");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(plan(*runtime)->version(), "1.2.0");
}

TEST_F(Reload, ThePolicyIsReadAgain) {
  directory.add("fake_versions-1.0.0");
  directory.add("fake_versions-1.2.0");
  directory.add("fake_versions-2.0.0-rc.1");
  const auto policy = directory.write("policy.yaml", "schema: 1\n");
  const auto runtime = open({.policy_path = policy.string()});
  EXPECT_EQ(plan(*runtime)->version(), "1.2.0");  // a pre-release only where it is named
  for (const auto& [range, version] : {std::pair{"<1.2", "1.0.0"}, std::pair{">=2.0.0-rc.1", "2.0.0-rc.1"}}) {
    fakes::overwrite_file(policy, fmt::format("schema: 1\nbackends: {{fake_versions: {{version: \"{}\"}}}}\n", range));
    ASSERT_TRUE(runtime->reload());
    EXPECT_EQ(plan(*runtime)->version(), version);
  }
}

TEST_F(Reload, RelativePathsMeanWhatTheyMeantAtOpen) {
  directory.add("fake_minimal");
  directory.write("policy.yaml", "schema: 1\n");
  const Directory elsewhere;
  std::filesystem::create_directory(elsewhere.path() / "plugins");
  std::filesystem::copy_file(fakes::fake("fake_full"), elsewhere.path() / "plugins" / "e.so");
  std::filesystem::create_directory(directory.path() / "plugins");
  std::filesystem::rename(directory.path() / "fake_minimal.so", directory.path() / "plugins" / "m.so");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  RuntimeOptions options;
  options.plugin_path = "plugins";
  options.policy_path = "policy.yaml";
  options.thread_count = 1;
  options.log = [](int32_t, const std::string&) {};
  auto runtime = Runtime::open(std::move(options));
  std::filesystem::current_path(elsewhere.path());
  const bool reloaded = runtime && (*runtime)->reload();
  std::filesystem::current_path(before);
  ASSERT_TRUE(reloaded);
  EXPECT_EQ(plan(**runtime)->backend_name(), "fake_minimal");
}

TEST_F(Reload, AnUnchangedFileKeepsItsBackend) {
  directory.add("fake_full");
  const auto runtime = open();
  const auto before = plan(*runtime);
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(&before->backend(), &plan(*runtime)->backend());
}

TEST_F(Reload, APlanOutlivesItsRuntime) {
  directory.add("fake_full");
  auto runtime = open();
  const auto kept = plan(*runtime);
  runtime.reset();
  EXPECT_TRUE(runs(*kept));
}

// Threads plan, run, decide and list while files come and go and the snapshot is swapped under them.
TEST_F(Reload, WhileEverybodyWorks) {
  directory.add("fake_versions-1.0.0");
  directory.add("fake_slow");
  const auto runtime = open();
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, done{0};
  std::vector<std::jthread> workers;
  for (int n = 0; n < 3; ++n) {
    workers.emplace_back([&, n] {
      while (!stop) {
        Tiny tiny;
        attnrt_error error = ATTNRT_ERROR_INIT;
        if (n == 0) {
          const auto planned = runtime->plan(tiny.problem, {});
          if (!planned || !runs(**planned)) ++wrong;
        } else if (n == 1) {
          if (runtime->attention(tiny.problem, tiny.args, {}, &error) != ATTNRT_OK || !tiny.right()) ++wrong;
        } else {
          if (runtime->decide(tiny.problem, {})->status != ATTNRT_OK || runtime->plugins().size() < 2) ++wrong;
        }
        ++done;
      }
    });
  }
  for (int round = 0; round < 20; ++round) {
    if (round % 2 == 0) {
      directory.add("fake_versions-1.2.0");
    } else {
      std::filesystem::remove(directory.path() / "fake_versions-1.2.0.so");
    }
    ASSERT_TRUE(runtime->reload());
  }
  while (done < 50) std::this_thread::yield();
  stop = true;
  workers.clear();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace attnrt::core
