// tests/runtime/runtime_test.cpp: plugins, policy files and environment into a Runtime that is opened, asked and reloaded
#include "runtime.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "run.hpp"
#include "support/tensors.hpp"
#include "support/world.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

const Problem kAny = checked(Attention({.seq_q = 2, .seq_kv = 3}).problem);

std::string chosen(Runtime& runtime, const Problem& problem = kAny, const std::string& name = {}) {
  const auto plan = runtime.plan(problem, Call{name});
  return plan ? (*plan)->backend_name() + " " + (*plan)->version() : plan.error().message;
}

std::string open_error(RuntimeOptions options) {
  const auto opened = Runtime::open(std::move(options));
  EXPECT_FALSE(opened);
  if (opened) return "";
  EXPECT_EQ(opened.error().code, ATTNRT_INVALID_ARGUMENT);
  return opened.error().message;
}

TEST(Open, OptionsThatCannotBe) {
  EXPECT_THAT(open_error({.policy_path = "a", .policy_text = "b"}), HasSubstr("expected one of them"));
  EXPECT_THAT(open_error({.thread_count = -1}), HasSubstr("thread_count is -1; expected 0 to 1024"));
  EXPECT_THAT(open_error({.thread_count = 1 << 30}), HasSubstr("expected 0 to 1024"));
  const auto parallel_for = [](void*, int64_t, attnrt_parallel_body, void*) {};
  EXPECT_THAT(open_error({.parallel_for = parallel_for}), HasSubstr("parallel_for is given with thread_count 0"));
}

TEST(Open, PolicyFiles) {
  const fakes::Directory directory;
  const auto with = [&](const std::string& path) { return RuntimeOptions{.policy_path = path, .plugin_path = ""}; };
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
  World world({"fake_unknown"});
  const auto rows = world->plugins();
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].state, "broken");
  EXPECT_EQ(rows[0].reason, "its manifest has no entry that this runtime knows");
}

TEST(Open, AGlobThatDisablesNobodyIsAWarning) {
  const Variable disabled("ATTNRT_DISABLE", "fake_ful,fake_m*,hip_*");  // hip_flash is in the built-in policy
  World world({"fake_full", "fake_minimal"});
  EXPECT_THAT(world.log(), ElementsAre("2: ATTNRT_DISABLE: no backend is named fake_ful"));
}

TEST(Open, TwoFilesOfOnePluginAreAWarning) {
  World world({"fake_full", "fake_rocm"});
  EXPECT_THAT(world.log(), IsEmpty());
  std::filesystem::copy(world.plugins.path() / "fake_full.so", world.plugins.path() / "a_copy.so");
  ASSERT_TRUE(world->reload());
  const std::string& folder = world.plugins.text();
  EXPECT_THAT(world.log(), ElementsAre(StartsWith("2: discover: " + folder + "/a_copy.so and " + folder +
                                                  "/fake_full.so are both fake_full 1.0.0 for cpu: ")));
  const std::string table = plugins_text(*world->snapshot(), world->plugins());
  EXPECT_THAT(table, AllOf(HasSubstr(folder + "/a_copy.so"), HasSubstr(folder + "/fake_full.so"),
                           Not(HasSubstr(folder + "/fake_rocm.so"))));
  EXPECT_THAT(decision_text(world->explain(kAny, "", {})),
              AllOf(HasSubstr("fake_full 1.0.0 (" + folder + "/a_copy.so)"),
                    HasSubstr("fake_full 1.0.0 (" + folder + "/fake_full.so)")));
}

TEST(Open, ABrokenPluginIsARow) {
  World world({"fake_full", "fake_abi_2", "fake_open_fails"});
  EXPECT_EQ(chosen(*world), "fake_full 1.0.0");
  std::vector<std::string> rows;
  for (const auto& row : world->plugins()) rows.push_back(row.state + ": " + row.reason);
  EXPECT_THAT(rows, ElementsAre(HasSubstr("broken: is built for plugin ABI 2"),
                                "ready: ", HasSubstr("broken: cannot be opened: open was told to fail")));
  EXPECT_THAT(world.log(), Contains(HasSubstr("open was told to fail")).Times(1));
}

