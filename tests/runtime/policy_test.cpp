// tests/runtime/policy_test.cpp: the order of candidates, and every reason to exclude one
#include "policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <sstream>

#include "support/golden.hpp"

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Setup {
  std::string policy;
  Environment environment = {};
  std::string call = {};
  std::string problem = "device=rocm dtype=f16 head_dim=64";
};

Policy policy_of(const Setup& setup) {
  auto config = read_config(setup.policy, "policy.yaml", setup.environment);
  EXPECT_TRUE(config) << config.error().message;
  return {std::make_shared<const Config>(config ? *std::move(config) : Config{}), Call{setup.call}};
}

Problem problem_of(std::string_view words) {
  Problem problem = default_problem();
  std::string arch;
  EXPECT_TRUE(parse_problem(words, problem, arch)) << words;
  return problem;
}

// "flash 1.2.0 rocm:0": a backend's version on a device. It is staged if the problem's device is
// another one.
struct Parts {
  std::string name, version_text, device, hash;
  int32_t device_id = 0;
  Version version;
};

CandidateView candidate(const std::string& text, const Problem& problem,
                        std::deque<Parts>& storage) {
  Parts parts;
  std::istringstream words(text);
  words >> parts.name >> parts.version_text >> parts.device >> parts.hash;
  if (const size_t colon = parts.device.find(':'); colon != std::string::npos) {
    parts.device_id = std::stoi(parts.device.substr(colon + 1));
    parts.device.resize(colon);
  }
  parts.version = parse_version(parts.version_text).value_or(Version{});
  const Parts& kept = storage.emplace_back(std::move(parts));
  CandidateView result{kept.name, &kept.version, kept.version_text, kept.device, kept.device_id,
                       "",        false,         kept.hash};
  if (kept.device == "rocm") result.arch = "gfx1100";
  result.staged = kept.device != device_name(problem.device_type);
  return result;
}

// The order in which selection tries the candidates. Those that the policy excludes, or that are
// not the one asked for by name, are missing.
std::string order(const Setup& setup, const std::vector<std::string>& candidates) {
  const Policy policy = policy_of(setup);
  const Problem problem = problem_of(setup.problem);
  std::deque<Parts> storage;
  std::vector<std::pair<CandidateView, std::string>> left;
  for (const std::string& text : candidates) {
    const CandidateView c = candidate(text, problem, storage);
    if (!policy.exclusions(c, problem).empty()) continue;
    if (policy.forced() && policy.forced()->name != c.name) continue;
    left.emplace_back(c, text);
  }
  std::sort(left.begin(), left.end(), [&](const auto& a, const auto& b) {
    return policy.before(a.first, policy.rank(a.first, problem), b.first,
                         policy.rank(b.first, problem));
  });
  std::vector<std::string> texts;
  for (const auto& [c, text] : left) texts.push_back(text);
  return fmt::format("{}", fmt::join(texts, " > "));
}

Environment backend_variable(const char* name) {
  Environment environment;
  environment.backend = name;
  return environment;
}

Environment disable_variable(const char* globs) {
  Environment environment;
  environment.disable = globs;
  return environment;
}

struct Row {
  const char* because;
  Setup setup;
  std::vector<std::string> candidates;
  const char* order;
};

