// tests/runtime/config_test.cpp: what policies and the environment set, warn of and get wrong
#include "config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "support/golden.hpp"

namespace attnrt::core {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Config config(std::string_view text, const Environment& environment = {},
              const std::string& file = "/etc/attnrt/policy.yaml") {
  auto read = read_config(text, file, environment);
  EXPECT_TRUE(read) << read.error().message;
  return read ? *std::move(read) : Config{};
}

std::string error(std::string_view text, const Environment& environment = {}) {
  const auto read = read_config(text, "policy.yaml", environment);
  if (read) return "accepted";
  EXPECT_EQ(read.error().code, ATTNRT_INVALID_ARGUMENT);
  return read.error().message;
}

std::vector<std::filesystem::path> golden_inputs(bool warnings) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(testing::golden_path("config"))) {
    const bool warns = entry.path().filename().string().starts_with("warn_");
    if (entry.path().extension() == ".yaml" && warns == warnings) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  EXPECT_FALSE(paths.empty());
  return paths;
}

TEST(Config, TheBuiltInPolicyHolds) {
  const Config c = config("");
  EXPECT_THAT(c.directories.value, IsEmpty());
  EXPECT_FALSE(c.load_by_path.value);
  EXPECT_EQ(c.threads.value, 0);
  EXPECT_FALSE(c.staging.value);
  ASSERT_EQ(c.backends.size(), 3U);
  EXPECT_EQ(c.backends.at("hip_flash").priority.value, 300);
  EXPECT_EQ(c.backends.at("hip_unfused").priority.value, 200);
  EXPECT_EQ(c.backends.at("cpu").priority.value, 100);
  for (const auto& [name, backend] : c.backends) {
    EXPECT_TRUE(backend.enabled.value) << name;
    EXPECT_THAT(backend.version.value.comparisons, IsEmpty()) << name;
    EXPECT_THAT(backend.only.value, IsEmpty()) << name;
    EXPECT_THAT(backend.options, IsEmpty()) << name;
  }
  EXPECT_TRUE(c.unlisted.value);
  EXPECT_EQ(c.default_backend.value, std::nullopt);
  EXPECT_THAT(c.rules.value, IsEmpty());
  EXPECT_EQ(c.on_fallback.value, OnFallback::warn);
  EXPECT_FALSE(c.watch.value);
  EXPECT_EQ(c.forced_backend.value, std::nullopt);
  EXPECT_THAT(c.disabled.value, IsEmpty());
  EXPECT_EQ(c.log_level.value, ATTNRT_LOG_WARNING);
  EXPECT_THAT(c.warnings, IsEmpty());
}

// The file is the documentation of every key, and what is compiled in is that file.
TEST(Config, TheBuiltInPolicyNamesEveryKey) {
  const auto file =
      std::filesystem::path(ATTNRT_TESTS_DIR).parent_path() / "config" / "default.yaml";
  EXPECT_EQ(testing::read_file(file), builtin_policy());
  const std::string text(builtin_policy());
  for (const char* key :
       {"schema:",        "plugins:",       "directories:", "load:",        "threads:",
        "staging:",       "backends:",      "priority:",    "enabled:",     "version:",
        "only:",          "options:",       "unlisted:",    "default:",     "rules:",
        "name:",          "when:",          "prefer:",      "deny:",        "on_fallback:",
        "min:",           "max:",           "multiple_of:", "equals:",      "trust:",
        "keys:",          "signatures:",    "allow:",       "sha256:",      "foreign_owner",
        "group_writable", "world_writable", "set_id",       "relative_path"}) {
    EXPECT_THAT(text, HasSubstr(key));
  }
  for (const Word& word : vocabulary()) EXPECT_THAT(text, HasSubstr(std::string(word.name)));
}

TEST(Config, NothingSaidIsTheBuiltInPolicy) {
  for (const std::string_view text :
       {"# only a comment\n", "---\n", "null\n", "{}", "\n\n\n", "backends:\nplugins:\nrules:\n",
        "backends: {cpu: }", "backends: {cpu: {only: , options: }}", "plugins: {}", "schema: 1"}) {
    const Config c = config(text);
    EXPECT_EQ(c.backends.at("cpu").priority.value, 100) << text;
    EXPECT_EQ(c.threads.origin.substr(0, 16), "built-in policy:") << text;
    EXPECT_THAT(c.rules.origin, HasSubstr("built-in policy:")) << text;
    EXPECT_THAT(c.warnings, IsEmpty()) << text;
  }
}