TEST(Environment, Overrides) {
  World world({"fake_full", "fake_minimal"});
  EXPECT_EQ(chosen(*world), "fake_full 1.0.0");
  const auto reloaded = [&] {
    const auto done = world->reload();
    return done ? chosen(*world) : done.error().message;
  };
  {
    const Variable backend("ATTNRT_BACKEND", "fake_minimal");
    EXPECT_EQ(reloaded(), "fake_minimal 1.0.0");
    EXPECT_EQ(chosen(*world, kAny, "fake_full"), "fake_full 1.0.0") << "the call comes first";
  }
  {
    const Variable disable("ATTNRT_DISABLE", "*_full");
    EXPECT_EQ(reloaded(), "fake_minimal 1.0.0");
  }
  {
    const Variable wrong("ATTNRT_LOG", "loud");
    EXPECT_THAT(reloaded(), HasSubstr("ATTNRT_LOG: found loud"));
  }
  {
    const Variable unknown("ATTNRT_BACKENDS", "x");
    world.clear_log();
    EXPECT_EQ(reloaded(), "fake_full 1.0.0");
    EXPECT_THAT(world.log(),
                ElementsAre(AllOf(HasSubstr("ATTNRT_BACKENDS"), HasSubstr("did you mean ATTNRT_BACKEND?"))))
        << "said once";
  }
  EXPECT_EQ(reloaded(), "fake_full 1.0.0");
}

TEST(Environment, PolicyAndPluginPath) {
  const World world({"fake_full", "fake_minimal"});
  const fakes::Directory other;
  other.add("fake_slow");
  const std::string file = other.write("p.yaml", "default: fake_minimal\n");
  const Variable policy("ATTNRT_POLICY", file), path("ATTNRT_PLUGIN_PATH", world.plugins.text());
  const auto runtime = Runtime::open({});
  ASSERT_TRUE(runtime) << runtime.error().message;
  EXPECT_EQ(chosen(**runtime), "fake_minimal 1.0.0");
  EXPECT_EQ((*runtime)->snapshot()->directories_origin, "ATTNRT_PLUGIN_PATH");
  // What the application says comes first.
  const auto own = Runtime::open({.policy_text = "", .plugin_path = other.text() + "::"});
  ASSERT_TRUE(own);
  EXPECT_EQ(chosen(**own), "fake_slow 1.0.0");
  EXPECT_EQ((*own)->snapshot()->directories.size(), 1u) << "an empty directory would be the current one";
}

TEST(Log, GoesToStderrFromItsLevelOnAlsoAfterAReload) {
  const World world({"fake_open_fails"});
  const auto printed = [&](Runtime& runtime) {
    ::testing::internal::CaptureStderr();
    (void)chosen(runtime);
    return ::testing::internal::GetCapturedStderr();
  };
  auto runtime = Runtime::open({.policy_text = "", .plugin_path = world.plugins.text()});
  ASSERT_TRUE(runtime);
  EXPECT_THAT(printed(**runtime), HasSubstr("attnrt: warning: load: "));
  const Variable level("ATTNRT_LOG", "error");
  ASSERT_TRUE((*runtime)->reload());
  EXPECT_EQ(printed(**runtime), "");
}

TEST(Decide, SaysAFallbackOnceForEachProblem) {
  World world({"fake_bad_supports_nothing", "fake_full"}, "on_fallback: warn\n");
  const auto warnings = [&] {
    int count = 0;
    for (const auto& line : world.log()) count += line.find("fell back from") != std::string::npos ? 1 : 0;
    return count;
  };
  for (int i = 0; i < 5; ++i) EXPECT_EQ(chosen(*world), "fake_full 1.0.0");
  EXPECT_EQ(warnings(), 1);
  Problem other = kAny;
  other.causal = 1;
  EXPECT_EQ(chosen(*world, other), "fake_full 1.0.0");
  EXPECT_EQ(warnings(), 2);
  EXPECT_THAT(world.log().back(), HasSubstr("it supports nothing; for device=cpu"));
}

TEST(Decide, LoadsOnlyForTheKindOfDeviceThatIsAsked) {
  World world({"fake_full", "fake_aborts"},
              "rules: [{name: r, when: {device: cpu}, prefer: [fake_full]}]\n"
              "backends: {fake_aborts: {enabled: false}}\n");
  EXPECT_EQ(chosen(*world), "fake_full 1.0.0") << "what is disabled is not even loaded";
}

