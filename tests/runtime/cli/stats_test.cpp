// tests/runtime/cli/stats_test.cpp: attnrt stats, on what applications save and on anything else
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/command.hpp"

namespace attnrt::cli {
namespace {

using Words = std::vector<std::string>;

constexpr const char* kSaved = R"({
  "schema": "attnrt/1", "kind": "stats", "version": "0.1.0", "pid": 42, "later": {"field": 1},
  "opened": "2026-12-01T04:00:00.000Z", "written": "2026-12-01T05:00:00.000Z",
  "reloads": 2, "failed_reloads": 1, "decisions": 9, "mapped_plugins": 3,
  "decision_cache": {"hits": 1200, "misses": 8},
  "plan_cache": {"hits": 1190, "misses": 10, "evictions": 4, "idle_plans": 2,
                 "idle_bytes": 524288},
  "candidates": [
    {"name": "flash", "version": "1.3.0", "arch": "gfx1100", "device": "rocm", "device_id": 1,
     "sha256": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
     "present": false, "plans": 5, "runs": 700, "failovers": 3, "held_bytes": 1048576,
     "idle_bytes": 0, "quarantine": {"opened": 3, "trials": 2, "closed": 1},
     "failures": [{"stage": "run", "status": "internal error", "count": 3,
                   "last_time": "2026-12-01T04:59:00.123Z",
                   "message": "run: flash: \u001b[31mno"}]},
    {"name": "cpu", "version": "1.0.0", "arch": "", "device": "cpu", "device_id": 0,
     "sha256": "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
     "present": true, "plans": 5, "runs": 500, "failovers": 0, "held_bytes": 524288,
     "idle_bytes": 524288, "quarantine": {"opened": 0, "trials": 0, "closed": 0}, "failures": []}
  ],
  "rollouts": [
    {"name": "flash", "version": "1.3.0", "phase": "rolled back", "calls": 0, "taken": 0,
     "sha256": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
     "settings": "version >=1.3, canary 1/20, after 1000", "origin": "policy.yaml:4:25",
     "clean": 0, "after": 1000, "since": "2026-12-01T04:59:00.123Z",
     "reason": "run: flash: \u001b[31mno"
}],
  "earlier": {
  "candidates" : 7, "plans" : 70, "runs" : 700, "failovers" : 0,
      "quarantine" : {"opened" : 1, "trials" : 1, "closed" : 0}, "failures" : [ {
        "stage" : "plan",
        "status" : "out of memory",
        "count" : 1,
        "last_time" : null,
        "message" : ""
      } ]
}
})";

class Stats : public ::testing::Test {
 protected:
  Outcome attnrt(Words words, const std::map<std::string, std::string>& environment = {},
                 const std::function<void()>& prepare = {}) const {
    return attnrt_in(directory, std::move(words), environment, nullptr, ATTNRT_COMMAND, prepare);
  }
  const fakes::Directory directory;
};

TEST_F(Stats, ShowsWhatWasSaved) {
  directory.write("saved.json", kSaved);
  const Outcome shown = attnrt({"stats", "saved.json"});
  EXPECT_EQ(shown.exit, 0) << shown.err;
  EXPECT_EQ(shown.err, "");
  EXPECT_TRUE(testing::matches_golden("cli/stats.txt", normalised(shown.out, directory)));

  const std::string path = directory.text() + "/saved.json";
  const Outcome from_stdin = attnrt({"stats", "-"}, {}, [&] {
    if (dup2(open(path.c_str(), O_RDONLY), 0) < 0) _exit(126);
  });
  EXPECT_EQ(from_stdin.out, shown.out) << from_stdin.err;
}

TEST_F(Stats, WritesTheSameDocument) {
  directory.write("saved.json", kSaved);
  const Outcome json = attnrt({"stats", "--json", "saved.json"});
  EXPECT_EQ(json.exit, 0) << json.err;
  auto expected = nlohmann::json::parse(kSaved);
  expected.erase("later");
  EXPECT_EQ(nlohmann::json::parse(json.out), expected);
}

