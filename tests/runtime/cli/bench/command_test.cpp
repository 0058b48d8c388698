// tests/runtime/cli/bench/command_test.cpp: attnrt bench on good, wrong and failing backends
#include "support/command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/threads.hpp"

namespace attnrt::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

class Bench : public ::testing::Test {
 protected:
  // Runs `attnrt bench` on these plugins, with few samples and one thread unless words say
  // otherwise.
  Outcome bench(Words words, const Words& plugins = {"fake_full"}) const {
    for (const std::string& plugin : plugins) directory.add(plugin);
    words.insert(words.begin(), "bench");
    words.insert(words.end(), {"--plugins", directory.text(), "--samples", "3"});
    if (std::find(words.begin(), words.end(), "--threads") == words.end())
      words.insert(words.end(), {"--threads", "1"});
    return attnrt_in(directory, std::move(words));
  }
  static nlohmann::json document(const Outcome& outcome) {
    const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << outcome.out << outcome.err;
    return json;
  }
  static const nlohmann::json& measurement(const nlohmann::json& document,
                                           const std::string& backend) {
    for (const auto& m : document["problems"][0]["measurements"])
      if (m["backend"] == backend) return m;
    throw std::runtime_error("no measurement of " + backend);
  }

  const fakes::Directory directory;
  const Words tiny = {"--seq", "8", "--heads", "2", "--head-dim", "16"};
  const Words tiny_json = {"--seq", "8", "--heads", "2", "--head-dim", "16", "--json"};
};

TEST_F(Bench, Json) {
  const Outcome outcome = bench(tiny_json, {"fake_full", "fake_rocm", "fake_narrow"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "") << "there must be no bar if stderr is not a terminal";
  std::string text = std::regex_replace(normalised(outcome.out, directory),
                                        std::regex("(_s|\"of_compute|\"of_memory)(\": )[0-9.e+-]+"),
                                        "$1$2\"NUMBER\"");
  text = std::regex_replace(text, std::regex("(\"amx_bf16_flop_s\": )(null|\"NUMBER\")"),
                            "$1\"NUMBER or null\"");
  text = std::regex_replace(text, std::regex("(\"runs\": )[0-9]+"), "$1\"COUNT\"");
  text = std::regex_replace(text, std::regex("(\"processor\": ).*"), "$1\"NAME\",");
  EXPECT_TRUE(testing::matches_golden("cli/bench.json", text));

  const auto json = document(outcome);
  const auto& m = measurement(json, "fake_rocm");
  const auto& time = m["time"];
  EXPECT_EQ(time["clock"], "device") << "the clock of the extension attnrt.timing/1";
  EXPECT_GT(time["fastest_us"], 0.0);
  EXPECT_LE(time["fastest_us"], time["quartile_low_us"]);
  EXPECT_LE(time["quartile_low_us"], time["median_us"]);
  EXPECT_LE(time["median_us"], time["quartile_high_us"]);
  const double flop = json["problems"][0]["flop"];
  EXPECT_NEAR(m["flop_s"].get<double>() * time["median_us"].get<double>(), flop * 1e6, flop * 10);
}

TEST_F(Bench, TextNamesWhatVariesOnceAndWhatIsSharedOnce) {
  const Outcome outcome =
      bench({"--seq", "8,16", "--heads", "2", "--head-dim", "16", "--causal", "both"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("problems: dtype=f32 batch=1 heads=2 head_dim=16\n"));
  EXPECT_THAT(outcome.out, HasSubstr("\nseq  causal  backend  "));
  EXPECT_THAT(outcome.out, HasSubstr("\n16   true    fake_full  "));
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 3 + 1 + 1 + 4);
  EXPECT_THAT(outcome.out, Not(HasSubstr("threads"))) << "there was one count";
  EXPECT_THAT(outcome.out, Not(HasSubstr("scaling")));
}

// Returns the words of each line of a table that names the backend.
std::vector<Words> rows_of(const std::string& table, const std::string& backend) {
  std::vector<Words> rows;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream stream(line);
    Words words{std::istream_iterator<std::string>(stream), {}};
    if (std::find(words.begin(), words.end(), backend) != words.end())
      rows.push_back(std::move(words));
  }
  return rows;
}