TEST(Config, EveryValueKnowsItsOrigin) {
  const Config c = config(
      "threads: 4\n"
      "backends:\n"
      "  cpu:\n"
      "    priority: 7\n"
      "    options: {b: 2, a: \"one\"}\n"
      "  triton: {version: \">=1.0, <2\", only: {head_dim: 64}}\n"
      "rules:\n"
      "  - {deny: [cpu]}\n"
      "  - name: second\n"
      "    prefer: cpu\n",
      {}, "policy.yaml");
  EXPECT_EQ(c.threads.origin, "policy.yaml:1:10");
  EXPECT_THAT(c.staging.origin, HasSubstr("built-in policy:"));
  const BackendSettings& cpu = c.backends.at("cpu");
  EXPECT_EQ(cpu.priority.origin, "policy.yaml:4:15");
  EXPECT_EQ(cpu.enabled.origin, "default");
  EXPECT_THAT(cpu.options, ElementsAre(Pair("b", "2"), Pair("a", "one")));
  EXPECT_EQ(cpu.options_origin, "policy.yaml:5:14");
  const BackendSettings& triton = c.backends.at("triton");
  EXPECT_EQ(triton.priority.value, 0);
  EXPECT_EQ(triton.version.origin, "policy.yaml:6:21");
  EXPECT_EQ(triton.only.origin, "policy.yaml:6:40");
  EXPECT_THAT(c.backends.at("hip_flash").enabled.origin, HasSubstr("built-in policy:"));
  ASSERT_EQ(c.rules.value.size(), 2U);
  EXPECT_EQ(c.rules.value[0].name, "rule 1");
  EXPECT_EQ(c.rules.value[0].origin, "policy.yaml:8:5");
  EXPECT_EQ(c.rules.value[1].name, "second");
  EXPECT_EQ(c.rules.value[1].origin, "policy.yaml:9:5");
  EXPECT_THAT(c.rules.value[1].prefer, ElementsAre("cpu"));
}

TEST(Config, BackendsMergeByKeyAndTheRestReplaces) {
  const Config c = config(
      "backends:\n"
      "  hip_flash: {enabled: false}\n"
      "  cpu: {priority: -2147483648}\n");
  EXPECT_EQ(c.backends.at("hip_flash").priority.value, 300);  // kept
  EXPECT_FALSE(c.backends.at("hip_flash").enabled.value);
  EXPECT_EQ(c.backends.at("cpu").priority.value, INT32_MIN);
  EXPECT_EQ(c.backends.at("hip_unfused").priority.value, 200);
  EXPECT_EQ(c.backends.size(), 3U);
}

TEST(Config, EveryKeyReachesItsSetting) {
  const Config c = config(
      "schema: 1\nplugins: {directories: [/opt/a, b, ../c], load: path}\nthreads: 1024\nstaging: "
      "allow\nunlisted: "
      "deny\n"
      "default: cpu\non_fallback: error\nrules: [{name: r, when: {device: rocm}, deny: [x, y]}]\n");
  EXPECT_THAT(c.directories.value, ElementsAre("/opt/a", "/etc/attnrt/b", "/etc/c"));
  EXPECT_TRUE(c.load_by_path.value);
  EXPECT_EQ(c.load_by_path.origin, "/etc/attnrt/policy.yaml:2:49");
  EXPECT_EQ(c.threads.value, 1024);
  EXPECT_TRUE(c.staging.value);
  EXPECT_FALSE(c.unlisted.value);
  EXPECT_EQ(c.default_backend.value, "cpu");
  EXPECT_EQ(c.on_fallback.value, OnFallback::error);
  EXPECT_EQ(c.rules.value[0].when.size(), 1U);
  EXPECT_THAT(c.rules.value[0].deny, ElementsAre("x", "y"));
  EXPECT_EQ(config("on_fallback: allow").on_fallback.value, OnFallback::allow);
  EXPECT_EQ(config("").plan_cache_bytes.value, int64_t{256} << 20);
  EXPECT_EQ(config("plan_cache: {bytes: 1 GiB}").plan_cache_bytes.value, int64_t{1} << 30);
  EXPECT_EQ(config("plan_cache: {bytes: 0}").plan_cache_bytes.value, 0);
  EXPECT_TRUE(config("watch: true").watch.value);
  EXPECT_EQ(config("watch: true").watch.origin, "/etc/attnrt/policy.yaml:1:8");
  EXPECT_EQ(config("plan_cache: {bytes: 1 GiB}").plan_cache_bytes.origin,
            "/etc/attnrt/policy.yaml:1:21");
  EXPECT_EQ(config("default: null").default_backend.value, std::nullopt);
  EXPECT_THAT(config("default: ~").default_backend.origin, HasSubstr("policy.yaml:1:"));
  for (const char* file : {"./policy.yaml", "policy.yaml"})
    EXPECT_THAT(config("plugins: {directories: [p]}", {}, file).directories.value, ElementsAre("p"))
        << file;
  EXPECT_THAT(config("plugins: {directories: [/p]}", {}, "").directories.origin, "policy:1:24");
  EXPECT_THAT(config("plugins: {directories: []}").directories.origin, HasSubstr("policy.yaml"));
}

