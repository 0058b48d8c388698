// tests/runtime/manifest_test.cpp: what a manifest allows, what it drops, and its errors
#include "manifest.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "support/golden.hpp"

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view flash = R"(name: hip_flash
version: 1.2.0-rc.1+build.5
abi: 1
summary: Fused flash attention
devices: [rocm]
archs: [gfx1100, gfx942]
supports:
  - dtype: [f16, bf16]
    head_dim: {min: 32, max: 256, multiple_of: 8}
    head_dim_v: {equals: head_dim}
    mask: [none, additive]
    alignment_bytes: {min: 16}
    features: [gqa, causal, align_top_left, window, lse]
  - dtype: f32
    head_dim: [64, 128]
    seq_kv: {max: 4096}
    features: [causal, time_travel]
)";

Manifest manifest(std::string_view text) {
  auto parsed = parse_manifest(text, "p.so");
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? *std::move(parsed) : Manifest{};
}

std::string minimal(std::string_view supports) {
  return fmt::format("name: x\nversion: 1.0.0\nabi: 1\ndevices: [cpu]\nsupports:\n{}", supports);
}

std::string error(std::string_view text) {
  const auto parsed = parse_manifest(text, "p.so");
  return parsed ? "accepted" : parsed.error().message;
}

std::vector<std::string> refusals(const Manifest& manifest, std::string_view words,
                                  std::string_view given_arch = "gfx1100") {
  Problem problem = default_problem();
  std::string arch(given_arch);
  EXPECT_TRUE(parse_problem(words, problem, arch)) << words;
  return manifest.refusals(problem, arch);
}

TEST(Manifest, HoldsWhatTheTextSays) {
  const Manifest m = manifest(flash);
  EXPECT_EQ(m.name, "hip_flash");
  EXPECT_EQ(m.version, *parse_version("1.2.0-rc.1"));
  EXPECT_EQ(m.version_text, "1.2.0-rc.1+build.5");
  EXPECT_EQ(m.abi, 1);
  EXPECT_EQ(m.summary, "Fused flash attention");
  EXPECT_THAT(m.devices, ElementsAre("rocm"));
  EXPECT_THAT(m.archs, ElementsAre("gfx1100", "gfx942"));
  ASSERT_EQ(m.entries.size(), 2U);
  EXPECT_EQ(m.entries[0].line, 8);
  // Five that the text states, and what its absent keys mean: mask_dtype, align, kv_dtype,
  // kv_scale, out_dtype.
  EXPECT_EQ(m.entries[0].constraints.size(), 10U);
  EXPECT_THAT(m.entries[1].features,
              ElementsAre("causal", "time_travel"));  // an unknown feature is harmless
}

TEST(Manifest, AnUnknownFeatureIsNoted) {
  EXPECT_THAT(
      manifest(minimal("  - features: [gqa, causual]\n  - features: time_travel")).notes,
      ElementsAre("p.so:6:21: features: causual is not known to this runtime; did you mean causal?",
                  "p.so:7:15: features: time_travel is not known to this runtime"));
  EXPECT_THAT(manifest(minimal("  - features: []\n  - features:\n  - features: [gqa]")).notes,
              IsEmpty());
}

TEST(Manifest, AProblemFitsIfOneEntryFits) {
  const Manifest m = manifest(flash);
  for (const std::string_view words :
       {"dtype=f16 head_dim=64", "dtype=bf16 head_dim=96 causal=true heads_q=8 heads_kv=2 lse=true",
        "dtype=f32 head_dim=64 causal=true", "dtype=f16 head_dim=64 mask=additive window_left=5"}) {
    EXPECT_THAT(refusals(m, words), IsEmpty()) << words;
  }
}

TEST(Manifest, TheNearestMissGivesTheReasons) {
  const Manifest m = manifest(flash);
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=300 alibi=true"),
              ElementsAre("head_dim 300 is above 256", "uses alibi, which it does not support"));
  EXPECT_THAT(refusals(m, "dtype=f32 head_dim=80"), ElementsAre("head_dim 80 is not in {64, 128}"));
  EXPECT_THAT(refusals(m, "dtype=f32 head_dim=64 seq_kv=4097 softcap=3 sinks=true"),
              ElementsAre("seq_kv 4097 is above 4096", "uses softcap, which it does not support",
                          "uses sinks, which it does not support"));
  // As many reasons against each: the entry of its dtype speaks. Fewer reasons win over that.
  EXPECT_THAT(refusals(m, "dtype=f32 head_dim=64 lse=true"),
              ElementsAre("uses lse, which it does not support"));
  EXPECT_THAT(refusals(m, "dtype=f32 head_dim=96 lse=true"),
              ElementsAre("dtype f32 is not in {f16, bf16}"));
}