TEST_F(Bench, EachThreadCountIsMeasured) {
  if (core::usable_cpus() < 2) GTEST_SKIP() << "one CPU has one thread count";
  const Words words = {"--seq", "8,16", "--heads", "2", "--head-dim", "16", "--threads", "2,1"};
  Words json_words = words;
  json_words.emplace_back("--json");
  const auto json = document(bench(json_words, {"fake_full", "fake_rocm"}));
  EXPECT_EQ(json["threads"], 2);
  EXPECT_EQ(json["thread_counts"], nlohmann::json({2, 1}));
  std::string peaks;
  for (const auto& peak : json["peaks"]) {
    peaks += peak["device"].get<std::string>() + " " + peak["threads"].dump() + "; ";
    EXPECT_GT(peak["copy_bytes_s"], 0.0);
  }
  EXPECT_EQ(peaks, "cpu 2; rocm null; cpu 1; ");
  ASSERT_EQ(json["problems"].size(), 2U);
  for (size_t n = 0; n < 2; ++n) {
    EXPECT_EQ(json["problems"][n]["problem"]["seq_q"], n == 0 ? 8 : 16);
    std::string measured;
    for (const auto& m : json["problems"][n]["measurements"]) {
      measured += m["backend"].get<std::string>() + " " + m["threads"].dump() + "; ";
      EXPECT_EQ(m["state"], "measured") << m.dump(2);
    }
    EXPECT_EQ(measured, "fake_full 2; fake_rocm 2; fake_full 1; fake_rocm 1; ");
  }
  const double reached = json["problems"][0]["measurements"][2]["flop_s"];
  EXPECT_NEAR(json["problems"][0]["measurements"][2]["of_compute"].get<double>(),
              reached / json["peaks"][2]["fma_flop_s"].get<double>(), 1e-9)
      << "the share of the peak of one thread";

  const Outcome text = bench(words, {});
  EXPECT_EQ(text.exit, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr(", 2, 1 threads; medians of 3 samples"));
  EXPECT_THAT(text.out, HasSubstr("\ncpu, 2 threads: FMA "));
  EXPECT_THAT(text.out, HasSubstr("\ncpu, 1 thread: FMA "));
  EXPECT_THAT(text.out, HasSubstr("\nseq  threads  backend  "));
  EXPECT_THAT(text.out, HasSubstr("  speed  scaling\n"));
  for (const char* backend : {"fake_full", "fake_rocm"}) {
    const std::vector<Words> rows = rows_of(text.out, backend);
    ASSERT_EQ(rows.size(), 4U) << text.out;
    for (size_t n = 0; n < 4; ++n) {
      EXPECT_EQ(rows[n][0], n < 2 ? "8" : "16");
      EXPECT_EQ(rows[n][1], n % 2 == 0 ? "2" : "1");
      const auto flop_s = [](const Words& row) {  // after seq, threads, backend, time and spread
        const double factor = row[8] == "k"   ? 1e3
                              : row[8] == "M" ? 1e6
                              : row[8] == "G" ? 1e9
                                              : 1e12;
        return std::stod(row[7]) * factor;
      };
      const double ratio = flop_s(rows[n]) / flop_s(rows[n - n % 2]);
      EXPECT_NEAR(std::stod(rows[n].end()[-2]), ratio, 0.006 + 0.011 * ratio) << text.out;
    }
  }
}

TEST_F(Bench, FailuresOfEachThreadCountAreCounted) {
  if (core::usable_cpus() < 2) GTEST_SKIP() << "one CPU has one thread count";
  Words words = tiny;
  words.insert(words.end(), {"--threads", "1,2"});
  const Outcome outcome = bench(words, {"fake_full", "fake_run_internal"});
  EXPECT_EQ(outcome.exit, 3);
  EXPECT_EQ(outcome.err, "attnrt bench: 2 of 4 measurements failed, 0 gave wrong results\n");
  EXPECT_THAT(outcome.out,
              HasSubstr("\n2        fake_run_internal  FAILED: run was told to fail\n"));
}