TEST(Explain, SupposesADeviceThatIsNotHere) {
  const World world({"fake_full", "fake_rocm"});
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  problem.device_id = 5;
  EXPECT_EQ(world->decide(problem, {})->status, ATTNRT_UNSUPPORTED);
  const Decision here = world->explain(problem, "gfx1100", {});
  ASSERT_NE(here.winner(), nullptr) << here.message;
  EXPECT_TRUE(here.supposed);
  const Decision elsewhere = world->explain(problem, "gfx942", {});
  EXPECT_EQ(elsewhere.winner(), nullptr);
  EXPECT_THAT(elsewhere.message, HasSubstr("arch gfx942 is not gfx1100"));
}

TEST(Explain, AsksARealDeviceOfThatArch) {
  const World world({"fake_rocm"});
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  EXPECT_FALSE(world->explain(problem, "gfx1100", {}).supposed);
  EXPECT_FALSE(world->explain(problem, "", {}).supposed);
}

// What reports no device has none, whatever its manifest says: the cpu is in every machine, and a device that another
// backend has is in this one.
TEST(Explain, SupposesNoDeviceThatIsHere) {
  const World world({"fake_no_devices", "fake_full", "fake_rocm_none", "fake_rocm"});
  for (const int32_t type : {ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_ROCM}) {
    Problem problem = kAny;
    problem.device_type = type;
    const Decision decision = world->explain(problem, "", {});
    ASSERT_NE(decision.winner(), nullptr) << decision.message;
    EXPECT_FALSE(decision.supposed);
    EXPECT_EQ(decision.verdicts.size(), 1U) << "one backend has the device";
    EXPECT_EQ(decision_json(decision)["chosen"], type == ATTNRT_DEVICE_CPU ? "fake_full" : "fake_rocm");
    EXPECT_THAT(decision_text(decision), HasSubstr("no device: no fake device is plugged in"));
    EXPECT_THAT(decision_text(decision), Not(HasSubstr("by its manifest")));
  }
  const World alone({"fake_no_devices"});
  EXPECT_EQ(alone->explain(kAny, "", {}).winner(), nullptr);
}

TEST(Explain, SaysWhoIsJudgedByItsManifestAlone) {
  const World world({"fake_rocm_none", "fake_rocm_other", "fake_minimal"},
                    "backends: {fake_minimal: {enabled: false}}\n");
  Problem problem = kAny;
  problem.device_type = ATTNRT_DEVICE_ROCM;
  const Decision decision = world->explain(problem, "gfx1100", {});
  EXPECT_TRUE(decision.supposed);
  EXPECT_THAT(decision_text(decision), HasSubstr("by its manifest, that device is not here"));
  EXPECT_THAT(decision_text(decision), HasSubstr("arch gfx1100 is not gfx942; by its manifest alone"));
  const auto json = decision_json(decision);
  for (const auto& candidate : json["candidates"]) EXPECT_TRUE(candidate["supposed"]) << candidate;
  EXPECT_EQ(json["candidates"].size(), 2U);

  const auto disabled = decision_json(world->explain(kAny, "", {}));
  ASSERT_EQ(disabled["candidates"].size(), 1U);
  EXPECT_EQ(disabled["candidates"][0]["answer"], "not asked");
  EXPECT_FALSE(disabled["candidates"][0]["supposed"]) << "the policy left it out, its device is here";
}

// ---- the debug log ----

