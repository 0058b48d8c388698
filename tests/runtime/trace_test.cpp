// tests/runtime/trace_test.cpp: decisions, plugins and policies as text and as JSON
#include "trace.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/candidates.hpp"
#include "support/golden.hpp"

namespace attnrt::core {
namespace {

using namespace support;
using attnrt::testing::matches_golden;
using ::testing::HasSubstr;

struct Scene {
  std::string name, policy, call, problem, arch;
};

std::vector<Scene> scenes() {
  const std::string priorities =
      "backends: {flash: {priority: 300}, unfused: {priority: 200}, cpu: {priority: 100}}\n";
  const std::string gpu =
      "device=rocm dtype=f16 heads_q=8 heads_kv=2 seq_q=128 seq_kv=512 head_dim=64 causal=true "
      "lse=true";
  const std::string wide =
      "device=rocm dtype=bf16 head_dim=192 head_dim_v=128 window_left=4096 softcap=50 scale=0.125";
  return {
      {"chosen", priorities, "", gpu, "gfx1100"},
      {"fallback", priorities, "", wide, ""},
      {"fallback_error", priorities + "on_fallback: error", "", wide, ""},
      {"preferred",
       priorities + "rules: [{name: small, when: {seq_q: {max: 128}}, prefer: [unfused]}]", "", gpu,
       ""},
      {"denied",
       priorities + "rules: [{name: no gpu, when: {device: rocm}, deny: [flash, unfused]}]", "",
       gpu, ""},
      {"forced", priorities, "unfused", gpu, ""},
      {"not_found", priorities, "flahs", gpu, ""},
      {"staged", "staging: allow\n" + priorities, "flash", "device=cpu dtype=f16 head_dim=64", ""},
  };
}

Decision decide(const Scene& scene) {
  auto broken = std::make_shared<FoundPlugin>();
  broken->path = "plugins/broken.so";
  broken->fault = "is not an ELF file; a plugin is a shared library";
  Candidates found;
  found.list = candidates({"flash 1.0.0 rocm gfx1100", "flash 1.1.0-rc.1 rocm gfx1100",
                           "unfused 1.0.0 rocm:1 gfx1100"});
  found.excluded = {{found_plugin("cpu", "1.0.0", "cpu"), "is for cpu; the tensors are on rocm"},
                    {broken, broken->fault}};
  return select(policy_of(scene.policy, {}, scene.call), found, problem_of(scene.problem),
                scene.arch);
}

nlohmann::json parsed(const Json& json) { return nlohmann::json::parse(json.text()); }

TEST(Trace, DecisionTexts) {
  std::string text;
  for (const Scene& scene : scenes())
    text += fmt::format("# {}\n{}\n", scene.name, decision_text(decide(scene)));
  EXPECT_TRUE(matches_golden("trace/decisions.txt", text));
}

TEST(Trace, DecisionJson) {
  nlohmann::json all = nlohmann::json::object();
  for (const Scene& scene : scenes()) all[scene.name] = parsed(decision_json(decide(scene)));
  EXPECT_TRUE(matches_golden("trace/decisions.json", all.dump(2) + "\n"));
}

// Scripts read these keys, so every document must have them.
TEST(Trace, EveryDecisionHasTheSameKeys) {
  for (const Scene& scene : scenes()) {
    const auto json = parsed(decision_json(decide(scene)));
    EXPECT_EQ(json.at("schema"), "attnrt/1");
    EXPECT_EQ(json.at("kind"), "decision");
    for (const char* key : {"problem", "arch", "status", "message", "why", "fallback", "supposed",
                            "chosen", "candidates", "others"}) {
      EXPECT_TRUE(json.contains(key)) << scene.name << " " << key;
    }
    size_t chosen = 0;
    for (const auto& candidate : json.at("candidates"))
      chosen += candidate.at("chosen").get<bool>() ? 1 : 0;
    EXPECT_EQ(chosen, json.at("chosen").is_null() ? 0u : 1u) << scene.name;
    EXPECT_EQ(json.at("status") == "ok", !json.at("chosen").is_null()) << scene.name;
  }
}

TEST(Trace, EveryWordOfTheProblemIsInItsJson) {
  const auto json = parsed(decision_json(decide(scenes()[0]))).at("problem");
  for (const Word& word : vocabulary()) {
    if (word.name == "arch") continue;
    EXPECT_TRUE(json.contains(word.name)) << word.name;
  }
  EXPECT_EQ(json.at("causal"), true);
  EXPECT_TRUE(json.at("window_left").is_null());
  EXPECT_FLOAT_EQ(json.at("scale"), 0.125f);
}

TEST(Trace, AnEmptyDecision) {
  const Decision decision = select(policy_of(""), {}, problem_of("device=cpu"), "");
  EXPECT_THAT(decision_text(decision), HasSubstr("no plugin was found"));
  EXPECT_TRUE(parsed(decision_json(decision)).at("chosen").is_null());
}

// A snapshot without plugins.
Snapshot snapshot_of(const std::string& policy, const Environment& environment = {}) {
  Snapshot snapshot;
  auto config = read_config(policy, "etc/policy.yaml", environment);
  EXPECT_TRUE(config) << (config ? "" : config.error().message);
  if (config) snapshot.config = std::make_shared<const Config>(*std::move(config));
  snapshot.policy_file = policy.empty() ? "" : "etc/policy.yaml";
  snapshot.directories = {"plugins", "more"};
  snapshot.directories_origin = "call";
  return snapshot;
}

TEST(Trace, Plugins) {
  const Snapshot snapshot = snapshot_of("");
  auto broken = std::make_shared<FoundPlugin>();
  broken->path = "plugins/broken.so";
  broken->hash = "00ff";
  broken->fault = "is empty";
  const auto noted = std::make_shared<FoundPlugin>();
  noted->path = "more/newer.so";
  noted->manifest = found_plugin("newer", "1.0.0", "cpu")->manifest;
  noted->manifest->notes = {"newer.so:3:1: colour: unknown key, ignored"};
  const std::vector<PluginRow> rows = {
      {found_plugin("cpu", "1.0.0", "cpu"), "ready", "", {{ATTNRT_DEVICE_CPU, 0, "", "cpu", 0}}},
      {found_plugin("flash", "1.0.0", "rocm"),
       "ready",
       "",
       {{ATTNRT_DEVICE_ROCM, 0, "gfx1100", "RX 7900 XTX", 25753026560},
        {ATTNRT_DEVICE_ROCM, 1, "gfx942", "", 0}}},
      {found_plugin("unfused", "1.0.0", "rocm, cuda"), "no device", "no HIP library was found", {}},
      {noted, "disabled", "disabled (etc/policy.yaml:1:1)", {}, noted->manifest->notes},
      {broken, "broken", broken->fault, {}}};
  EXPECT_TRUE(matches_golden("trace/plugins.txt",
                             plugins_text(snapshot, rows) + plugins_text(snapshot, {})));
  EXPECT_TRUE(matches_golden("trace/plugins.json", plugins_json(snapshot, rows).text() + "\n"));
}

TEST(Trace, Policies) {
  const std::string policy =
      "plugins: {directories: [/opt/plugins]}\nthreads: 4\nstaging: allow\n"
      "backends:\n  flash: {priority: 7, version: '>=1.0, <2', only: {head_dim: {max: 128}}, "
      "options: {tile: 64}}\n"
      "unlisted: deny\ndefault: flash\n"
      "rules:\n  - {when: {seq_q: {max: 4}, dtype: [f16, bf16]}, prefer: [cpu], deny: [flash, "
      "unfused]}\n"
      "on_fallback: error\n";
  const Environment environment{.backend = "cpu", .disable = "uni*, x?", .log = "debug"};
  const std::string text =
      policy_text(snapshot_of("")) + policy_text(snapshot_of(policy, environment));
  EXPECT_TRUE(matches_golden("trace/policies.txt", without_builtin_places(text)));
  const std::string json = policy_json(snapshot_of(policy, environment)).text() + "\n";
  EXPECT_TRUE(matches_golden("trace/policy.json", without_builtin_places(json)));
}

}  // namespace
}  // namespace attnrt::core
