// tests/runtime/snapshot_test.cpp: what a runtime reads when it opens: policy, environment, plugins
#include "snapshot.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "runtime.hpp"
#include "support/tensors.hpp"
#include "support/test_runtime.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string open_error(RuntimeOptions options) {
  const auto opened = Runtime::open(std::move(options));
  EXPECT_FALSE(opened);
  if (opened) return "";
  EXPECT_EQ(opened.error().code, ATTNRT_INVALID_ARGUMENT);
  return opened.error().message;
}

TEST(Open, InvalidOptions) {
  EXPECT_THAT(open_error({.policy_path = "a", .policy_text = "b"}),
              HasSubstr("expected one of them"));
  EXPECT_THAT(open_error({.thread_count = -1}),
              HasSubstr("thread_count is -1; expected 0 to 1024"));
  EXPECT_THAT(open_error({.thread_count = 1 << 30}), HasSubstr("expected 0 to 1024"));
  const auto parallel_for = [](void*, int64_t, attnrt_parallel_body, void*) {};
  EXPECT_THAT(open_error({.parallel_for = parallel_for}),
              HasSubstr("parallel_for is given with thread_count 0"));
}

TEST(Open, PolicyFiles) {
  const fakes::Directory directory;
  const auto with = [&](const std::string& path) {
    return RuntimeOptions{.policy_path = path, .plugin_path = ""};
  };
  EXPECT_THAT(open_error(with(directory.text() + "/none.yaml")),
              HasSubstr("cannot be read: No such file or directory"));
  EXPECT_THAT(open_error(with(directory.text())), HasSubstr("cannot be read: Is a directory"));
  const std::string bad = directory.write("bad.yaml", "schema: 1\nunlsted: deny\n");
  EXPECT_EQ(open_error(with(bad)).substr(0, bad.size() + 6), bad + ":2:1: ");
  const auto empty = Runtime::open(with(directory.write("empty.yaml", "")));
  EXPECT_TRUE(empty) << empty.error().message;
  EXPECT_EQ((*empty)->snapshot()->policy_file, directory.text() + "/empty.yaml");
}

TEST(Open, PolicyTextIsNamedInItsErrors) {
  EXPECT_THAT(open_error({.policy_text = "threads: many\n"}), HasSubstr("policy:1:10"));
}

TEST(Open, NoPluginsIsNoError) {
  const auto runtime = Runtime::open({.plugin_path = ""});
  ASSERT_TRUE(runtime);
  EXPECT_EQ(chosen(**runtime), "select: no backend supports the problem: no plugin was found");
}

TEST(Open, APluginThatCanServeNothingIsBroken) {
  TestRuntime runtime({"fake_unknown"});
  const auto rows = runtime->plugins();
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].state, "broken");
  EXPECT_EQ(rows[0].reason, "its manifest has no entry that this runtime knows");
}

TEST(Open, OptionsThatAPluginRefusesSayWhereTheyStand) {
  const TestRuntime runtime({"fake_full"}, "backends:\n  fake_full:\n    options: {wrong: 1}\n");
  EXPECT_THAT(chosen(*runtime),
              HasSubstr("option wrong is not known; there is note (its options: " +
                        runtime.policy_file() + ":4:14)"));
}

TEST(Open, TwoFilesOfOnePluginAreAWarning) {
  TestRuntime runtime({"fake_full", "fake_rocm"});
  EXPECT_THAT(runtime.log(), IsEmpty());
  std::filesystem::copy(runtime.plugins.path() / "fake_full.so",
                        runtime.plugins.path() / "a_copy.so");
  ASSERT_TRUE(runtime->reload());
  const std::string& folder = runtime.plugins.text();
  EXPECT_THAT(runtime.log(),
              ElementsAre(StartsWith("2: discover: " + folder + "/a_copy.so and " + folder +
                                     "/fake_full.so are both fake_full 1.0.0 for cpu: ")));
  const std::string table = plugins_text(*runtime->snapshot(), runtime->plugins());
  EXPECT_THAT(table, AllOf(HasSubstr(folder + "/a_copy.so"), HasSubstr(folder + "/fake_full.so"),
                           Not(HasSubstr(folder + "/fake_rocm.so"))));
  EXPECT_THAT(decision_text(runtime->explain(kAny, "", {})),
              AllOf(HasSubstr("fake_full 1.0.0 (" + folder + "/a_copy.so)"),
                    HasSubstr("fake_full 1.0.0 (" + folder + "/fake_full.so)")));
}