// FLOP: 2 for each multiply-add, and for each pair of a query and a key that it sees, head_dim and
// head_dim_v multiply-adds of 16 each, in 2 heads.
TEST_F(Bench, FlopAndBytesCountWhatIsVisible) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads: 2, head_dim: 16, seq: 8}
  - {heads: 2, head_dim: 16, seq: 8, causal: true}
  - {heads: 2, head_dim: 16, seq_q: 3, seq_kv: 8, causal: true}
  - {heads: 2, head_dim: 16, seq_q: 3, seq_kv: 8, causal: true, align: top_left}
  - {heads: 2, head_dim: 16, seq: 8, causal: true, window_left: 1}
  - {heads: 2, head_dim: 16, seq_q: 1, seq_kv: 8, window_left: 2, window_right: 2}
  - {heads_q: 4, heads_kv: 2, head_dim: 16, head_dim_v: 8, batch: 3, seq: 8, dtype: f16}
)");
  const auto json = document(bench({"--grid", "grid.yaml", "--json"}));
  const double pairs[] = {64, 36, 6 + 7 + 8, 1 + 2 + 3, 1 + 7 * 2, 3};
  // Rows of q, and rows of k that some query sees.
  const double rows[] = {8 + 8, 8 + 8, 3 + 8, 3 + 3, 8 + 8, 1 + 3};
  for (size_t n = 0; n < std::size(pairs); ++n) {
    SCOPED_TRACE(n);
    EXPECT_EQ(json["problems"][n]["flop"], pairs[n] * 2 * 2 * (16 + 16));
    EXPECT_EQ(json["problems"][n]["bytes"], rows[n] * 2 * (16 + 16) * 4);
  }
  EXPECT_EQ(json["problems"][6]["flop"], 3.0 * 4 * 64 * 2 * (16 + 8));
  EXPECT_EQ(json["problems"][6]["bytes"], 3.0 * 8 * (4 + 2) * (16 + 8) * 2);
}

TEST_F(Bench, BytesCountWhatIsStored) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads: 2, head_dim: 16, seq_q: 3, seq_kv: 8, dtype: bf16, kv_dtype: i8, kv_scale: head}
  - {heads: 2, head_dim: 16, seq_q: 3, seq_kv: 8, dtype: bf16, kv_dtype: i8, kv_scale: token}
  - {heads: 2, head_dim: 16, head_dim_v: 8, seq_q: 3, seq_kv: 8, v_in_k: true}
  - {heads: 2, head_dim: 16, seq_q: 3, seq_kv: 8, dtype: bf16, out_dtype: f32}
  - {heads: 2, head_dim: 16, seq: 8, causal: true, diagonal_offset: true}
)");
  const auto json = document(bench({"--grid", "grid.yaml", "--json"}, {"fake_every_word"}));
  const auto bytes = [&](size_t n) { return json["problems"][n]["bytes"]; };
  const double rows_q = 3 * 2, rows_kv = 8 * 2;
  EXPECT_EQ(bytes(0), rows_q * (16 + 16) * 2 + rows_kv * (16 + 16));
  EXPECT_EQ(bytes(1), rows_q * (16 + 16) * 2 + rows_kv * (16 + 16) + rows_kv * 2 * 4);
  EXPECT_EQ(bytes(2), rows_q * (16 + 8) * 4 + rows_kv * 16 * 4);
  EXPECT_EQ(json["problems"][2]["flop"], 2.0 * 2 * 3 * 8 * (16 + 8));
  EXPECT_EQ(bytes(3), rows_q * (16 * 2 + 16 * 4) + rows_kv * (16 + 16) * 2);
  // Each query sees one key less than at its usual diagonal, and no query sees the last one.
  EXPECT_EQ(json["problems"][4]["flop"], 28.0 * 2 * 2 * (16 + 16));
  EXPECT_EQ(bytes(4), (8 + 7) * 2 * (16 + 16) * 4.0);
}

// Of 3 sequences, one has 32 keys and the others 2. A packed sequence has as many queries as keys,
// but at most 8.
TEST_F(Bench, FlopAndBytesCountTheLengthsOfSequences) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 1, seq_kv: 32, kv_lengths: true, lengths: one_long}
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 1, seq_kv: 32, kv_lengths: true, page_size: 4,
      lengths: one_long}
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 8, seq_kv: 32, varlen: true, lengths: one_long}
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 8, seq_kv: 32, varlen: true, lengths: one_long,
      causal: true}
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 1, seq_kv: 32, kv_lengths: true, lengths: one_long,
      window_left: 3}
)");
  const auto json = document(bench({"--grid", "grid.yaml", "--json"}));
  const double pairs[] = {36, 36, 8 * 32 + 2 * (2 * 2), 8 * 24 + 36 + 2 * 3, 4 + 2 + 2};
  const double q_rows[] = {3, 3, 12, 12, 3}, k_rows[] = {36, 36, 36, 36, 4 + 2 + 2};
  for (size_t n = 0; n < std::size(pairs); ++n) {
    SCOPED_TRACE(n);
    const auto& problem = json["problems"][n];
    EXPECT_EQ(problem["lengths"], "one_long");
    EXPECT_EQ(problem["flop"], pairs[n] * 2 * 2 * (16 + 16));
    EXPECT_EQ(problem["kv_bytes"], k_rows[n] * 2 * (16 + 16) * 4);
    EXPECT_EQ(problem["bytes"], (q_rows[n] + k_rows[n]) * 2 * (16 + 16) * 4);
    const auto& m = problem["measurements"][0];
    EXPECT_NEAR(m["kv_bytes_s"].get<double>() * m["time"]["median_us"].get<double>(),
                problem["kv_bytes"].get<double>() * 1e6, 1e3);
  }
}