TEST(Manifest, AnAbsentKeyMeansTheValuesOfAbi10) {
  const Manifest m = manifest(minimal("- {}"));
  for (const char* words : {"dtype=f32", "dtype=f16", "dtype=bf16", "mask=boolean", "mask=additive",
                            "dtype=f16 mask=additive mask_dtype=f32", "align=top_left"})
    EXPECT_THAT(refusals(m, words, ""), IsEmpty()) << words;
  EXPECT_THAT(refusals(m, "kv_dtype=i8", ""), ElementsAre("kv_dtype i8 is not off"));
  EXPECT_THAT(refusals(m, "kv_dtype=f8_e4m3fn kv_scale=head", ""),
              ElementsAre("kv_dtype f8_e4m3fn is not off", "kv_scale head is not none"));
  EXPECT_THAT(refusals(m, "dtype=bf16 out_dtype=f32", ""), ElementsAre("out_dtype f32 is not off"));
  const Manifest quantised = manifest(minimal("- {kv_dtype: [off, i8], kv_scale: [none, head]}"));
  EXPECT_THAT(refusals(quantised, "kv_dtype=i8 kv_scale=head", ""), IsEmpty());
  EXPECT_THAT(refusals(quantised, "kv_dtype=f8_e4m3fn", ""),
              ElementsAre("kv_dtype f8_e4m3fn is not in {off, i8}"));
}

TEST(Manifest, EveryFeatureIsRefusedWhereItIsNotListed) {
  const Manifest none = manifest(minimal("- {}"));
  const Manifest all =
      manifest(minimal("- features: [gqa, causal, align_top_left, window, softcap, alibi, sinks, "
                       "kv_lengths, varlen, "
                       "paged, lse, deterministic, diagonal_offset, batch_invariant, v_in_k]"));
  const std::pair<std::string_view, std::string_view> rows[] = {
      {"gqa", "heads_q=2"},
      {"causal", "causal=true"},
      {"window", "window_left=1"},
      {"softcap", "softcap=1"},
      {"alibi", "alibi=true"},
      {"sinks", "sinks=true"},
      {"kv_lengths", "kv_lengths=true"},
      {"varlen", "varlen=true"},
      {"paged", "page_size=16"},
      {"lse", "lse=true"},
      {"deterministic", "deterministic=true"},
      {"diagonal_offset", "diagonal_offset=true"},
      {"batch_invariant", "batch_invariant=true"},
      {"v_in_k", "v_in_k=true"}};
  for (const auto& [feature, words] : rows) {
    EXPECT_THAT(refusals(none, words, ""),
                ElementsAre(fmt::format("uses {}, which it does not support", feature)));
    EXPECT_THAT(refusals(all, words, ""), IsEmpty());
  }
  EXPECT_THAT(refusals(none, "causal=true align=top_left", ""),
              ElementsAre("uses causal, which it does not support",
                          "uses align_top_left, which it does not support"));
}

TEST(Manifest, ArchComesFirst) {
  const Manifest m = manifest(flash);
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=64", "gfx1030"),
              ElementsAre("arch gfx1030 is not in {gfx1100, gfx942}"));
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=20", "gfx1030"),
              ElementsAre("arch gfx1030 is not in {gfx1100, gfx942}", "head_dim 20 is below 32"));
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=64", "gfx942:sramecc+:xnack-"), IsEmpty());
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=64", ""), IsEmpty());  // a device without one
}

TEST(Manifest, DropsWhatItDoesNotKnowAndSaysSo) {
  const Manifest m = manifest(minimal("  - {head_dim: 64, rotary: true}\n"
                                      "  - {head_dim: {max: 3, below: 9}}\n"
                                      "  - {head_dim_v: {equals: head_dim_k}}\n"
                                      "  - {dtype: [f16, f8], head_dim: 32}\n") +
                              "novelty: {a: 1}\n");
  ASSERT_EQ(m.entries.size(), 1U);
  EXPECT_EQ(m.entries[0].line, 9);
  EXPECT_THAT(
      m.notes,
      ElementsAre("p.so:6:20: supports: entry dropped: rotary is not known to this runtime",
                  "p.so:7:6: supports: entry dropped: below is not known to this runtime",
                  "p.so:8:6: supports: entry dropped: head_dim_k is not known to this runtime; "
                  "did you mean head_dim_v?",
                  "p.so:9:19: dtype f8 is not known to this runtime",
                  "p.so:10:1: novelty: unknown key, ignored"));
  EXPECT_THAT(manifest(minimal("- {}") + "\narch: gfx1100").notes,
              ElementsAre("p.so:7:1: arch: unknown key, ignored; did you mean archs?"));
  EXPECT_THAT(refusals(m, "dtype=f16 head_dim=32", ""), IsEmpty());
  EXPECT_THAT(refusals(m, "dtype=f32 head_dim=32", ""),
              ElementsAre("dtype f32 is not in {f16, f8}"));
}