TEST(DebugLog, SaysWhatIsFoundLoadedDecidedAndPlannedOnce) {
  const support::Variable level("ATTNRT_LOG", "debug");
  World world({"fake_full", "fake_abi_2", "fake_no_devices"});
  const std::string directory = world.plugins.text();
  EXPECT_THAT(world.log(),
              ElementsAre("0: config: policy " + world.policy_file(), "0: discover: directory " + directory + " (call)",
                          AllOf(StartsWith("0: discover: " + directory + "/fake_abi_2.so: "),
                                HasSubstr("is built for plugin ABI 2")),
                          ContainsRegex("/fake_full.so: fake_full 1.0.0, sha256 [0-9a-f]{12}$"),
                          ContainsRegex("/fake_no_devices.so: fake_no_devices 1.0.0, sha256 ")));
  world.clear_log();
  ASSERT_TRUE(world->plan(kAny, {}));
  EXPECT_THAT(world.log(),
              ElementsAre(ContainsRegex("^0: load: .*/fake_full.so: fake_full 1.0.0, sha256 [0-9a-f]{12}; cpu$"),
                          ContainsRegex("/fake_no_devices.so: .*; no device: no fake device is plugged in$"),
                          ContainsRegex("^0: select: fake_full 1.0.0 on cpu: priority .*; for device=cpu dtype="),
                          ContainsRegex("^1: plan: fake_full 1.0.0 on cpu: kernel fake_attention, workspace 256 bytes; "
                                        "for device=cpu dtype=")));
  world.clear_log();
  ASSERT_TRUE(world->decide(kAny, {})->winner());
  EXPECT_THAT(world.log(), IsEmpty()) << "a decision that is known is not told again";
  Problem impossible = kAny;
  impossible.head_dim = impossible.head_dim_v = 300;
  EXPECT_EQ(world->decide(impossible, {})->winner(), nullptr);
  EXPECT_THAT(world.log(), ElementsAre(AllOf(StartsWith("0: select: no backend supports the problem: "),
                                             HasSubstr("; for device=cpu"), HasSubstr("head_dim=300"))));
}

TEST(InfoLog, SaysOnceForEachPlanWhoServesIt) {
  const support::Variable level("ATTNRT_LOG", "info");
  World world({"fake_full"});
  Attention attention({.seq_q = 2, .seq_kv = 3});
  for (int i = 0; i < 3; ++i) ASSERT_EQ(world->attention(attention.problem, attention.args, {}, nullptr), ATTNRT_OK);
  EXPECT_THAT(world.log(), ElementsAre(StartsWith("1: plan: fake_full 1.0.0 on cpu: kernel fake_attention, ")));
}

TEST(DebugLog, IsSilentUnlessItIsAskedFor) {
  World world({"fake_full"});
  ASSERT_TRUE(world->plan(kAny, {}));
  EXPECT_THAT(world.log(), IsEmpty());
}

// ---- reload ----

TEST(Reload, NewPlansUseWhatIsFoundNowAndOldOnesKeepTheirBackend) {
  World world({"fake_versions-1.0.0"});
  const auto old = world->plan(kAny, {});
  ASSERT_TRUE(old);
  world.plugins.add("fake_versions-1.2.0");
  EXPECT_EQ(chosen(*world), "fake_versions 1.0.0") << "not before the reload";
  ASSERT_TRUE(world->reload());
  EXPECT_EQ(chosen(*world), "fake_versions 1.2.0");
  std::filesystem::remove(world.plugins.path() / "fake_versions-1.0.0.so");
  ASSERT_TRUE(world->reload());
  Attention a({.seq_q = 2, .seq_kv = 3});
  EXPECT_EQ((*old)->version(), "1.0.0");
  EXPECT_EQ(run(**old, a.args, nullptr), ATTNRT_OK);
  EXPECT_LT(largest_error(a.problem, a.args), kTolerance);
}

TEST(Reload, AnInvalidPolicyLeavesEverythingAsItWas) {
  const World world({"fake_full", "fake_minimal"});
  const auto before = world->snapshot();
  for (const char* text :
       {"schema: 2\n", "unlisted: maybe\n", "backends: [1]\n", "rules: [{}]\n", "a: &b\n", ":\n  - ]"}) {
    world.set_policy(text);
    const auto done = world->reload();
    ASSERT_FALSE(done) << text;
    EXPECT_THAT(done.error().message, HasSubstr("policy.yaml:1:")) << text;
    EXPECT_EQ(world->snapshot(), before);
    EXPECT_EQ(chosen(*world), "fake_full 1.0.0");
  }
  std::filesystem::remove(world.policy_file());
  EXPECT_FALSE(world->reload());
  EXPECT_EQ(world->snapshot(), before);
  world.set_policy("default: fake_minimal\n");
  ASSERT_TRUE(world->reload());
  EXPECT_EQ(chosen(*world), "fake_minimal 1.0.0");
}