TEST(Open, ABrokenPluginIsARow) {
  TestRuntime runtime({"fake_full", "fake_abi_2", "fake_open_fails"});
  EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
  std::vector<std::string> rows;
  for (const auto& row : runtime->plugins()) rows.push_back(row.state + ": " + row.reason);
  EXPECT_THAT(rows, ElementsAre(HasSubstr("broken: is built for plugin ABI 2"), "ready: ",
                                HasSubstr("broken: cannot be opened: open was told to fail")));
  EXPECT_THAT(runtime.log(), Contains(HasSubstr("open was told to fail")).Times(1));
}

TEST(Environment, Overrides) {
  const std::vector<std::string> both{"fake_full", "fake_minimal"};
  EXPECT_EQ(chosen(*TestRuntime(both)), "fake_full 1.0.0");
  {
    const Variable backend("ATTNRT_BACKEND", "fake_minimal");
    const TestRuntime runtime(both);
    EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
    EXPECT_EQ(chosen(*runtime, kAny, "fake_full"), "fake_full 1.0.0") << "the call comes first";
  }
  {
    const Variable disable("ATTNRT_DISABLE", "*_full");
    EXPECT_EQ(chosen(*TestRuntime(both)), "fake_minimal 1.0.0");
  }
  {
    const Variable wrong("ATTNRT_LOG", "loud");
    EXPECT_THAT(open_error({.policy_text = ""}), HasSubstr("ATTNRT_LOG: found loud"));
  }
  {
    const Variable unknown("ATTNRT_BACKENDS", "x");
    const TestRuntime runtime(both);
    EXPECT_EQ(chosen(*runtime), "fake_full 1.0.0");
    EXPECT_THAT(runtime.log(), ElementsAre(AllOf(HasSubstr("ATTNRT_BACKENDS"),
                                                 HasSubstr("did you mean ATTNRT_BACKEND?"))))
        << "said once";
  }
}

// Other threads may call setenv while a reload runs.
TEST(Environment, IsReadAtOpenAndNotAtReload) {
  auto backend = std::make_optional<Variable>("ATTNRT_BACKEND", "fake_minimal");
  const TestRuntime runtime({"fake_full", "fake_minimal"});
  backend.reset();
  const Variable other("ATTNRT_DISABLE", "fake_minimal");
  ASSERT_TRUE(runtime->reload());
  EXPECT_EQ(chosen(*runtime), "fake_minimal 1.0.0");
}

TEST(Environment, PolicyAndPluginPath) {
  const TestRuntime runtime({"fake_full", "fake_minimal"});
  const fakes::Directory other;
  other.add("fake_slow");
  const std::string file = other.write("p.yaml", "default: fake_minimal\n");
  const Variable policy("ATTNRT_POLICY", file), path("ATTNRT_PLUGIN_PATH", runtime.plugins.text());
  const auto opened = Runtime::open({});
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(chosen(**opened), "fake_minimal 1.0.0");
  EXPECT_EQ((*opened)->snapshot()->directories_origin, "ATTNRT_PLUGIN_PATH");
  // The application's options come before the environment.
  const auto own = Runtime::open({.policy_text = "", .plugin_path = other.text() + "::"});
  ASSERT_TRUE(own);
  EXPECT_EQ(chosen(**own), "fake_slow 1.0.0");
  EXPECT_EQ((*own)->snapshot()->directories.size(), 1u)
      << "an empty directory would be the current one";
}

TEST(Open, AHundredTimesLeavesNothingOpen) {
  const TestRuntime plugins({"fake_full", "fake_rocm"});
  std::vector<std::string> log;
  const auto once = [&] {
    const auto runtime =
        Runtime::open({.thread_count = 2,
                       .policy_text = "",
                       .plugin_path = plugins.plugins.text(),
                       .log = [&](int32_t, const std::string& line) { log.push_back(line); }});
    ASSERT_TRUE(runtime);
    Problem problem = kAny;
    problem.device_type = ATTNRT_DEVICE_ROCM;
    EXPECT_EQ(chosen(**runtime), "fake_full 1.0.0");
    EXPECT_EQ(chosen(**runtime, problem), "fake_rocm 1.0.0");
  };
  once();
  const size_t before = open_descriptors();
  for (int i = 0; i < 100; ++i) once();
  EXPECT_EQ(open_descriptors(), before);
  ASSERT_THAT(log, SizeIs(101)) << "each instance was closed, and says so";
  EXPECT_THAT(log.back(), HasSubstr("(0 alive)"));
}

}  // namespace
}  // namespace attnrt::core