// The reference evaluates each problem through views of the same tensors. If a view were wrong, the
// backend would be found wrong.
TEST_F(Bench, EveryFeatureIsMeasuredAndFoundRight) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads_q: 4, heads_kv: 2, head_dim: 16, seq: 24, batch: 2, dtype: [f32, f16, bf16],
      causal: both, lse: both}
  - {heads: 2, head_dim: 16, seq_q: 5, seq_kv: 24, causal: true,
      align: [bottom_right, top_left], alibi: true, sinks: true, lse: true}
  - {heads: 2, head_dim: 20, seq: 24, dtype: [f32, f16], mask: [boolean, additive], softcap: 30}
  - {heads: 2, head_dim: 16, head_dim_v: 24, batch: 3, seq_q: 5, seq_kv: 24, varlen: true,
      causal: both, lse: true}
  - {heads: 2, head_dim: 16, batch: 3, seq_q: 2, seq_kv: 24, page_size: 7, kv_lengths: true,
      varlen: both}
  - {heads: 2, head_dim: 16, batch: 2, seq: 24, kv_lengths: true, window_left: [3, unbounded],
      window_right: 2}
  - {heads: 2, head_dim: 16, seq: 24, mask: additive, mask_dtype: f32, dtype: bf16, scale: 0.5}
)");
  for (const char* plugin : {"fake_full", "fake_rocm"}) {
    const Outcome outcome = bench({"--grid", "grid.yaml", "--backend", plugin, "--json"}, {plugin});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    const auto json = document(outcome);
    EXPECT_EQ(json["ok"], true);
    ASSERT_EQ(json["problems"].size(), 12U + 2 + 4 + 2 + 2 + 2 + 1);
    for (const auto& problem : json["problems"])
      EXPECT_EQ(problem["measurements"][0]["state"], "measured") << problem.dump(2);
  }
}

TEST_F(Bench, EveryKindOfLengthsIsMeasuredAndFoundRight) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads_q: 4, heads_kv: 2, head_dim: 16, batch: 5, seq_q: 3, seq_kv: 40, kv_lengths: true,
      lengths: [one_long, ragged], causal: true, align: [bottom_right, top_left], lse: true}
  - {heads: 2, head_dim: 16, batch: 5, seq_q: 3, seq_kv: 40, kv_lengths: true, page_size: [1, 16],
      lengths: ragged, varlen: both, causal: true, lse: true}
  - {heads: 2, head_dim: 16, batch: 5, seq_q: [7, 40], seq_kv: 40, varlen: true,
      lengths: ragged, causal: true, align: [bottom_right, top_left], lse: true}
  - {heads: 2, head_dim: 16, batch: 5, seq_q: 2, seq_kv: 40, kv_lengths: true, mask: boolean,
      lengths: ragged}
)");
  for (const char* plugin : {"fake_full", "fake_rocm"}) {
    const Outcome outcome = bench({"--grid", "grid.yaml", "--backend", plugin, "--json"}, {plugin});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    const auto json = document(outcome);
    ASSERT_EQ(json["problems"].size(), 4U + 4 + 4 + 1);
    for (const auto& problem : json["problems"])
      EXPECT_EQ(problem["measurements"][0]["state"], "measured") << problem.dump(2);
  }
}

// Each group is a table with columns of its own; --group leaves others out.
TEST_F(Bench, EachGroupIsATable) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {group: plain, heads: 2, head_dim: 16, seq: [8, 16]}
  - {group: served, heads: 2, head_dim: 16, batch: 3, seq_q: 1, seq_kv: 32, kv_lengths: true,
      lengths: [one_long, ragged]}
)");
  const Outcome both = bench({"--grid", "grid.yaml"}, {"fake_full", "fake_narrow"});
  EXPECT_EQ(both.exit, 0) << both.err;
  EXPECT_THAT(both.out,
              HasSubstr("\n\nplain: dtype=f32 batch=1 heads=2 head_dim=16\nseq  backend "));
  EXPECT_THAT(both.out,
              HasSubstr("\n\nserved: dtype=f32 batch=3 heads=2 seq_q=1 seq_kv=32 head_dim=16 "
                        "kv_lengths=true\nlengths   backend "));
  EXPECT_THAT(both.out, HasSubstr("\none_long  fake_narrow  unsupported: uses kv_lengths, which it "
                                  "does not support\n"));
  EXPECT_THAT(both.out, HasSubstr("  KV B/s  "));
  const Outcome one = bench({"--grid", "grid.yaml", "--group", "served"}, {});
  EXPECT_THAT(one.out, Not(HasSubstr("plain")));
  const auto json = document(bench({"--grid", "grid.yaml", "--group", "plain", "--json"}, {}));
  ASSERT_EQ(json["problems"].size(), 2U);
  EXPECT_EQ(json["problems"][0]["group"], "plain");
}