TEST(Config, Trust) {
  const std::string key = "RWQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcitay";
  const std::string hash(64, 'A');
  EXPECT_THAT(config("").trust.keys.value, IsEmpty());
  EXPECT_TRUE(config("").trust.signatures_required.value);
  EXPECT_THAT(config("").trust.allow, IsEmpty());
  EXPECT_THAT(config("").trust.sha256, IsEmpty());
  const Config c = config("trust:\n  keys: [" + key + "]\n  signatures: optional\n" +
                          "  allow: {group_writable: one team, set_id: \"why not\"}\n" +
                          "backends:\n  cpu: {sha256: [" + hash + "]}\n");
  ASSERT_EQ(c.trust.keys.value.size(), 1U);
  EXPECT_EQ(minisign::id_text(c.trust.keys.value[0].id), "B1B712BD849D9B3B");
  EXPECT_EQ(c.trust.keys.origin, "/etc/attnrt/policy.yaml:2:9");
  EXPECT_FALSE(c.trust.signatures_required.value);
  EXPECT_EQ(c.trust.allow.size(), 2U);
  EXPECT_EQ(c.trust.allow.at("group_writable").value, "one team");
  EXPECT_EQ(c.trust.allow.at("set_id").origin, "/etc/attnrt/policy.yaml:4:45");
  EXPECT_THAT(c.trust.sha256.at("cpu").value, ElementsAre(std::string(64, 'a')));
  EXPECT_EQ(c.trust.sha256.at("cpu").origin, "/etc/attnrt/policy.yaml:6:17");
  EXPECT_TRUE(config("trust: {keys: " + key + "}").trust.signatures_required.value);
  for (const char* nothing : {"trust:", "trust: {}", "trust: {allow: }", "trust: {keys: []}",
                              "trust: {signatures: null}"})
    EXPECT_EQ(config(nothing).trust.allow.size() + config(nothing).trust.keys.value.size(), 0U);
}

TEST(Config, TheExamplesAreValid) {
  const auto folder = std::filesystem::path(ATTNRT_TESTS_DIR).parent_path() / "config";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename() == "bench.yaml")
      continue;  // attnrt bench's grid; its own test reads it
    const Config c = config(testing::read_file(entry.path()), {}, entry.path().string());
    EXPECT_THAT(c.warnings, IsEmpty()) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 4);
}

TEST(Config, ErrorsAreTheGoldenOnes) {
  std::string lines;
  for (const auto& path : golden_inputs(false)) {
    const auto read = read_config(testing::read_file(path), path.filename().string(), {});
    EXPECT_FALSE(read) << path;
    lines += read ? path.filename().string() + ": accepted\n" : read.error().message + "\n";
    EXPECT_TRUE(read || read.error().code == ATTNRT_INVALID_ARGUMENT);
  }
  EXPECT_TRUE(testing::matches_golden("config/errors.txt", lines));
}

TEST(Config, TextInNoFileHasNoFolder) {
  const auto read = read_config("plugins: {directories: [p]}", "", {});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message,
            "policy:1:25: plugins.directories: found p, expected an absolute path: this policy is "
            "not in a file, so there is no folder to be relative to");
}

