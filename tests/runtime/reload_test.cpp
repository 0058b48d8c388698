// tests/runtime/reload_test.cpp: reloads while plugin files come, change and go, and plans live on
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "fakes/fakes.hpp"
#include "fakes/tiny.hpp"
#include "run.hpp"
#include "runtime.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using fakes::Directory;
using fakes::Tiny;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

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

TEST_F(Reload, AnUnloadableLibraryGoesWithItsLastPlan) {
  const auto mapped = [] {
    return fakes::read_file("/proc/self/maps").find("gone_with_its_plan") != std::string::npos;
  };
  const auto path = directory.add("fake_unloadable", "gone_with_its_plan.so");
  const auto runtime = open();
  auto kept = plan(*runtime);
  std::filesystem::remove(path);
  ASSERT_TRUE(runtime->reload());
  EXPECT_TRUE(mapped());
  EXPECT_TRUE(runs(*kept));
  kept.reset();
  EXPECT_FALSE(mapped());
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

TEST_F(Reload, ABrokenFileDoesNotAffectOthers) {
  directory.add("fake_full");
  const auto runtime = open();
  directory.write("half.so", fakes::read_file(fakes::fake("fake_minimal")).substr(0, 3000));
  ASSERT_TRUE(runtime->reload());
  EXPECT_TRUE(runs(*plan(*runtime)));
  EXPECT_EQ(runtime->plugins().size(), 2u);
}

// Whether the last good version was in use or only found: its file now has bytes that are bad.
TEST_F(Reload, BadNewBytesLeaveTheLastGoodVersionInService) {
  const std::string whole = fakes::read_file(fakes::fake("fake_full"));
  const std::string half = whole.substr(0, whole.size() / 2);
  for (const bool was_used : {true, false}) {
    TestRuntime runtime({"fake_full"});
    const std::string file = runtime.plugins.text() + "/fake_full.so";
    if (was_used) {
      ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
    }
    const auto instance = runtime->snapshot()->entries.at(0);
    for (const std::string& bad : {half, std::string("text"), half}) {
      fakes::overwrite_file(file, bad);
      runtime.clear_log();
      ASSERT_TRUE(runtime->reload());
      EXPECT_THAT(runtime.log(),
                  ElementsAre(AllOf(StartsWith("2: discover: " + file + ": is "),
                                    HasSubstr("; its last good version, fake_full 1.0.0, stays in "
                                              "service"))));
      EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
      EXPECT_EQ(runtime->snapshot()->entries.at(0), instance);
    }
    const auto rows = runtime->plugins();
    EXPECT_EQ(rows.at(0).state, "ready");
    EXPECT_THAT(plugins_text(*runtime->snapshot(), rows),
                HasSubstr("the last good version; the file has new bytes, which do not serve: is"));
    const auto json = nlohmann::json::parse(plugins_json(*runtime->snapshot(), rows).text());
    EXPECT_THAT(json["plugins"][0]["present_fault"], StartsWith("is damaged"));
    // Another policy makes another instance of the last good version.
    runtime.set_policy("backends: {fake_full: {options: {note: other}}}\n");
    ASSERT_TRUE(runtime->reload());
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    EXPECT_NE(runtime->snapshot()->entries.at(0), instance);
    // Good bytes take over, and a file that is removed is removed.
    fakes::overwrite_file(file, fakes::read_file(fakes::fake("fake_minimal")));
    runtime.clear_log();
    ASSERT_TRUE(runtime->reload());
    EXPECT_THAT(runtime.log(), IsEmpty());
    EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
    fakes::overwrite_file(file, "text");
    ASSERT_TRUE(runtime->reload());
    EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
    std::filesystem::remove(file);
    ASSERT_TRUE(runtime->reload());
    EXPECT_THAT(chosen(*runtime), HasSubstr("no plugin was found"));
  }
}

// The scan finds nothing wrong with the new bytes, but they cannot be loaded.
TEST_F(Reload, NewBytesThatCannotBeLoadedLeaveTheVersionThatIsInService) {
  TestRuntime runtime({"fake_full"});
  const std::string file = runtime.plugins.text() + "/fake_full.so";
  ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
  const auto instance = runtime->snapshot()->entries.at(0);
  fakes::overwrite_file(file, fakes::read_file(fakes::fake("fake_open_fails")));
  for (int round = 0; round < 2; ++round) {
    runtime.clear_log();
    ASSERT_TRUE(runtime->reload());
    EXPECT_THAT(runtime.log(),
                ElementsAre(AllOf(HasSubstr("cannot be opened: open was told to fail; its last "
                                            "good version, fake_full 1.0.0, stays in service"))));
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    EXPECT_EQ(runtime->snapshot()->entries.at(0), instance);
    EXPECT_THAT(runtime->plugins().at(0).plugin->present_fault, HasSubstr("open was told to fail"));
  }
  fakes::overwrite_file(file, fakes::read_file(fakes::fake("fake_minimal")));
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
}

TEST_F(Reload, AFileThatNeverWasGoodIsBroken) {
  TestRuntime runtime({});
  runtime.plugins.write("bad.so", "text");
  ASSERT_TRUE(runtime->reload());
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(runtime->plugins().at(0).state, "broken");
}

TEST_F(Reload, ThePolicyIsReadAgain) {
  directory.add("fake_versions-1.0.0");
  directory.add("fake_versions-1.2.0");
  directory.add("fake_versions-2.0.0-rc.1");
  const auto policy = directory.write("policy.yaml", "schema: 1\n");
  const auto runtime = open({.policy_path = policy.string()});
  EXPECT_EQ(plan(*runtime)->version(), "1.2.0");  // a pre-release only if the range names one
  for (const auto& [range, version] :
       {std::pair{"<1.2", "1.0.0"}, std::pair{">=2.0.0-rc.1", "2.0.0-rc.1"}}) {
    fakes::overwrite_file(
        policy,
        fmt::format("schema: 1\nbackends: {{fake_versions: {{version: \"{}\"}}}}\n", range));
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
  std::filesystem::rename(directory.path() / "fake_minimal.so",
                          directory.path() / "plugins" / "m.so");
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

TEST_F(Reload, APlanOutlivesItsRuntime) {
  directory.add("fake_full");
  auto runtime = open();
  const auto kept = plan(*runtime);
  runtime.reset();
  EXPECT_TRUE(runs(*kept));
}

// Threads plan, run, decide and list while files come and go and reloads replace the snapshot.
TEST_F(Reload, WhileOtherThreadsPlanRunAndList) {
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
          if (runtime->attention(tiny.problem, tiny.args, {}, &error) != ATTNRT_OK || !tiny.right())
            ++wrong;
        } else {
          if (runtime->decide(tiny.problem, {})->status != ATTNRT_OK ||
              runtime->plugins().size() < 2)
            ++wrong;
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

TEST_F(Reload, NewPlansUseWhatIsFoundNowAndOldOnesKeepTheirBackend) {
  TestRuntime runtime({"fake_versions-1.0.0"});
  const auto old = runtime->plan(kAny, {});
  ASSERT_TRUE(old);
  runtime.plugins.add("fake_versions-1.2.0");
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.0.0") << "not before the reload";
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_versions 1.2.0");
  std::filesystem::remove(runtime.plugins.path() / "fake_versions-1.0.0.so");
  ASSERT_TRUE(runtime->reload());
  Attention a({.seq_q = 2, .seq_kv = 3});
  EXPECT_EQ((*old)->version(), "1.0.0");
  EXPECT_EQ(run(**old, a.args, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST_F(Reload, AnInvalidPolicyLeavesEverythingAsItWas) {
  const TestRuntime runtime({"fake_full", "fake_minimal"});
  const auto before = runtime->snapshot();
  for (const char* text : {"schema: 2\n", "unlisted: maybe\n", "backends: [1]\n", "rules: [{}]\n",
                           "a: &b\n", ":\n  - ]"}) {
    runtime.set_policy(text);
    const auto done = runtime->reload();
    ASSERT_FALSE(done) << text;
    EXPECT_THAT(done.error().message, HasSubstr("policy.yaml:1:")) << text;
    EXPECT_EQ(runtime->snapshot(), before);
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  }
  std::filesystem::remove(runtime.policy_file());
  EXPECT_FALSE(runtime->reload());
  EXPECT_EQ(runtime->snapshot(), before);
  runtime.set_policy("default: fake_minimal\n");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
}

TEST_F(Reload, TheSameBytesStayOpen) {
  const TestRuntime runtime({"fake_full", "fake_rocm"});
  const auto instance = [&] { return runtime->decide(kAny, {})->winner()->candidate.backend; };
  const auto before = instance();
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(instance(), before);
  runtime.set_policy("backends: {fake_full: {options: {note: other}}}\n");
  ASSERT_TRUE(runtime->reload());
  EXPECT_NE(instance(), before) << "other options, another instance";
}

TEST_F(Reload, ABackendThatCouldNotBeLoadedIsTriedAgain) {
  TestRuntime runtime({"fake_full"}, "backends: {fake_full: {options: {wrong: 1}}}\n");
  EXPECT_THAT(chosen(*runtime), HasSubstr("option wrong is not known"));
  ASSERT_TRUE(runtime->reload());
  runtime.clear_log();
  EXPECT_THAT(chosen(*runtime), HasSubstr("option wrong is not known"));
  EXPECT_THAT(runtime.log(), SizeIs(1)) << "what prevented it may be gone by now";
}

TEST_F(Reload, ALibraryLoadedByPathIsNotMistakenForItsSuccessor) {
  const std::string text = "plugins: {load: path}\n";
  directory.add("fake_versions-1.0.0", "fake.so");
  const auto runtime = Runtime::open({.policy_text = text, .plugin_path = directory.text()});
  ASSERT_TRUE(runtime);
  EXPECT_EQ(chosen(**runtime), "fake_versions 1.0.0");
  for (const std::string version : {"1.2.0", "1.0.0", "1.2.0"}) {
    std::filesystem::remove(directory.path() / "fake.so");
    directory.add("fake_versions-" + version, "fake.so");
    ASSERT_TRUE((*runtime)->reload());
    EXPECT_EQ(chosen(**runtime), "fake_versions " + version);
  }
}

TEST_F(Reload, AThousandTimesLeavesNoDescriptorsOpen) {
  const TestRuntime runtime({"fake_full", "fake_versions-1.0.0"});
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  ASSERT_TRUE(runtime->reload());
  const size_t before = open_descriptors();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(runtime->reload());
    if (i % 100 == 0) {
      ASSERT_EQ(chosen(*runtime), "fake_full 1.0.0");
    }
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Reload, WhilePlansAreMadeAndRunInOtherThreads) {
  TestRuntime runtime({"fake_versions-1.0.0", "fake_versions-1.2.0"});
  std::atomic<bool> stop = false;
  std::atomic<int> runs = 0;
  std::vector<std::thread> workers;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    workers.emplace_back([&, seed] {
      Attention a({.seq_q = 2, .seq_kv = 3}, seed);
      while (!stop) {
        const auto plan = runtime->plan(kAny, {});
        ASSERT_TRUE(plan) << plan.error().message;
        ASSERT_THAT((*plan)->version(), ::testing::AnyOf("1.0.0", "1.2.0"));
        for (float& value : a.out) value = NAN;
        ASSERT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
        ASSERT_LT(largest_error(a.problem, a.args), kTolerance);
        for (float& value : a.out) value = NAN;
        ASSERT_EQ(runtime->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
        ASSERT_LT(largest_error(a.problem, a.args), kTolerance);
        (void)runtime->plugins();
        ++runs;
      }
    });
  }
  for (int i = 0; i < 60 || runs < 60; ++i) {
    runtime.set_policy(fmt::format("backends: {{fake_versions: {{version: '{}', priority: {}}}}}\n",
                                   i % 2 == 0 ? "<1.1" : ">=1.1", i % 7));
    ASSERT_TRUE(runtime->reload());
    EXPECT_EQ(chosen(*runtime), i % 2 == 0 ? "fake_versions 1.0.0" : "fake_versions 1.2.0");
  }
  stop = true;
  for (auto& worker : workers) worker.join();
}

}  // namespace
}  // namespace attnrt::core