TEST_F(Bench, EveryStorageIsMeasuredAndFoundRight) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads_q: 4, heads_kv: 2, head_dim: 16, batch: 2, seq_q: 3, seq_kv: 24, dtype: [f32, f16],
      kv_dtype: [f8_e4m3fn, f8_e4m3fnuz, i8], kv_scale: [none, tensor, head, token]}
  - {heads_q: 4, heads_kv: 2, head_dim: 16, batch: 3, seq: 24, kv_dtype: i8, kv_scale: token,
      varlen: true, causal: true, lse: true}
  - {heads_q: 4, heads_kv: 2, head_dim: 16, batch: 3, seq_q: 2, seq_kv: 24, page_size: 7,
      kv_lengths: true, kv_dtype: f8_e4m3fn, kv_scale: [head, token]}
  - {heads_q: 4, heads_kv: 1, head_dim: 24, head_dim_v: 16, seq_q: 2, seq_kv: 24, v_in_k: true,
      kv_dtype: [off, i8], dtype: bf16}
  - {heads: 2, head_dim: 16, seq: 24, dtype: [f32, f16, bf16], out_dtype: f32, lse: true}
  - {heads: 2, head_dim: 16, batch: 2, seq: 24, causal: true, align: [bottom_right, top_left],
      diagonal_offset: true, batch_invariant: both, lse: true}
)");
  for (const char* plugin : {"fake_every_word", "fake_rocm_every_word"}) {
    const Outcome outcome = bench({"--grid", "grid.yaml", "--backend", plugin, "--json"}, {plugin});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    const auto json = document(outcome);
    ASSERT_EQ(json["problems"].size(), 24U + 1 + 2 + 2 + 3 + 4);
    for (const auto& problem : json["problems"])
      EXPECT_EQ(problem["measurements"][0]["state"], "measured") << problem.dump(2);
  }
}

TEST_F(Bench, WordsOfStorageAreOptionsToo) {
  const Outcome outcome =
      bench({"--seq", "8", "--heads", "2", "--head-dim", "16", "--dtype", "bf16", "--kv-dtype",
             "off,i8", "--out-dtype", "f32", "--v-in-k", "both"},
            {"fake_every_word"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("problems: dtype=bf16 batch=1 heads=2 seq=8 head_dim=16 "
                                     "out_dtype=f32\n"));
  EXPECT_THAT(outcome.out, HasSubstr("\nkv_dtype  v_in_k  backend  "));
  EXPECT_THAT(outcome.out, HasSubstr("\ni8        true    fake_every_word  "));
}

TEST_F(Bench, WrongStorageGetsNoNumber) {
  const std::pair<const char*, Words> wrong[] = {
      {"fake_bad_kv_scale", {"--kv-dtype", "i8", "--kv-scale", "token"}},
      {"fake_bad_v_in_k", {"--v-in-k", "true", "--head-dim-v", "8"}},
      {"fake_bad_diagonal", {"--diagonal-offset", "true", "--causal", "true"}}};
  for (const auto& [plugin, more] : wrong) {
    Words words = tiny;
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {"--backend", plugin});
    const Outcome outcome = bench(words, {plugin});
    EXPECT_EQ(outcome.exit, 3) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("WRONG: ")) << plugin;
  }
}

// These are so long that the reference evaluates a part of the rows: the last ones, or the first
// ones if the diagonal starts there.
TEST_F(Bench, LongProblemsAreCheckedInPart) {
  directory.write("grid.yaml", R"(schema: 1
problems:
  - {heads: 8, head_dim: 64, seq_q: 64, seq_kv: 4096, causal: true,
      align: [bottom_right, top_left], lse: true}
  - {heads_q: 8, heads_kv: 2, head_dim: 64, batch: 3, seq_q: 40, seq_kv: 4096, varlen: true,
      causal: true, lse: true}
  - {heads: 8, head_dim: 64, batch: 3, seq_q: 40, seq_kv: 4096, page_size: 16, kv_lengths: true,
      causal: true, lse: true}
  - {heads: 8, head_dim: 64, seq_q: 64, seq_kv: 4096, mask: additive, alibi: true,
      window_left: 100, dtype: bf16}
  - {heads: 8, head_dim: 64, batch: 70, seq_q: 1, seq_kv: 4096, lse: true}
)");
  directory.copy(ATTNRT_CPU_PLUGIN, "cpu.so");
  const Outcome outcome = bench({"--grid", "grid.yaml", "--json"}, {});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  const auto json = document(outcome);
  ASSERT_EQ(json["problems"].size(), 6U);
  for (const auto& problem : json["problems"]) {
    const auto& m = problem["measurements"][0];
    EXPECT_EQ(m["state"], "measured") << problem.dump(2);
    EXPECT_THAT(m["checked"].get<std::string>(),
                ::testing::MatchesRegex("the reference in [0-9]+ of [0-9]+ rows"));
  }
}