// What is right is read, and what one mistake leads to is no second one.
TEST(Config, EveryErrorIsFound) {
  Errors errors;
  const auto read = read_config(
      "schema: 1\n"
      "thread: 4\n"
      "staging: maybe\n"
      "plugins: {directories: [a, [b]], load: now, loads: path}\n"
      "backends:\n"
      "  cpu: {priorty: 3, enabled: yes, version: \"^1\", only: {head_dim: wide, dtyp: f16}, "
      "options: {a: [b]}}\n"
      "  No: {priority: x}\n"
      "  right: {priority: 7}\n"
      "unlisted: no\n"
      "rules:\n"
      "  - {when: {seq_q: {max: few}, causal: 2}, prefer: [cpu, cpu, C]}\n"
      "  - word\n"
      "  - {whn: {}}\n"
      "  - {name: nothing}\n"
      "on_fallback: panic\n",
      "policy.yaml", {}, &errors);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message, errors.front().message);
  std::vector<std::string> lines;
  for (const Error& error : errors)
    lines.push_back(error.message.substr(0, error.message.find(": found")));
  EXPECT_THAT(
      lines,
      ElementsAre("policy.yaml:2:1: thread: unknown key; did you mean threads?",
                  "policy.yaml:4:45: plugins.loads: unknown key; did you mean load?",
                  "policy.yaml:4:40: plugins.load", "policy.yaml:4:28: plugins.directories",
                  "policy.yaml:3:10: staging",
                  "policy.yaml:6:9: backends.cpu.priorty: unknown key; did you mean priority?",
                  "policy.yaml:6:30: backends.cpu.enabled",
                  "policy.yaml:6:44: backends.cpu.version", "policy.yaml:6:67: head_dim",
                  "policy.yaml:6:73: dtyp: unknown key; did you mean dtype?",
                  "policy.yaml:6:98: backends.cpu.options.a", "policy.yaml:7:3: backends",
                  "policy.yaml:7:18: backends.No.priority", "policy.yaml:9:11: unlisted",
                  "policy.yaml:11:26: seq_q.max", "policy.yaml:11:40: causal",
                  "policy.yaml:11:58: rules[1].prefer", "policy.yaml:11:63: rules[1].prefer",
                  "policy.yaml:12:5: rules[2]",
                  "policy.yaml:13:6: rules[3].whn: unknown key; did you mean when?",
                  "policy.yaml:14:5: rules[4]", "policy.yaml:15:14: on_fallback"));
}

TEST(Config, ErrorsOfTextThatIsNoYamlAreOne) {
  Errors errors;
  EXPECT_FALSE(read_config("thread: 4\na: [1\n", "policy.yaml", {}, &errors));
  EXPECT_EQ(errors.size(), 1U);
}

TEST(Config, WarningsAreTheGoldenOnes) {
  std::string lines;
  for (const auto& path : golden_inputs(true)) {
    const auto read = read_config(testing::read_file(path), path.filename().string(), {});
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_FALSE(read->warnings.empty()) << path;
    for (const std::string& warning : read->warnings) lines += warning + "\n";
  }
  EXPECT_TRUE(testing::matches_golden("config/warnings.txt", lines));
}

TEST(Config, ABackendThatNobodyHasIsNoWarning) {
  EXPECT_THAT(config("rules: [{prefer: [not_there_yet], when: {batch: 1}}]\nbackends: {nor_this: "
                     "{priority: 5}}\n"
                     "default: not_there_yet\n")
                  .warnings,
              IsEmpty());
}

TEST(Config, TheEnvironmentComesLast) {
  Environment environment;
  environment.plugin_path = "/opt/one:build/two::";
  environment.backend = "hip_flash";
  environment.disable = "hip_*, cpu_?,,";
  environment.log = "debug";
  environment.warnings = {"ATTNRT_BACKED: unknown variable, ignored; did you mean ATTNRT_BACKEND?"};
  const Config c = config("plugins: {directories: [/etc/plugins]}", environment);
  EXPECT_THAT(c.directories.value, ElementsAre("/opt/one", "build/two"));
  EXPECT_EQ(c.directories.origin, "ATTNRT_PLUGIN_PATH");
  EXPECT_EQ(c.forced_backend.value, "hip_flash");
  EXPECT_EQ(c.forced_backend.origin, "ATTNRT_BACKEND");
  EXPECT_THAT(c.disabled.value, ElementsAre("hip_*", "cpu_?"));
  EXPECT_EQ(c.log_level.value, ATTNRT_LOG_DEBUG);
  EXPECT_EQ(c.log_level.origin, "ATTNRT_LOG");
  EXPECT_THAT(
      c.warnings,
      ElementsAre(
          "ATTNRT_BACKED: unknown variable, ignored; did you mean ATTNRT_BACKEND?",
          "ATTNRT_BACKEND: it names hip_flash, which is disabled by ATTNRT_DISABLE (hip_*)"));
}