TEST(Manifest, WithoutAKnownEntryNothingFits) {
  const Manifest m = manifest(minimal("- {rotary: true}"));
  EXPECT_THAT(refusals(m, "", ""),
              ElementsAre("its manifest has no entry that this runtime knows"));
  EXPECT_EQ(m.serves_nothing(), "its manifest has no entry that this runtime knows");
  EXPECT_EQ(manifest(minimal("- {}")).serves_nothing(), "");
  const Manifest typed =
      manifest(minimal("  - {dtype: f33}\n"
                       "  - {head_dim: {max: 64}, dtype: [f33]}\n"
                       "  - {headdim: 64}\n"));
  EXPECT_EQ(typed.serves_nothing(),
            "its manifest has no entry that any problem of this runtime could fit");
  EXPECT_THAT(typed.notes,
              Contains(HasSubstr("dtype f33 is not known to this runtime; did you mean f32?")));
  EXPECT_THAT(manifest(minimal("  - {head_dim: {mas: 128}}\n")).notes,
              ElementsAre(HasSubstr("; did you mean max?")));
  EXPECT_THAT(typed.notes,
              Contains(HasSubstr("headdim is not known to this runtime; did you mean head_dim?")));
}

TEST(Manifest, AnUnknownDeviceIsANote) {
  const Manifest m =
      manifest("name: x\nversion: 1.0.0\nabi: 1\ndevices: [cpu, npu]\nsupports: [{}]\n");
  EXPECT_THAT(m.devices, ElementsAre("cpu"));
  EXPECT_THAT(m.notes, ElementsAre("p.so:4:10: devices: npu is not known to this runtime"));
  EXPECT_EQ(m.serves_nothing(), "");
  EXPECT_EQ(manifest("name: x\nversion: 1.0.0\nabi: 1\ndevices: [npu]\nsupports: [{}]\n")
                .serves_nothing(),
            "its manifest names no device that this runtime knows");
}

TEST(Manifest, AConditionOnDeviceSeesTheGivenOne) {
  const Manifest m = manifest(minimal("- {device: rocm}"));
  EXPECT_THAT(refusals(m, "device=rocm", ""), IsEmpty());
  EXPECT_THAT(refusals(m, "device=cpu", ""), ElementsAre("device cpu is not rocm"));
}

TEST(Manifest, ErrorsSayWhereAndWhat) {
  const std::pair<std::string, std::string_view> rows[] = {
      {"", "p.so:1:1: manifest: found nothing, expected a map"},
      {"[1]", "p.so:1:1: manifest: found a list, expected a map"},
      {"name: x", "p.so: version: missing"},
      {"version: 1.0.0\nabi: 1\ndevices: cpu\nsupports: [{}]", "p.so: name: missing"},
      {"name: x\nversion: 1.0.0\nabi: 1\ndevice: cpu\nsupports: [{}]",
       "p.so: devices: missing; found device, which looks like it"},
      {"name: Hip-Flash",
       "p.so:1:7: name: found Hip-Flash, expected a name of a-z, 0-9 and _ that begins with a "
       "letter"},
      {"name: [x]", "p.so:1:7: name: found a list, expected a word"},
      {"version: 1.0",
       "p.so:1:10: version: found 1.0, expected a semantic version such as 1.0.0 or 1.1.0-rc.1"},
      {"abi: one", "p.so:1:6: abi: found one, expected a whole number"},
      {"abi: 0", "p.so:1:6: abi: found 0, expected the major version of the plugin ABI, such as 1"},
      {"devices: {}", "p.so:1:10: devices: found a map, expected a list of words"},
      {minimal("  []"), "p.so:6:3: supports: found an empty list, expected a list of entries"},
      {minimal("  - 3"), "p.so:6:5: supports: found 3, expected a map of conditions"},
      {minimal("  - {seq_q: {min: 4}}"),
       "p.so:6:6: seq_q: found seq_q: {min: 4}, expected {max: ...}: it is an upper bound"},
      {minimal("  - {batch: 4}"),
       "p.so:6:6: batch: found batch: 4, expected {max: ...}: it is an upper bound"},
      {minimal("  - {seq_kv: {equals: seq_q}}"),
       "p.so:6:6: seq_kv: found seq_kv: {equals: seq_q}, expected {max: ...}: it is an upper "
       "bound"},
      {minimal("  - {head_dim: {max: many}}"),
       "p.so:6:22: head_dim.max: found many, expected a whole number"},
      {minimal("  - {features: {gqa: true}}"),
       "p.so:6:16: features: found a map, expected a list of words"},
      {minimal("  - {causal: maybe}"), "p.so:6:14: causal: found maybe, expected true or false"},
      {"name: x\nname: y", "p.so:2:1: found name twice, expected once; the first is in line 1"},
  };
  for (const auto& [text, expected] : rows) EXPECT_EQ(error(text), expected) << text;
}

