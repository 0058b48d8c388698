// tests/runtime/select_test.cpp: who wins, who is excluded and why, as a truth table and one by one
#include "select.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "support/candidates.hpp"
#include "support/golden.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

Environment with_backend(const std::string& name) { return {.backend = name}; }
Environment with_disable(const std::string& globs) { return {.disable = globs}; }

struct Row {
  std::string what;
  std::string policy;
  Environment environment;
  std::string call;
  std::string problem;
  std::vector<std::string> candidates;
  std::string expected;  // the winner, or the status
};

const std::string kPriorities =
    "backends: {flash: {priority: 300}, unfused: {priority: 200}, cpu: {priority: 100}}\n";
const std::string kGpu = "device=rocm dtype=f16 head_dim=64";
const std::string kWide = "device=rocm dtype=f16 head_dim=256";  // flash goes to 128
const std::string kHost = "device=cpu dtype=f16 head_dim=64";
const std::vector<std::string> kBoth = {"unfused 1.0.0 rocm gfx1100", "flash 1.0.0 rocm gfx1100"};
const std::vector<std::string> kThree = {"flash 1.0.0 rocm gfx1100", "flash 1.2.0 rocm gfx1100",
                                         "flash 2.0.0-rc.1 rocm gfx1100"};
const std::vector<std::string> kStaged = {"flash 1.0.0 rocm gfx1100", "cpu 1.0.0 cpu"};

std::string rule(const std::string& body) {
  return kPriorities + "rules: [{name: r, " + body + "}]\n";
}