TEST(Config, AnEmptyVariableIsNoVariable) {
  Environment environment;
  environment.plugin_path = environment.backend = environment.disable = environment.log = "";
  const Config c = config("", environment);
  EXPECT_EQ(c.forced_backend.value, std::nullopt);
  EXPECT_THAT(c.directories.origin, HasSubstr("built-in"));
  EXPECT_THAT(c.disabled.value, IsEmpty());
  EXPECT_EQ(c.log_level.value, ATTNRT_LOG_WARNING);
}

TEST(Config, LogLevels) {
  const std::pair<const char*, int> rows[] = {{"debug", ATTNRT_LOG_DEBUG},
                                              {"info", ATTNRT_LOG_INFO},
                                              {"warning", ATTNRT_LOG_WARNING},
                                              {"error", ATTNRT_LOG_ERROR},
                                              {"off", ATTNRT_LOG_OFF}};
  Environment environment;
  for (const auto& [text, level] : rows) {
    environment.log = text;
    EXPECT_EQ(config("", environment).log_level.value, level);
  }
  environment.log = "loud";
  EXPECT_EQ(error("", environment),
            "ATTNRT_LOG: found loud, expected debug, info, warning, error, off, and perhaps "
            ",decision");
}

TEST(Config, DecisionsAreLoggedBesideALevel) {
  Environment environment;
  EXPECT_FALSE(config("", environment).log_decisions);
  for (const auto& [text, level] : {std::pair{"decision", ATTNRT_LOG_WARNING},
                                    {"error,decision", ATTNRT_LOG_ERROR},
                                    {"decision, off", ATTNRT_LOG_OFF}}) {
    environment.log = text;
    EXPECT_TRUE(config("", environment).log_decisions) << text;
    EXPECT_EQ(config("", environment).log_level.value, level) << text;
  }
  environment.log = "error,debug";
  EXPECT_EQ(error("", environment), "ATTNRT_LOG: found error,debug, expected one level");
  environment.log = "error,decisions";
  EXPECT_THAT(error("", environment), HasSubstr("ATTNRT_LOG: found error,decisions"));
}

TEST(Config, ReadsTheProcessEnvironment) {
  for (const char* name :
       {"ATTNRT_POLICY", "ATTNRT_PLUGIN_PATH", "ATTNRT_BACKEND", "ATTNRT_DISABLE", "ATTNRT_LOG"})
    unsetenv(name);
  EXPECT_EQ(read_environment().backend, std::nullopt);
  setenv("ATTNRT_BACKEND", "cpu", 1);
  setenv("ATTNRT_POLICY", "", 1);
  setenv("ATTNRT_DISBLE", "x", 1);
  setenv("ATTNRT_COMPLETELY_OTHER", "x", 1);
  const Environment environment = read_environment();
  EXPECT_EQ(environment.backend, "cpu");
  EXPECT_EQ(environment.policy, std::nullopt);
  EXPECT_THAT(environment.warnings,
              Contains("ATTNRT_DISBLE: unknown variable, ignored; did you mean ATTNRT_DISABLE?"));
  EXPECT_THAT(environment.warnings,
              Contains(AllOf(
                  HasSubstr("ATTNRT_COMPLETELY_OTHER: unknown variable, ignored; expected one of "),
                  HasSubstr("ATTNRT_POLICY"))));
  for (const char* name :
       {"ATTNRT_BACKEND", "ATTNRT_POLICY", "ATTNRT_DISBLE", "ATTNRT_COMPLETELY_OTHER"})
    unsetenv(name);
}

TEST(Config, SwitchedOffSaysWhereAndBy) {
  Environment environment;
  environment.disable = "exp_*";
  const Config c = config("unlisted: deny\nbackends: {cpu: {enabled: false}, exp_a: {priority: 1}}",
                          environment, "policy.yaml");
  EXPECT_EQ(switched_off(c, "cpu"), "disabled (policy.yaml:2:27)");
  EXPECT_EQ(switched_off(c, "exp_a"), "disabled by ATTNRT_DISABLE (exp_*)");
  EXPECT_EQ(switched_off(c, "other"), "not listed, and unlisted is deny (policy.yaml:1:11)");
  EXPECT_EQ(switched_off(c, "hip_flash"), "");
}