TEST_F(Bench, ColdInputsAreCopiesThatGiveTheSame) {
  for (const char* plugin : {"fake_full", "fake_rocm"}) {
    Words words = {"--seq-q",    "1",  "--seq-kv", "4096",   "--heads",   "8",
                   "--head-dim", "64", "--cold",   "--json", "--backend", plugin};
    const Outcome outcome = bench(words, {plugin});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    EXPECT_EQ(document(outcome)["cold"], true);
    EXPECT_EQ(measurement(document(outcome), plugin)["state"], "measured") << outcome.out;
  }
}

TEST_F(Bench, ColdInputsHaveTheirScalesAndMayHaveNoV) {
  for (const char* plugin : {"fake_every_word", "fake_rocm_every_word"}) {
    const Words words = {"--seq-q",    "1",   "--seq-kv",  "4096",     "--heads",    "8",
                         "--head-dim", "256", "--cold",    "--v-in-k", "both",       "--json",
                         "--kv-dtype", "i8",  "--backend", plugin,     "--kv-scale", "token"};
    const Outcome outcome = bench(words, {plugin});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    for (const auto& problem : document(outcome)["problems"])
      EXPECT_EQ(problem["measurements"][0]["state"], "measured") << problem.dump(2);
  }
}

// A tiny problem would need tens of thousands of copies to be larger than a cache.
TEST_F(Bench, ColdCopiesOfTinyTensorsAreBounded) {
  Words words = tiny_json;
  words.emplace_back("--cold");
  const Outcome outcome = bench(words);
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.err,
            "attnrt: warning: device=cpu dtype=f32 batch=1 heads_q=2 heads_kv=2 seq_q=8 seq_kv=8 "
            "head_dim=16 head_dim_v=16: --cold makes 1024 copies of q, k and v, 3072 KiB in all, "
            "which a cache may hold\n");
}

// Of two versions, the one that the runtime chooses is named, also where it has no time.
TEST_F(Bench, TheVersionIsThatWhichTheRuntimeChooses) {
  const Words versions = {"fake_versions-1.0.0", "fake_versions-1.2.0", "fake_versions-2.0.0-rc.1"};
  const Words too_wide = {"--seq", "8", "--head-dim", "300", "--json"};
  EXPECT_EQ(measurement(document(bench(too_wide, versions)), "fake_versions")["version"], "1.2.0");
  directory.write("older.yaml", "schema: 1\nbackends: {fake_versions: {version: \"<1.2\"}}\n");
  Words older = too_wide;
  older.insert(older.end(), {"--policy", "older.yaml"});
  EXPECT_EQ(measurement(document(bench(older, {})), "fake_versions")["version"], "1.0.0");
  directory.write("candidate.yaml",
                  "schema: 1\nbackends: {fake_versions: {version: \">=2.0.0-rc.1\"}}\n");
  older.back() = "candidate.yaml";
  EXPECT_EQ(measurement(document(bench(older, {})), "fake_versions")["version"], "2.0.0-rc.1");
}

TEST_F(Bench, TheEnvironmentMayNameTheOnlyBackend) {
  for (const char* plugin : {"fake_full", "fake_minimal"}) directory.add(plugin);
  const Words words = {"bench",     "--seq", "8",         "--samples",      "1",
                       "--threads", "1",     "--plugins", directory.text(), "--json"};
  const auto names = [&](const Words& given, const std::string& backend) {
    const Outcome outcome = attnrt_in(directory, given, {{"ATTNRT_BACKEND", backend}});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    std::string text;
    const auto found = document(outcome);
    for (const auto& m : found["problems"][0]["measurements"])
      text += m["backend"].get<std::string>() + " ";
    return text + outcome.err;
  };
  EXPECT_EQ(names(words, ""), "fake_full fake_minimal ");
  EXPECT_EQ(names(words, "fake_minimal"),
            "fake_minimal attnrt: warning: ATTNRT_BACKEND is fake_minimal, so that only this "
            "backend is measured\n");
  Words asked = words;
  asked.insert(asked.end(), {"--backend", "fake_full"});
  EXPECT_EQ(names(asked, "fake_minimal"), "fake_full ");
}