std::vector<Row> truth_table() {
  return {
      // What the policy excludes stays excluded, whoever asks for it.
      {"disabled beats a forced call",
       "backends: {flash: {enabled: false}}",
       {},
       "flash",
       kGpu,
       kBoth,
       "unsupported"},
      {"disabled beats ATTNRT_BACKEND", "backends: {flash: {enabled: false}}",
       with_backend("flash"), "", kGpu, kBoth, "unsupported"},
      {"ATTNRT_DISABLE beats a forced call", kPriorities, with_disable("fl*"), "flash", kGpu, kBoth,
       "unsupported"},
      {"ATTNRT_DISABLE leaves the others", kPriorities, with_disable("fl*"), "", kGpu, kBoth,
       "unfused 1.0.0"},
      {"deny beats a forced call", rule("deny: [flash]"), {}, "flash", kGpu, kBoth, "unsupported"},
      {"deny beats prefer",
       rule("prefer: [flash], deny: [flash]"),
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"a version range beats a forced call",
       "backends: {flash: {version: '>=2'}}",
       {},
       "flash",
       kGpu,
       kBoth,
       "unsupported"},
      {"only beats a forced call",
       "backends: {flash: {only: {head_dim: {max: 32}}}}",
       {},
       "flash",
       kGpu,
       kBoth,
       "unsupported"},
      {"unlisted: deny beats a forced call",
       "unlisted: deny",
       {},
       "flash",
       kGpu,
       kBoth,
       "unsupported"},
      // Asking for a backend by name.
      {"the call beats ATTNRT_BACKEND", kPriorities, with_backend("flash"), "unfused", kGpu, kBoth,
       "unfused 1.0.0"},
      {"the call beats default",
       kPriorities + "default: flash",
       {},
       "unfused",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"ATTNRT_BACKEND beats default", kPriorities + "default: flash", with_backend("unfused"), "",
       kGpu, kBoth, "unfused 1.0.0"},
      {"default beats prefer",
       rule("prefer: [flash]") + "default: unfused",
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"default beats priority",
       kPriorities + "default: unfused",
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      // A named default supports the problem, or the answer is that the problem is not supported.
      {"default does not fall through",
       kPriorities + "default: flash",
       {},
       "",
       kWide,
       kBoth,
       "unsupported"},
      {"a forced call does not fall through",
       kPriorities,
       {},
       "flash",
       kWide,
       kBoth,
       "unsupported"},
      {"an unknown default is not found",
       kPriorities + "default: flush",
       {},
       "",
       kGpu,
       kBoth,
       "not found"},
      {"an unknown ATTNRT_BACKEND is not found", kPriorities, with_backend("nobody_near"), "", kGpu,
       kBoth, "not found"},
      {"an unknown call is not found", kPriorities, {}, "unfusd", kGpu, kBoth, "not found"},
      {"nobody at all", kPriorities, {}, "", kGpu, {}, "unsupported"},
      {"nobody at all, by name", kPriorities, {}, "cpu", kGpu, {}, "not found"},
      {"without default the best that supports it",
       kPriorities,
       {},
       "",
       kWide,
       kBoth,
       "unfused 1.0.0"},
      {"none supports it",
       kPriorities,
       {},
       "",
       "device=rocm dtype=f32 head_dim=256",
       {"flash 1.0.0 rocm gfx1100", "narrow 1.0.0 rocm gfx1100"},
       "unsupported"},
      // The order of those that are left.
      {"priority", kPriorities, {}, "", kGpu, kBoth, "flash 1.0.0"},
      {"priority, the other way",
       "backends: {flash: {priority: 1}, unfused: {priority: 2}}",
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"a negative priority is below none",
       "backends: {flash: {priority: -1}}",
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"prefer beats priority", rule("prefer: [unfused]"), {}, "", kGpu, kBoth, "unfused 1.0.0"},
      {"prefer in its own order",
       rule("prefer: [unfused, flash]"),
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"a preferred one that says no is passed over",
       rule("prefer: [flash]"),
       {},
       "",
       kWide,
       kBoth,
       "unfused 1.0.0"},
      {"a rule that does not match",
       rule("when: {head_dim: 80}, prefer: [unfused]"),
       {},
       "",
       kGpu,
       kBoth,
       "flash 1.0.0"},
      {"the first matching prefer wins",
       kPriorities + "rules: [{prefer: [unfused]}, {prefer: [flash]}]",
       {},
       "",
       kGpu,
       kBoth,
       "unfused 1.0.0"},
      {"every matching deny holds",
       kPriorities + "rules: [{deny: [unfused]}, {deny: [flash]}]",
       {},
       "",
       kGpu,
       kBoth,
       "unsupported"},
      {"a rule sees the arch",
       rule("when: {arch: gfx942}, deny: [flash]"),
       {},
       "",
       kGpu,
       {"flash 1.0.0 rocm gfx942", "unfused 1.0.0 rocm gfx942"},
       "unfused 1.0.0"},
      {"the newest version", kPriorities, {}, "", kGpu, kThree, "flash 1.2.0"},
      {"the range picks the version",
       "backends: {flash: {version: '<1.1'}}",
       {},
       "",
       kGpu,
       kThree,
       "flash 1.0.0"},
      {"a pre-release where the range names one",
       "backends: {flash: {version: '>=2.0.0-rc.1'}}",
       {},
       "",
       kGpu,
       kThree,
       "flash 2.0.0-rc.1"},
      {"a forced name takes the version that the range leaves",
       "backends: {flash: {version: '<1.1'}}",
       {},
       "flash",
       kGpu,
       kThree,
       "flash 1.0.0"},
      {"a higher priority beats a newer version",
       "backends: {unfused: {priority: 1}}",
       {},
       "",
       kGpu,
       {"flash 9.0.0 rocm gfx1100", "unfused 1.0.0 rocm gfx1100"},
       "unfused 1.0.0"},
      {"the name, where all else is equal",
       "",
       {},
       "",
       kGpu,
       {"b 1.0.0 rocm gfx1100", "a 1.0.0 rocm gfx1100"},
       "a 1.0.0"},
      // Staging.
      {"staging is never", kPriorities, {}, "", kHost, kStaged, "cpu 1.0.0"},
      {"staging is never, by name", kPriorities, {}, "flash", kHost, kStaged, "unsupported"},
      {"a staged one ranks after",
       kPriorities + "staging: allow",
       {},
       "",
       kHost,
       kStaged,
       "cpu 1.0.0"},
      {"unless it is preferred",
       rule("prefer: [flash]") + "staging: allow",
       {},
       "",
       kHost,
       kStaged,
       "flash 1.0.0"},
      {"or asked for", kPriorities + "staging: allow", {}, "flash", kHost, kStaged, "flash 1.0.0"},
      {"or alone",
       kPriorities + "staging: allow",
       {},
       "",
       kHost,
       {"flash 1.0.0 rocm gfx1100"},
       "flash 1.0.0"},
      {"but never for paged caches",
       rule("prefer: [unfused]") + "staging: allow",
       {},
       "",
       kHost + " page_size=16 kv_lengths=true",
       {"unfused 1.0.0 rocm gfx1100", "cpu 1.0.0 cpu"},
       "cpu 1.0.0"},
  };
}

Decision decide(const Row& row) {
  return select(policy_of(row.policy, row.environment, row.call), {candidates(row.candidates), {}},
                problem_of(row.problem), "");
}

TEST(Select, TruthTableOfPrecedence) {
  std::string text;
  for (const Row& row : truth_table()) {
    const Decision decision = decide(row);
    EXPECT_EQ(outcome(decision), row.expected) << row.what << "\n" << decision_text(decision);
    text += fmt::format("{}\n  {}\n", row.what, outcome(decision));
    if (!decision.why.empty()) text += fmt::format("  why: {}\n", decision.why);
    if (!decision.fallback.empty()) text += fmt::format("  fallback: {}\n", decision.fallback);
    if (!decision.message.empty()) text += fmt::format("  {}\n", decision.message);
  }
  EXPECT_TRUE(
      attnrt::testing::matches_golden("select/truth_table.txt", without_builtin_places(text)));
}

TEST(Select, AMessageIsOneLineWithEveryReason) {
  const Decision none = decide({"",
                                kPriorities,
                                {},
                                "",
                                "device=rocm dtype=f32 head_dim=256",
                                {"flash 1.0.0 rocm gfx1100", "narrow 1.0.0 rocm gfx1100"},
                                ""});
  EXPECT_THAT(none.message,
              HasSubstr("flash 1.0.0: dtype f32 is not in {f16, bf16}; head_dim 256 is above 128"));
  EXPECT_THAT(none.message, HasSubstr("narrow 1.0.0: head_dim 256 is above 64"));
  EXPECT_THAT(none.message, Not(HasSubstr("\n")));
  EXPECT_EQ(decide({"", "", {}, "", kGpu, {}, ""}).message,
            "select: no backend supports the problem: no plugin was found");
}

TEST(Select, AForcedNameGetsOnlyItsOwnReasons) {
  const Decision forced = decide({"", kPriorities, {}, "flash", kWide, kBoth, ""});
  EXPECT_EQ(forced.message,
            "select: the call asks for flash, which does not support the problem: flash 1.0.0: "
            "head_dim 256 is above 128");
  EXPECT_TRUE(forced.forced);
}

TEST(Select, AnUnknownNameNamesTheNearestAndTheBroken) {
  auto broken = std::make_shared<FoundPlugin>();
  broken->path = "plugins/flush.so";
  broken->fault = "is empty";
  const Decision decision =
      select(policy_of("", {}, "flush"), {candidates(kBoth), {{broken, broken->fault}}},
             problem_of(kGpu), "");
  EXPECT_EQ(decision.status, ATTNRT_NOT_FOUND);
  EXPECT_EQ(decision.message,
            "select: no backend is named flush, which the call asks for; did you mean flash?; "
            "found: flash, unfused; "
            "plugins/flush.so is empty");
}

TEST(Select, AnExcludedPluginOfThatNameIsUnsupportedNotNotFound) {
  const auto cpu = found_plugin("cpu", "1.0.0", "cpu");
  const Decision decision = select(
      policy_of("default: cpu"), {candidates(kBoth), {{cpu, "is for cpu"}}}, problem_of(kGpu), "");
  EXPECT_EQ(decision.status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(decision.message, HasSubstr("cpu 1.0.0: is for cpu"));
}

TEST(Select, OnFallback) {
  for (const std::string word : {"allow", "warn", "error"}) {
    const Decision decision =
        decide({"", kPriorities + "on_fallback: " + word, {}, "", kWide, kBoth, ""});
    EXPECT_EQ(decision.fallback, "flash 1.0.0: head_dim 256 is above 128") << word;
    EXPECT_EQ(decision.status, word == "error" ? ATTNRT_UNSUPPORTED : ATTNRT_OK) << word;
    EXPECT_EQ(decision.message.empty(), word != "error");
    EXPECT_EQ(decision.winner() == nullptr, word == "error");
  }
}

// ---- Quarantine ----

Quarantine::Held held(const Candidate& candidate, bool due = false) {
  return {id_of(candidate), "quarantined for 0.8 s more: it ran out of memory", due};
}

struct Quarantined : ::testing::Test {
  Decision decide_with(const Quarantine& quarantine, const std::string& policy = "",
                       const std::string& call = "") {
    return select(policy_of(kPriorities + policy, {}, call), {all, {}}, problem_of(kGpu), "",
                  quarantine);
  }
  std::vector<Candidate> all = candidates(kBoth);
  const Candidate& unfused = all[0];
  const Candidate& flash = all[1];
};

TEST_F(Quarantined, AnotherCandidateServesMeanwhile) {
  const Decision decision = decide_with({{held(flash)}, {}});
  EXPECT_EQ(outcome(decision), "unfused 1.0.0");
  EXPECT_EQ(decision.verdicts.back().answer, Answer::not_asked);
  EXPECT_THAT(decision.verdicts.back().reasons,
              ElementsAre("quarantined for 0.8 s more: it ran out of memory"));
  EXPECT_THAT(decision.fallback, HasSubstr("flash 1.0.0: quarantined for 0.8 s more"));
  EXPECT_THAT(decision_text(decision), HasSubstr("not asked  quarantined for 0.8 s more"));
}

TEST_F(Quarantined, WhatIsDueIsAsked) {
  EXPECT_EQ(outcome(decide_with({{held(flash, true)}, {}})), "flash 1.0.0");
}

TEST_F(Quarantined, OnlyOnItsOwnDeviceAndFile) {
  Quarantine other{{held(flash)}, {}};
  other.held[0].candidate.device_id = 1;
  EXPECT_EQ(outcome(decide_with(other)), "flash 1.0.0");
  other = {{held(flash)}, {}};
  other.held[0].candidate = {"another", ATTNRT_DEVICE_ROCM, 0};
  EXPECT_EQ(outcome(decide_with(other)), "flash 1.0.0");
}

TEST_F(Quarantined, IsIgnoredWhereNoOtherMayServe) {
  const Quarantine both{{held(flash), held(unfused)}, {}};
  EXPECT_EQ(outcome(decide_with(both)), "flash 1.0.0") << "all are quarantined";
  const Quarantine best{{held(flash)}, {}};
  EXPECT_EQ(outcome(decide_with(best, "", "flash")), "flash 1.0.0") << "it is asked for by name";
  EXPECT_EQ(outcome(decide_with(best, "default: flash\n")), "flash 1.0.0");
  EXPECT_EQ(outcome(decide_with(best, "on_fallback: error\n")), "flash 1.0.0");
  EXPECT_EQ(outcome(decide_with(best, "rules: [{deny: [unfused]}]\n")), "flash 1.0.0");
}

TEST_F(Quarantined, ALostDeviceIsNeverAsked) {
  const Quarantine lost{{}, {{ATTNRT_DEVICE_ROCM, 0, "rocm:0 was lost"}}};
  for (const std::string call : {"", "flash"}) {
    const Decision decision = decide_with(lost, "", call);
    EXPECT_EQ(decision.status, ATTNRT_DEVICE_LOST) << call;
    EXPECT_THAT(decision.message, HasSubstr("flash 1.0.0: rocm:0 was lost"));
  }
  EXPECT_EQ(outcome(decide_with({{}, {{ATTNRT_DEVICE_ROCM, 1, "rocm:1 was lost"}}})),
            "flash 1.0.0");
}

TEST_F(Quarantined, AfterAFailureTheNextOneWins) {
  const Policy policy = policy_of(kPriorities);
  const Decision first = decide_with({});
  const Decision second = without_winner(policy, first, "plan: flash: out of memory");
  EXPECT_EQ(outcome(second), "unfused 1.0.0");
  EXPECT_THAT(second.why, HasSubstr("priority 200"));
  EXPECT_EQ(second.fallback, "flash 1.0.0: plan: flash: out of memory");
  EXPECT_THAT(decision_text(second), HasSubstr("plan: flash: out of memory"));
  const Decision third = without_winner(policy, second, "run: unfused: failed");
  EXPECT_EQ(third.status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(third.message, HasSubstr("unfused 1.0.0: run: unfused: failed"));
}

TEST_F(Quarantined, AfterAllOthersFailedItIsTried) {
  const Decision first = decide_with({{held(flash)}, {}});
  EXPECT_EQ(outcome(without_winner(policy_of(kPriorities), first, "it failed")), "flash 1.0.0");
}

TEST_F(Quarantined, AfterAFailureNoneWinsIfNoneMay) {
  for (const auto& [text, call] : {std::pair{"", "flash"}, {"on_fallback: error\n", ""}}) {
    const Policy policy = policy_of(kPriorities + text, {}, call);
    const Decision next = without_winner(policy, decide_with({}, text, call), "it failed");
    EXPECT_EQ(next.status, ATTNRT_UNSUPPORTED) << text << call;
  }
}

TEST(Select, WhatIsNoFallback) {
  const std::string error = kPriorities + "on_fallback: error\n";
  const auto winner = [&](const std::string& policy, const std::string& problem,
                          std::vector<std::string> who) {
    const Decision decision = decide({"", policy, {}, "", problem, std::move(who), ""});
    EXPECT_EQ(decision.fallback, "") << policy;
    return outcome(decision);
  };
  EXPECT_EQ(winner(error, kGpu, kBoth), "flash 1.0.0");
  // The one that says no ranks lower, or is denied by the policy, or is on another device.
  EXPECT_EQ(winner(error, kWide, {"unfused 1.0.0 rocm gfx1100", "narrow 1.0.0 rocm gfx1100"}),
            "unfused 1.0.0");
  EXPECT_EQ(winner(error + "rules: [{deny: [flash]}]", kWide, kBoth), "unfused 1.0.0");
  EXPECT_EQ(winner(error + "staging: allow", "device=cpu dtype=f16 head_dim=256", kStaged),
            "cpu 1.0.0");
  // The one that says no is another version of the winner.
  EXPECT_EQ(winner("on_fallback: error", "device=rocm head_dim=64",
                   {"narrow 1.0.0 rocm", "narrow 2.0.0 rocm"}),
            "narrow 2.0.0");
}

TEST(Select, AVersionOfTheWinnerHidesNoFallback) {
  auto all = candidates({"unfused 1.0.0 rocm gfx1100", "flash 1.0.0 rocm gfx1100"});
  // unfused 2.0.0, which supports next to nothing, ranks best and says no; flash says no; unfused
  // 1.0.0 serves.
  auto newer = std::make_shared<FoundPlugin>();
  newer->path = newer->hash = "plugins/unfused-2.so";
  newer->manifest = *parse_manifest(
      "name: unfused\nversion: 2.0.0\nabi: 1\ndevices: [rocm]\nsupports: [{dtype: f32}]", "");
  all.push_back({newer, nullptr, all[0].device});
  const Decision decision =
      select(policy_of("backends: {unfused: {priority: 200}, flash: {priority: 200}}\n"
                       "rules: [{prefer: [flash]}]\non_fallback: warn"),
             {all, {}}, problem_of(kWide), "");
  EXPECT_EQ(outcome(decision), "unfused 1.0.0");
  EXPECT_EQ(decision.fallback, "flash 1.0.0: head_dim 256 is above 128");
}

TEST(Select, TheOrderOfCandidatesChangesNothing) {
  const std::vector<std::string> lines = {"flash 1.0.0 rocm gfx1100",
                                          "flash 1.2.0 rocm gfx1100",
                                          "unfused 1.0.0 rocm gfx1100",
                                          "narrow 1.0.0 rocm gfx1100",
                                          "cpu 1.0.0 cpu",
                                          "b 1.0.0 rocm:1 gfx942"};
  const std::vector<std::string> policies = {"",
                                             kPriorities,
                                             kPriorities + "staging: allow",
                                             rule("prefer: [cpu, narrow]"),
                                             rule("deny: [flash]"),
                                             kPriorities + "default: narrow"};
  const auto all = candidates(lines);
  for (const auto& text : policies) {
    for (const auto& words : {kGpu, kWide, kHost}) {
      const Policy policy = policy_of(text);
      const Problem problem = problem_of(words);
      const std::string first = decision_json(select(policy, {all, {}}, problem, "")).text();
      std::vector<size_t> order = {0, 1, 2, 3, 4, 5};
      do {
        std::vector<Candidate> shuffled;
        for (const size_t i : order) shuffled.push_back(all[i]);
        ASSERT_EQ(decision_json(select(policy, {shuffled, {}}, problem, "")).text(), first)
            << text << words;
      } while (std::next_permutation(order.begin(), order.end()));
    }
  }
}

TEST(Select, TheFirstFileOfEqualBytesWins) {
  auto one = std::make_shared<FoundPlugin>(), two = std::make_shared<FoundPlugin>();
  one->path = "a/cpu.so", two->path = "b/cpu.so";
  one->hash = two->hash = "same";
  one->manifest = two->manifest = found_plugin("cpu", "1.0.0", "cpu")->manifest;
  for (const auto& [first, second] : {std::pair{one, two}, std::pair{two, one}}) {
    const Decision decision = select(
        policy_of(""), {{{first, nullptr, {}}, {second, nullptr, {}}}, {}}, problem_of(kHost), "");
    ASSERT_NE(decision.winner(), nullptr);
    EXPECT_EQ(decision.winner()->candidate.plugin, first);
  }
}

TEST(Select, SupposedDevicesAreSaidToBeSo) {
  const Decision decision = decide({"", kPriorities, {}, "", kGpu, kBoth, ""});
  EXPECT_TRUE(decision.supposed);
  EXPECT_THAT(decision_text(decision),
              HasSubstr("judged by its manifest, this machine has no such device"));
  EXPECT_THAT(decision_text(decision), HasSubstr("judged by its manifest alone"));
}

TEST(Select, AnArchThatTheManifestDoesNotName) {
  const Candidate only{found_plugin("cpu", "1.0.0", "rocm", "gfx942"),
                       nullptr,
                       {ATTNRT_DEVICE_ROCM, 0, "gfx1100", "", 0}};
  const Decision decision = select(policy_of(""), {{only}, {}}, problem_of(kGpu), "gfx1100");
  EXPECT_EQ(decision.status, ATTNRT_UNSUPPORTED);
  EXPECT_THAT(decision.verdicts[0].reasons, ElementsAre("arch gfx1100 is not gfx942"));
}

TEST(Select, AStagedProblemIsDenseOnItsDevice) {
  const Device device{ATTNRT_DEVICE_ROCM, 3, "gfx1100", "", 0};
  Problem problem = problem_of("device=cpu dtype=f16 head_dim=64 alignment_bytes=1");
  EXPECT_EQ(problem_on(device, problem).alignment_bytes, 16);
  EXPECT_EQ(problem_on(device, problem).device_type, ATTNRT_DEVICE_ROCM);
  EXPECT_EQ(problem_on(device, problem).device_id, 3);
  for (const auto& [head_dim, alignment] :
       {std::pair{5, 2}, std::pair{6, 4}, std::pair{12, 8}, std::pair{40, 16}}) {
    problem.head_dim = head_dim;  // and head_dim_v, which stays 64
    EXPECT_EQ(problem_on(device, problem).alignment_bytes, alignment) << head_dim;
  }
  problem.kv_dtype = {ATTNRT_DTYPE_INT, 8, 1};
  EXPECT_EQ(problem_on(device, problem).alignment_bytes, 8) << "40 bytes of a row of k";
  const Problem at_home = problem_of("device=rocm alignment_bytes=2");
  EXPECT_EQ(problem_on(device, at_home).alignment_bytes, 2);
}

TEST(Select, VerdictsStandBestFirst) {
  const Decision decision =
      decide({"",
              kPriorities,
              {},
              "",
              kWide,
              {"narrow 1.0.0 rocm", "cpu 1.0.0 rocm", "flash 1.0.0 rocm", "unfused 1.0.0 rocm"},
              ""});
  ASSERT_THAT(decision.verdicts, SizeIs(4));
  std::vector<std::string> names;
  for (const auto& verdict : decision.verdicts)
    names.push_back(verdict.candidate.plugin->manifest->name);
  EXPECT_THAT(names, ElementsAre("unfused", "cpu", "flash", "narrow"));
}

}  // namespace
}  // namespace attnrt::core