TEST(Reload, TheSameBytesStayOpen) {
  const World world({"fake_full", "fake_rocm"});
  const auto instance = [&] { return world->decide(kAny, {})->winner()->candidate.backend; };
  const auto before = instance();
  ASSERT_TRUE(world->reload());
  EXPECT_EQ(instance(), before);
  world.set_policy("backends: {fake_full: {options: {note: other}}}\n");
  ASSERT_TRUE(world->reload());
  EXPECT_NE(instance(), before) << "other options, another instance";
}

TEST(Reload, ABackendThatCouldNotBeLoadedIsTriedAgain) {
  World world({"fake_full"}, "backends: {fake_full: {options: {wrong: 1}}}\n");
  EXPECT_THAT(chosen(*world), HasSubstr("option wrong is not known"));
  ASSERT_TRUE(world->reload());
  world.clear_log();
  EXPECT_THAT(chosen(*world), HasSubstr("option wrong is not known"));
  EXPECT_THAT(world.log(), SizeIs(1)) << "what kept it from loading may be gone by now";
}

TEST(Reload, ALibraryLoadedByPathIsNotMistakenForItsSuccessor) {
  const fakes::Directory directory;
  const std::string text = "plugins: {load: path}\n";
  directory.add("fake_versions-1.0.0", "fake.so");
  const auto runtime = Runtime::open({.policy_text = text, .plugin_path = directory.text()});
  ASSERT_TRUE(runtime);
  EXPECT_EQ(chosen(**runtime), "fake_versions 1.0.0");
  std::filesystem::remove(directory.path() / "fake.so");
  directory.add("fake_versions-1.2.0", "fake.so");
  ASSERT_TRUE((*runtime)->reload());
  EXPECT_THAT(chosen(**runtime), HasSubstr("was loaded by path before with other bytes"));
}

TEST(Reload, AThousandTimesOpensNothingMore) {
  const World world({"fake_full", "fake_versions-1.0.0"});
  EXPECT_EQ(chosen(*world), "fake_full 1.0.0");
  ASSERT_TRUE(world->reload());
  const size_t before = open_descriptors();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(world->reload());
    if (i % 100 == 0) {
      ASSERT_EQ(chosen(*world), "fake_full 1.0.0");
    }
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Open, AHundredTimesLeavesNothingOpen) {
  const World plugins({"fake_full", "fake_rocm"});
  std::vector<std::string> log;
  const auto once = [&] {
    const auto runtime = Runtime::open({.thread_count = 2,
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

TEST(Reload, WhilePlansAreMadeAndRunInOtherThreads) {
  World world({"fake_versions-1.0.0", "fake_versions-1.2.0"});
  std::atomic<bool> stop = false;
  std::atomic<int> runs = 0;
  std::vector<std::thread> workers;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    workers.emplace_back([&, seed] {
      Attention a({.seq_q = 2, .seq_kv = 3}, seed);
      while (!stop) {
        const auto plan = world->plan(kAny, {});
        ASSERT_TRUE(plan) << plan.error().message;
        ASSERT_THAT((*plan)->version(), ::testing::AnyOf("1.0.0", "1.2.0"));
        for (float& value : a.out) value = NAN;
        ASSERT_EQ(run(**plan, a.args, nullptr), ATTNRT_OK);
        ASSERT_LT(largest_error(a.problem, a.args), kTolerance);
        for (float& value : a.out) value = NAN;
        ASSERT_EQ(world->attention(a.problem, a.args, {}, nullptr), ATTNRT_OK);
        ASSERT_LT(largest_error(a.problem, a.args), kTolerance);
        (void)world->plugins();
        ++runs;
      }
    });
  }
  for (int i = 0; i < 60 || runs < 60; ++i) {
    world.set_policy(fmt::format("backends: {{fake_versions: {{version: '{}', priority: {}}}}}\n",
                                 i % 2 == 0 ? "<1.1" : ">=1.1", i % 7));
    ASSERT_TRUE(world->reload());
    EXPECT_EQ(chosen(*world), i % 2 == 0 ? "fake_versions 1.0.0" : "fake_versions 1.2.0");
  }
  stop = true;
  for (auto& worker : workers) worker.join();
}

}  // namespace
}  // namespace attnrt::core