// The truth table of precedence: each row changes one thing. Each is tried with the candidates in
// every rotation, since the order in which plugins were found must not matter.
TEST(Policy, Precedence) {
  const std::string prefer_b = "rules: [{prefer: [b]}]\n";
  const std::string ab = "backends: {a: {priority: 9}, b: {priority: 5}}\n";
  const Row rows[] = {
      // What the policy excludes stays excluded, whoever asks for it.
      {"disabled",
       {"backends: {a: {enabled: false}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"disabled, though the call asks",
       {"backends: {a: {enabled: false}}", {}, "a"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       ""},
      {"disabled, though default asks",
       {"default: a\nbackends: {a: {enabled: false}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       ""},
      {"disabled, though preferred",
       {"rules: [{prefer: [a]}]\nbackends: {a: {enabled: false}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"ATTNRT_DISABLE",
       {"", disable_variable("x,a*")},
       {"ab 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"ATTNRT_DISABLE, though the call asks",
       {"", disable_variable("a"), "a"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       ""},
      {"denied, though the call asks",
       {"rules: [{deny: [a]}]", {}, "a"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       ""},
      {"denied by the later of two rules",
       {"rules: [{deny: [x]}, {deny: [a]}]"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"a deny that does not match",
       {"rules: [{deny: [a], when: {head_dim: 128}}]"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "a 1.0.0 rocm > b 1.0.0 rocm"},
      {"out of the range, though ATTNRT_BACKEND asks",
       {"backends: {a: {version: \"<2\"}}", backend_variable("a")},
       {"a 2.0.0 rocm", "b 1.0.0 rocm"},
       ""},
      {"not for this problem",
       {"backends: {a: {only: {head_dim: {max: 32}}}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"unlisted",
       {"unlisted: deny\nbackends: {b: {priority: -1}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm"},

      // A forced name comes from the call, then ATTNRT_BACKEND, then default. Only that backend
      // stays, in all its versions and on all its devices.
      {"call before variable and default",
       {"default: c", backend_variable("b"), "a"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "a 1.0.0 rocm"},
      {"variable before default",
       {"default: c", backend_variable("b")},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "b 1.0.0 rocm"},
      {"default", {"default: c"}, {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"}, "c 1.0.0 rocm"},
      {"default that is not there", {"default: d"}, {"a 1.0.0 rocm", "c 1.0.0 rocm"}, ""},
      {"forced before prefer and priority",
       {ab + prefer_b, {}, "c"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "c 1.0.0 rocm"},
      {"every version and device of a forced name",
       {"", {}, "a"},
       {"a 1.0.0 rocm:1", "a 1.0.0 rocm:0", "a 2.0.0 rocm", "b 1.0.0 rocm"},
       "a 2.0.0 rocm > a 1.0.0 rocm:0 > a 1.0.0 rocm:1"},

      // prefer before priority; the first matching rule with a prefer wins.
      {"prefer before priority",
       {ab + prefer_b},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm > a 1.0.0 rocm"},
      {"in the order of the list",
       {"rules: [{prefer: [c, b]}]"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "c 1.0.0 rocm > b 1.0.0 rocm > a 1.0.0 rocm"},
      {"the first rule that prefers",
       {"rules: [{deny: [x]}, {prefer: [b]}, {prefer: [c]}]"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "b 1.0.0 rocm > a 1.0.0 rocm > c 1.0.0 rocm"},
      {"the first that matches",
       {"rules: [{prefer: [b], when: {causal: true}}, {prefer: [c]}]"},
       {"b 1.0.0 rocm", "c 1.0.0 rocm"},
       "c 1.0.0 rocm > b 1.0.0 rocm"},
      {"the arch in a rule is the candidate's",
       {"rules: [{prefer: [b], when: {arch: gfx1100}}]"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm"},
       "b 1.0.0 rocm > a 1.0.0 rocm"},
      {"a rule for one arch ranks nobody else higher",
       {"staging: allow\nbackends: {a: {priority: 9}}\nrules: [{prefer: [x], when: {arch: "
        "gfx1100}}]"},
       {"a 1.0.0 rocm", "b 1.0.0 cpu"},
       "a 1.0.0 rocm > b 1.0.0 cpu"},

      // Staged candidates come after those that need no copy, unless a rule prefers them.
      {"staging never",
       {"backends: {c: {priority: 999}}"},
       {"a 1.0.0 rocm", "c 1.0.0 cpu"},
       "a 1.0.0 rocm"},
      {"staging never, though preferred",
       {"rules: [{prefer: [c]}]"},
       {"a 1.0.0 rocm", "c 1.0.0 cpu"},
       "a 1.0.0 rocm"},
      {"staged after the rest, whatever its priority",
       {"staging: allow\nbackends: {c: {priority: 999}}"},
       {"a 1.0.0 rocm", "c 1.0.0 cpu"},
       "a 1.0.0 rocm > c 1.0.0 cpu"},
      {"staged and preferred",
       {"staging: allow\nrules: [{prefer: [c]}]"},
       {"a 1.0.0 rocm", "c 1.0.0 cpu"},
       "c 1.0.0 cpu > a 1.0.0 rocm"},
      {"preferred on both: without a copy first",
       {"staging: allow\nrules: [{prefer: [c]}]"},
       {"c 2.0.0 cpu", "c 1.0.0 rocm"},
       "c 1.0.0 rocm > c 2.0.0 cpu"},

      // priority, version, name, device, device_id, hash.
      {"priority before version",
       {ab},
       {"a 1.0.0 rocm", "b 9.0.0 rocm"},
       "a 1.0.0 rocm > b 9.0.0 rocm"},
      {"unlisted is priority 0",
       {"backends: {b: {priority: -1}, c: {priority: 1}}"},
       {"a 1.0.0 rocm", "b 1.0.0 rocm", "c 1.0.0 rocm"},
       "c 1.0.0 rocm > a 1.0.0 rocm > b 1.0.0 rocm"},
      {"the newest version",
       {""},
       {"a 1.9.0 rocm", "a 1.10.0 rocm", "a 1.2.0 rocm"},
       "a 1.10.0 rocm > a 1.9.0 rocm > a 1.2.0 rocm"},
      {"version before name",
       {""},
       {"a 1.0.0 rocm", "b 2.0.0 rocm"},
       "b 2.0.0 rocm > a 1.0.0 rocm"},
      {"no pre-releases", {""}, {"a 2.0.0-rc.1 rocm", "a 1.0.0 rocm"}, "a 1.0.0 rocm"},
      {"no pre-releases in a range that names none",
       {"backends: {a: {version: \">=1\"}}"},
       {"a 2.0.0-rc.1 rocm", "a 1.0.0 rocm"},
       "a 1.0.0 rocm"},
      {"the pre-release that a range names",
       {"backends: {a: {version: \">=2.0.0-rc.1\"}}"},
       {"a 2.0.0-rc.1 rocm", "a 2.0.0 rocm", "a 1.0.0 rocm", "a 2.1.0-rc.1 rocm"},
       "a 2.0.0 rocm > a 2.0.0-rc.1 rocm"},
      {"name before device",
       {"staging: allow"},
       {"b 1.0.0 rocm", "a 1.0.0 rocm"},
       "a 1.0.0 rocm > b 1.0.0 rocm"},
      {"device before device_id",
       {"staging: allow", {}, "", "device=cpu"},
       {"a 1.0.0 rocm:0", "a 1.0.0 cuda:5"},
       "a 1.0.0 cuda:5 > a 1.0.0 rocm:0"},
      {"device_id before hash",
       {""},
       {"a 1.0.0 rocm:2 aa", "a 1.0.0 rocm:10 00"},
       "a 1.0.0 rocm:2 aa > a 1.0.0 rocm:10 00"},
      {"hash", {""}, {"a 1.0.0 rocm bb", "a 1.0.0 rocm aa"}, "a 1.0.0 rocm aa > a 1.0.0 rocm bb"},
  };
  for (const Row& row : rows) {
    auto candidates = row.candidates;
    for (size_t rotation = 0; rotation < candidates.size(); ++rotation) {
      std::rotate(candidates.begin(), candidates.begin() + 1, candidates.end());
      EXPECT_EQ(order(row.setup, candidates), row.order) << row.because;
    }
  }
}

TEST(Policy, BeforeIsAStrictOrder) {
  const Policy policy =
      policy_of({"staging: allow\nbackends: {a: {priority: 1}}\nrules: [{prefer: [b], when: "
                 "{head_dim: 64}}]"});
  const Problem problem = problem_of("device=rocm head_dim=64");
  std::deque<Parts> storage;
  std::vector<CandidateView> all;
  for (const char* name : {"a", "b", "c"}) {
    for (const char* version : {"1.0.0", "1.0.0-rc.1", "2.0.0"}) {
      for (const char* device : {"cpu", "rocm:0", "rocm:1"})
        all.push_back(
            candidate(fmt::format("{} {} {} h", name, version, device), problem, storage));
    }
  }
  const auto before = [&](const CandidateView& a, const CandidateView& b) {
    return policy.before(a, policy.rank(a, problem), b, policy.rank(b, problem));
  };
  for (const CandidateView& a : all) {
    EXPECT_FALSE(before(a, a));
    for (const CandidateView& b : all) {
      EXPECT_EQ(&a != &b, before(a, b) != before(b, a));
      for (const CandidateView& c : all)
        EXPECT_TRUE(!(before(a, b) && before(b, c)) || before(a, c));
    }
  }
}

std::vector<std::string> exclusions(const Setup& setup, const std::string& text) {
  const Problem problem = problem_of(setup.problem);
  std::deque<Parts> storage;
  const CandidateView c = candidate(text, problem, storage);
  return policy_of(setup).exclusions(c, problem);
}

TEST(Policy, EveryExclusionNamesItsOrigin) {
  EXPECT_THAT(exclusions({""}, "cpu 1.0.0 rocm"), IsEmpty());
  EXPECT_THAT(exclusions({"backends:\n  a: {enabled: false}"}, "a 1.0.0 rocm"),
              ElementsAre("disabled (policy.yaml:2:16)"));
  EXPECT_THAT(exclusions({"", disable_variable("[ab]")}, "a 1.0.0 rocm"),
              ElementsAre("disabled by ATTNRT_DISABLE ([ab])"));
  EXPECT_THAT(exclusions({"unlisted: deny"}, "a 1.0.0 rocm"),
              ElementsAre("not listed, and unlisted is deny (policy.yaml:1:11)"));
  EXPECT_THAT(
      exclusions({"rules:\n  - {deny: [a]}\n  - {name: wide, deny: [a], when: {head_dim: 64}}"},
                 "a 1.0.0 rocm"),
      ElementsAre("denied by rule 1 (policy.yaml:2:5)", "denied by wide (policy.yaml:3:5)"));
  EXPECT_THAT(exclusions({"backends: {a: {version: \">=1.0, <2\"}}"}, "a 2.1.0 rocm"),
              ElementsAre("version 2.1.0 is not in >=1.0, <2 (policy.yaml:1:25)"));
  EXPECT_THAT(exclusions({""}, "a 2.0.0-rc.1 rocm"),
              ElementsAre("version 2.0.0-rc.1 is a pre-release, and no version range names it"));
  EXPECT_THAT(
      exclusions({"backends: {a: {only: {head_dim: {max: 32}, dtype: bf16}}}"}, "a 1.0.0 rocm"),
      ElementsAre("head_dim 64 is above 32 (only, policy.yaml:1:22)",
                  "dtype f16 is not bf16 (only, policy.yaml:1:22)"));
  EXPECT_THAT(exclusions({"staging: never"}, "a 1.0.0 cpu"),
              ElementsAre("the tensors are on rocm, and staging is never (policy.yaml:1:10)"));
  EXPECT_THAT(exclusions({"backends: {a: {enabled: false, version: <1, only: {head_dim: "
                          "7}}}\nrules: [{deny: [a]}]"},
                         "a 1.0.0 cpu"),
              ::testing::SizeIs(5));
}

// `when` sees the problem as it was asked, `only` as it would be on the candidate's device.
TEST(Policy, WhenSeesWhereTensorsLiveAndOnlySeesTheCandidatesDevice) {
  const std::string staging = "staging: allow\n";
  EXPECT_THAT(exclusions({staging + "rules: [{deny: [a], when: {device: rocm}}]"}, "a 1.0.0 cpu"),
              ::testing::SizeIs(1));
  EXPECT_THAT(exclusions({staging + "rules: [{deny: [a], when: {device: cpu}}]"}, "a 1.0.0 cpu"),
              IsEmpty());
  EXPECT_THAT(exclusions({staging + "backends: {a: {only: {device: cpu}}}"}, "a 1.0.0 cpu"),
              IsEmpty());
  EXPECT_THAT(exclusions({staging + "backends: {a: {only: {device: rocm}}}"}, "a 1.0.0 cpu"),
              ElementsAre("device cpu is not rocm (only, policy.yaml:2:22)"));
  EXPECT_THAT(exclusions({"backends: {a: {only: {arch: [gfx942, sm_80+]}}}"}, "a 1.0.0 rocm"),
              ElementsAre("arch gfx1100 is not in {gfx942, sm_80+} (only, policy.yaml:1:22)"));
}

TEST(Policy, ForcedSaysWhoAsked) {
  EXPECT_FALSE(policy_of({""}).forced());
  EXPECT_EQ(policy_of({"default: c", backend_variable("b"), "a"}).forced()->by, "the call");
  EXPECT_EQ(policy_of({"default: c", backend_variable("b")}).forced()->by, "ATTNRT_BACKEND");
  EXPECT_EQ(policy_of({"default: c"}).forced()->by, "default (policy.yaml:1:10)");
  EXPECT_FALSE(policy_of({"default: null"}).forced());
}

TEST(Policy, PreferringGivesTheRule) {
  const Policy policy =
      policy_of({"rules: [{deny: [x]}, {name: r, prefer: [b], when: {head_dim: 64}}]"});
  std::deque<Parts> storage;
  const Problem problem = problem_of("device=rocm head_dim=64");
  const CandidateView c = candidate("a 1.0.0 rocm", problem, storage);
  ASSERT_NE(policy.preferring_rule(c, problem), nullptr);
  EXPECT_EQ(policy.preferring_rule(c, problem)->name, "r");
  EXPECT_EQ(policy.preferring_rule(c, problem_of("device=rocm head_dim=32")), nullptr);
}

TEST(Policy, ThePredecessorsFlashLimits) {
  const auto file = std::filesystem::path(ATTNRT_TESTS_DIR).parent_path() / "config" /
                    "predecessor_flash_limits.yaml";
  const std::string text = testing::read_file(file);
  const std::pair<const char*, bool> rows[] = {{"head_dim=128 seq_q=2048 seq_kv=2048", true},
                                               {"head_dim=129", false},
                                               {"seq_q=2049", false},
                                               {"seq_kv=2049", false},
                                               {"mask=boolean", false},
                                               {"mask=additive", false},
                                               {"mask=additive causal=true", true},
                                               {"causal=true", true},
                                               {"head_dim=64", true}};
  for (const auto& [words, serves] : rows) {
    const auto reasons =
        exclusions({text, {}, "", std::string("device=rocm ") + words}, "hip_flash 1.0.0 rocm");
    EXPECT_EQ(reasons.empty(), serves) << words;
    EXPECT_THAT(
        exclusions({text, {}, "", std::string("device=rocm ") + words}, "hip_unfused 1.0.0 rocm"),
        IsEmpty());
  }
}

}  // namespace
}  // namespace attnrt::core