// A wrong backend is found out whether it comes first, or after one that has left the right answer
// in the same memory.
TEST_F(Bench, WrongBackendsGetNoNumber) {
  for (const std::string plugin : {"fake_bad_garbage", "fake_bad_rough", "fake_bad_partial",
                                   "fake_bad_unwritten", "fake_rocm_lost_copies"}) {
    SCOPED_TRACE(plugin);
    for (const std::string& order : {plugin + ",fake_full", "fake_full," + plugin}) {
      Words words = tiny_json;
      words.insert(words.end(), {"--backend", order});
      const Outcome outcome = bench(words, {plugin, "fake_full"});
      EXPECT_EQ(outcome.exit, 3);
      EXPECT_EQ(outcome.err, "attnrt bench: 0 of 2 measurements failed, 1 gave wrong results\n");
      const auto json = document(outcome);
      EXPECT_EQ(json["ok"], false);
      const auto& wrong = measurement(json, plugin);
      EXPECT_EQ(wrong["state"], "wrong");
      EXPECT_THAT(wrong["reason"].get<std::string>(), HasSubstr("row "));
      EXPECT_TRUE(wrong["time"].is_null());
      EXPECT_TRUE(wrong["flop_s"].is_null());
      EXPECT_EQ(measurement(json, "fake_full")["state"], "measured")
          << "others must not be compared with a wrong output";
    }
  }
}

TEST_F(Bench, FailingBackendsAreNamedAndOthersMeasured) {
  const Outcome outcome = bench(
      tiny, {"fake_full", "fake_run_internal", "fake_plan_internal", "fake_plan_out_of_memory"});
  EXPECT_EQ(outcome.exit, 3);
  EXPECT_TRUE(
      outcome.err.ends_with("attnrt bench: 2 of 4 measurements failed, 0 gave wrong results\n"))
      << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("fake_run_internal        FAILED: run was told to fail\n"));
  EXPECT_THAT(outcome.out, HasSubstr("fake_plan_internal       FAILED: plan was told to fail\n"));
  EXPECT_THAT(outcome.out,
              HasSubstr("fake_plan_out_of_memory  unsupported: plan was told to fail\n"));
  EXPECT_THAT(outcome.out, HasSubstr(" 1.00 x\n"));
}

TEST_F(Bench, AProblemThatNoBackendSupports) {
  const Outcome outcome = bench(
      {"--seq", "8", "--heads", "2", "--head-dim", "16", "--causal", "both"}, {"fake_narrow"});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_EQ(outcome.err, "");
  EXPECT_THAT(
      outcome.out,
      HasSubstr("true    fake_narrow  unsupported: uses causal, which it does not support\n"));
  EXPECT_EQ(document(bench({"--seq", "99", "--json"}, {"fake_narrow"}))["ok"], false);
}

TEST_F(Bench, AProblemThatMemoryDoesNotHold) {
  const Outcome outcome =
      bench({"--seq-q", "4000000000000,1", "--seq-kv", "8", "--head-dim", "16"}, {"fake_full"});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(
      outcome.out,
      HasSubstr("4000000000000  fake_full  unsupported: its tensors need 5.5 PiB of memory, and "));
  EXPECT_THAT(outcome.out, HasSubstr("1              fake_full  "));
}