TEST_F(Stats, RefusesEverythingElse) {
  const std::string no_stats = "bad.json: expected a document of schema attnrt/1 and kind stats";
  const auto saved_with = [](const char* pointer, const nlohmann::json& value) {
    auto document = nlohmann::json::parse(kSaved);
    document[nlohmann::json::json_pointer(pointer)] = value;
    return document.dump();
  };
  auto without = nlohmann::json::parse(kSaved);
  without["plan_cache"].erase("hits");
  const std::pair<std::string, std::string> cases[] = {
      {"", no_stats},
      {"no JSON", no_stats},
      {"[]", no_stats},
      {std::string(100'000, '['), no_stats},
      {saved_with("/kind", "decision"), no_stats},
      {saved_with("/schema", "attnrt/2"), no_stats},
      {without.dump(), "bad.json: plan_cache.hits: expected a whole number, at least 0"},
      {saved_with("/plan_cache", 3), "bad.json: plan_cache: expected an object"},
      {saved_with("/candidates", 3), "bad.json: candidates: expected a list"},
      {saved_with("/candidates/1", 3), "bad.json: candidates[1]: expected an object"},
      {saved_with("/candidates/1/runs", -1),
       "bad.json: candidates[1].runs: expected a whole number, at least 0"},
      {saved_with("/candidates/1/held_bytes", 18446744073709551615U),
       "bad.json: candidates[1].held_bytes: expected a whole number, at least 0"},
      {saved_with("/candidates/0/failures/0/message", 5),
       "bad.json: candidates[0].failures[0].message: expected text"},
      {saved_with("/rollouts/0/phase", "trial"),
       "bad.json: rollouts: found the phase trial, expected shadow, canary, promoted or rolled "
       "back"},
      {saved_with("/rollouts/0/clean", "9"),
       "bad.json: rollouts[0].clean: expected a whole number, at least 0"},
      {saved_with("/candidates/0/present", "yes"),
       "bad.json: candidates[0].present: expected true or false"},
      {saved_with("/earlier/quarantine", nullptr),
       "bad.json: earlier.quarantine: expected an object"}};
  for (const auto& [text, message] : cases) {
    directory.write("bad.json", text);
    const Outcome outcome = attnrt({"stats", "bad.json"});
    expect_refusal(outcome, 2);
    EXPECT_NE(outcome.err.find("attnrt stats: " + message), std::string::npos) << outcome.err;
  }
  expect_refusal(attnrt({"stats", "absent.json"}), 2);
  expect_refusal(attnrt({"stats", "."}), 2);
  expect_refusal(attnrt({"stats"}), 2);
  directory.write("saved.json", kSaved);
  expect_refusal(attnrt({"stats", "saved.json", "--policy", "x"}), 2);
}

// A command that decides saves its counters; one that does not replaces no file.
TEST_F(Stats, OfACommandThatRuns) {
  std::filesystem::copy_file(ATTNRT_CPU_PLUGIN, directory.path() / "cpu.so");
  const std::map<std::string, std::string> environment = {{"ATTNRT_STATS", "saved.json"},
                                                          {"ATTNRT_PLUGIN_PATH", directory.text()}};
  EXPECT_EQ(attnrt({"list"}, environment).exit, 0);
  EXPECT_EQ(attnrt({"explain", "head_dim=8"}, environment).exit, 0);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "saved.json"));
  const Outcome run = attnrt(
      {"run", "--input", ATTNRT_TESTS_DIR "/data/smollm2_layer18_decode.safetensors"}, environment);
  EXPECT_EQ(run.exit, 0) << run.err;
  const Outcome shown = attnrt({"stats", "saved.json"}, environment);
  EXPECT_NE(shown.out.find("cpu 1.0.0"), std::string::npos) << shown.out << shown.err;
  EXPECT_EQ(shown.err, "");
}

TEST_F(Stats, DecisionsAreLinesOnStderr) {
  std::filesystem::copy_file(ATTNRT_CPU_PLUGIN, directory.path() / "cpu.so");
  const Outcome run =
      attnrt({"run", "--input", ATTNRT_TESTS_DIR "/data/smollm2_layer18_decode.safetensors"},
             {{"ATTNRT_LOG", "error,decision"}, {"ATTNRT_PLUGIN_PATH", directory.text()}});
  ASSERT_TRUE(run.err.starts_with("attnrt: decision: {")) << run.err;
  EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  const auto decision = nlohmann::json::parse(run.err.substr(run.err.find('{')));
  EXPECT_EQ(decision["chosen"], "cpu");
}

}  // namespace
}  // namespace attnrt::cli