// What decides whether the rest can be read comes first, wherever it stands.
TEST(Manifest, OfAnotherMajorVersionOrWithRequirementsIsReadNoFurther) {
  const std::string rest = "name: 7\nversion: [new]\ndevices: {a: b}\nsupports: all\n";
  EXPECT_EQ(error(rest + "abi: 2\nrequires: [x]"),
            "is built for plugin ABI 2; this runtime has ABI 1");
  EXPECT_EQ(error("abi: 3"), "is built for plugin ABI 3; this runtime has ABI 1");
  EXPECT_EQ(error(rest + "abi: 1\nrequires: [time_travel, x]"),
            "needs time_travel, x, which this runtime does not know");
  EXPECT_EQ(error(rest + "requires: rotary"), "needs rotary, which this runtime does not know");
  EXPECT_EQ(error("requires: {a: 1}\n" + minimal("  - {}")),
            "p.so:1:11: requires: found a map, expected a list of words");
  for (const std::string_view none : {"requires: []\n", "requires:\n"})
    EXPECT_EQ(error(std::string(none) + minimal("  - {}")), "accepted") << none;
  const auto refused = parse_manifest("abi: 2", "p.so");
  EXPECT_EQ(refused.error().code, ATTNRT_UNSUPPORTED);
}

TEST(Manifest, IsUnloadableIfItSaysSo) {
  EXPECT_FALSE(manifest(minimal("  - {}")).unloadable);
  EXPECT_FALSE(manifest("unloadable: false\n" + minimal("  - {}")).unloadable);
  EXPECT_TRUE(manifest("unloadable: true\n" + minimal("  - {}")).unloadable);
  EXPECT_EQ(error("unloadable: yes\n" + minimal("  - {}")),
            "p.so:1:13: unloadable: found yes, expected true or false");
}

TEST(Manifest, ItsDocumentNamesEverythingThatTheReaderKnows) {
  const std::string document =
      testing::read_file(std::filesystem::path(ATTNRT_TESTS_DIR) / "../docs/manifest.md");
  std::vector<std::string> names = {
      "name", "version", "abi",         "summary", "devices",   "archs",    "supports",  "features",
      "min",  "max",     "multiple_of", "equals",  "unbounded", "requires", "unloadable"};
  for (const Word& word : vocabulary()) {
    names.emplace_back(word.name);
    names.insert(names.end(), word.choices.begin(), word.choices.end());
  }
  names.insert(names.end(), all_features().begin(), all_features().end());
  for (const std::string& name : names)
    EXPECT_THAT(document, ::testing::ContainsRegex("[`{ ]" + name + "[`:},]"))
        << name << " is not in docs/manifest.md";

  // Its example is one, and features stand in their own table, too.
  const size_t begin = document.find("```yaml\n") + 8;
  const Manifest example = manifest(document.substr(begin, document.find("```", begin) - begin));
  EXPECT_THAT(example.notes, IsEmpty());
  EXPECT_EQ(example.entries.size(), 2U);
  const std::string table = document.substr(document.find("| feature |"));
  for (const std::string_view feature : all_features())
    EXPECT_THAT(table, HasSubstr(fmt::format("`{}`", feature))) << feature;
}

TEST(Manifest, SurvivesAnyMutation) {
  std::mt19937 random(23);
  for (int round = 0; round < 4000; ++round) {
    std::string text(flash);
    for (auto edits = 1 + random() % 4; edits > 0; --edits) {
      const size_t place = random() % text.size();
      switch (random() % 3) {
        case 0: text[place] = static_cast<char>(random() % 256); break;
        case 1: text.erase(place, 1 + random() % 8); break;
        default: text.insert(place, text.substr(random() % text.size(), random() % 16));
      }
      if (text.empty()) text.push_back('x');
    }
    const auto parsed = parse_manifest(text, "p.so");
    if (parsed) {
      (void)parsed->refusals(default_problem(), "gfx1100");
      EXPECT_FALSE(parsed->name.empty());
    } else {
      EXPECT_THAT(parsed.error().message, ::testing::StartsWith("p.so:"));
    }
  }
}

}  // namespace
}  // namespace attnrt::core