// The rollout of cpu, or the error.
std::string rollout_of(const std::string& value) {
  const auto read = read_config("backends: {cpu: {rollout: " + value + "}}\n", "policy.yaml", {});
  if (!read) return read.error().message;
  const auto& rollout = read->backends.find("cpu")->second.rollout.value;
  return rollout ? rollout->text() : "none";
}

TEST(Config, Rollout) {
  EXPECT_EQ(rollout_of("{version: '>=1.3', canary: 1/20}"), "version >=1.3, canary 1/20");
  EXPECT_EQ(rollout_of("{version: '>=1.3', shadow: 3/1000, canary: null, after: 500}"),
            "version >=1.3, shadow 3/1000, after 500");
  EXPECT_EQ(rollout_of("{version: '>=1.3', canary: 1000000/1000000, after: null}"),
            "version >=1.3, canary 1000000/1000000");
  EXPECT_EQ(rollout_of("null"), "none");
  const std::string place = "policy.yaml:1:27: backends.cpu.rollout: ";
  EXPECT_EQ(
      rollout_of("{canary: 1/20}"),
      place +
          "found no version, expected the range of the new versions, such as version: \">=1.3\"");
  EXPECT_EQ(rollout_of("{version: '>=1.3'}"),
            place +
                "found neither canary nor shadow, expected the part of the calls that try it, "
                "such as canary: 1/20");
  for (const char* part : {"0/20", "21/20", "1/0", "1/1000001", "-1/20", "1", "5 %", "1/20/3", "/",
                           "[1/20]", "0.05", "1 /20", "99999999999999999999/1"}) {
    EXPECT_THAT(rollout_of(fmt::format("{{version: '>=1', canary: {}}}", part)),
                HasSubstr("expected a fraction of the calls from 1/1000000 to 1/1"))
        << part;
  }
  for (const char* after : {"0", "-1", "many", "1.5", "1000000000001"}) {
    EXPECT_THAT(rollout_of(fmt::format("{{version: '>=1', canary: 1/2, after: {}}}", after)),
                HasSubstr("backends.cpu.rollout.after: found"))
        << after;
  }
  EXPECT_THAT(rollout_of("{version: '^1', canary: 1/2}"),
              HasSubstr("backends.cpu.rollout.version: "));
  EXPECT_THAT(rollout_of("{version: '>=1', canry: 1/2}"), HasSubstr("did you mean canary?"));
  EXPECT_THAT(rollout_of("word"), HasSubstr("backends.cpu.rollout"));
}

TEST(Config, SurvivesAnyMutation) {
  const std::string examples[] = {std::string(builtin_policy()),
                                  "backends: {x: {priority: 1, version: \">=1.0, <2\", only: "
                                  "{head_dim: {max: 128}}, options: {a: b}, rollout: {version: "
                                  "\">=1.3\", shadow: 1/1000, canary: 1/20, after: 9}}}\nrules:\n"
                                  "  - &r {name: tiny, when: {device: cpu, seq_q: {max: 4}}, "
                                  "prefer: [cpu]}\n  - *r\ndefault: null\non_fallback: "
                                  "warn\n"};
  const std::string_view pieces[] = {"[",
                                     "]",
                                     "{",
                                     "}",
                                     ": ",
                                     "- ",
                                     "&a ",
                                     "*a",
                                     "*r",
                                     "\n",
                                     "\n  ",
                                     "\t",
                                     "010",
                                     "1e400",
                                     ".nan",
                                     "\x01",
                                     "\xFF",
                                     "null",
                                     "~",
                                     "'",
                                     "\"",
                                     "<<: ",
                                     "99999999999999999999",
                                     "---\n",
                                     "? ",
                                     "|",
                                     "!!map "};
  std::mt19937 random(29);
  for (int round = 0; round < 6000; ++round) {
    std::string text = examples[round % 2];
    for (auto edits = 1 + random() % 5; edits > 0; --edits) {
      const size_t place = random() % (text.size() + 1);
      switch (random() % 4) {
        case 0:
          if (place < text.size()) text[place] = static_cast<char>(random() % 256);
          break;
        case 1: text.erase(place, random() % 12); break;
        case 2: text.insert(place, pieces[random() % std::size(pieces)]); break;
        default: text.insert(place, std::string(text, random() % (text.size() + 1), random() % 40));
      }
    }
    const auto read = read_config(text, "policy.yaml", {});
    if (read) continue;
    EXPECT_THAT(read.error().message, ::testing::StartsWith("policy.yaml:"));
    EXPECT_EQ(read.error().message.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace attnrt::core