TEST_F(Bench, BadInput) {
  directory.write("key.yaml", "schema: 1\nproblem: []\n");
  directory.write("word.yaml", "schema: 1\nproblems:\n  - seq: 8\n    head_dims: 64\n");
  directory.write("device.yaml", "schema: 1\nproblems: [{device: cuda}]\n");
  directory.write("value.yaml", "schema: 1\nproblems:\n  - dtype: [f32, f8]\n");
  directory.write("both.yaml", "schema: 1\nproblems:\n  - head_dim: both\n");
  directory.write("map.yaml", "schema: 1\nproblems:\n  - seq: {min: 1}\n");
  directory.write("empty.yaml", "schema: 1\nproblems:\n  - seq: []\n");
  directory.write("nothing.yaml", "");
  directory.write("none.yaml", "schema: 1\nproblems: []\n");
  directory.write("list.yaml", "schema: 1\nproblems: [seq]\n");
  directory.write("schema.yaml", "schema: 2\nproblems: [{seq: 1}]\n");
  directory.write("heads.yaml",
                  "schema: 1\nproblems:\n  - seq: 8\n  - {heads_q: 9, heads_kv: 2}\n");
  directory.write("twice.yaml", "schema: 1\nproblems:\n  - {seq: 8, seq: 9}\n");
  directory.write("pair.yaml", "schema: 1\nproblems:\n  - {seq: 8, seq_q: 9}\n");
  directory.write("no_yaml.yaml", "problems: [\n");
  directory.write("lengths.yaml", "schema: 1\nproblems:\n  - {seq: 8, lengths: ragged}\n");
  directory.write("group.yaml", "schema: 1\nproblems:\n  - {seq: 8, group: \"a,b\"}\n");
  directory.write("many.yaml", "schema: 1\nproblems:\n  - {seq: [" +
                                   fakes::replaced(std::string(200, 'x'), "x", "1,") +
                                   "1], batch: [" +
                                   fakes::replaced(std::string(200, 'x'), "x", "1,") + "1]}\n");
  std::string golden;
  const auto refuse = [&](const Words& words, int exit) {
    std::string line = "attnrt bench";
    for (const std::string& word : words) line += " " + word;
    SCOPED_TRACE(line);
    const Outcome outcome = bench(words);
    expect_refusal(outcome, exit);
    golden += "$ " + line + "\n" + outcome.err;
  };
  for (const char* file :
       {"key", "word", "device", "value", "both", "map", "empty", "nothing", "none", "list",
        "schema", "heads", "twice", "pair", "no_yaml", "lengths", "group", "many", "absent"})
    refuse({"--grid", std::string(file) + ".yaml"}, 2);
  refuse({"--grid", "key.yaml", "--html", "./key.yaml"}, 2);
  directory.write("policy.yaml", "schema: 1\n");
  refuse({"--policy", "policy.yaml", "--html", "policy.yaml"}, 2);
  const Outcome environment = attnrt_in(directory, {"bench", "--html", "./policy.yaml"},
                                        {{"ATTNRT_POLICY", directory.text() + "/policy.yaml"}});
  expect_refusal(environment, 2);
  EXPECT_THAT(environment.err, HasSubstr("--html ./policy.yaml is the file of ATTNRT_POLICY"));
  for (const Words& words :
       {Words{"--seq", "0"}, Words{"--seq", "8,"}, Words{"--seq", "many"},
        Words{"--causal", "maybe"}, Words{"--seq", "8", "--seq-kv", "9"},
        Words{"--heads-q", "9", "--heads-kv", "2"}, Words{"--grid", "word.yaml", "--seq", "8"},
        Words{"--group", "served"}, Words{"--group", "decode", "--seq", "8"},
        Words{"--lengths", "raged"}, Words{"--html", "absent/x.html"}, Words{"--html", "."},
        Words{"--device", "cpu"}, Words{"--threads", "0"}, Words{"--threads", "2000"},
        Words{"--threads", "abc"}, Words{"--threads", "1,,2"}, Words{"--threads", "1,"},
        Words{"--threads", "1,2,1"}})
    refuse(words, 2);
  refuse({"--backend", "fake_ful"}, 1);
  EXPECT_TRUE(testing::matches_golden("cli/bench_bad_input.txt", normalised(golden, directory)));
}

TEST_F(Bench, AListHasNoMoreThreadsThanThereAreCpus) {
  const Outcome outcome = bench({"--seq", "8", "--threads", "1,1024"});
  expect_refusal(outcome, 2);
  EXPECT_THAT(outcome.err, ::testing::MatchesRegex("attnrt bench: --threads: found 1024, expected "
                                                   "at most [0-9]+, the number of CPUs here\n"));
}

TEST_F(Bench, ABadCommandLineLeavesTheOldPage) {
  const auto page = directory.write("page.html", "old");
  const Outcome refused = bench({"--seq", "0", "--html", "page.html"});
  EXPECT_EQ(refused.exit, 2);
  EXPECT_EQ(fakes::read_file(page), "old");
  Words words = tiny;
  words.insert(words.end(), {"--html", "page.html"});
  const Outcome written = bench(words);
  EXPECT_EQ(written.exit, 0) << written.err;
  EXPECT_THAT(written.out, HasSubstr("\nwrote page.html\n"));
  EXPECT_THAT(fakes::read_file(page), HasSubstr("</html>"));
  for (const auto& entry : fakes::fs::directory_iterator(directory.path()))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr(".attnrt-")))
        << "a temporary file is left";
}

}  // namespace
}  // namespace attnrt::cli
