// tests/runtime/problem/constraint_test.cpp: what conditions let through and refuse
#include "problem/constraint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Constraints> parse(std::string_view text) {
  const auto document = yaml::parse(text, "p.yaml");
  if (!document) return tl::unexpected(document.error());
  Errors errors;
  auto constraints = parse_constraints(document->root, "when", errors);
  if (!errors.empty()) return tl::unexpected(errors.front());
  return constraints;
}

std::string refusal(std::string_view condition, std::string_view words) {
  const auto constraints = parse(condition);
  if (!constraints) return constraints.error().message;
  Problem problem = default_problem();
  std::string arch;
  const auto read = parse_problem(words, problem, arch);
  EXPECT_TRUE(read) << read.error().message;
  const auto reasons = refusals(*constraints, problem, arch);
  for (const Constraint& constraint : *constraints) {
    EXPECT_EQ(constraint.met(problem, arch), !constraint.refusal(problem, arch).has_value());
  }
  return fmt::format("{}", fmt::join(reasons, "; "));
}

struct Row {
  std::string_view condition, words, refusal;  // "": it is met
};

TEST(Constraint, MeetsOrRefusesInTheseWords) {
  const Row rows[] = {
      {"", "head_dim=80", ""},
      {"head_dim: 64", "head_dim=64", ""},
      {"head_dim: 64", "head_dim=80", "head_dim 80 is not 64"},
      {"head_dim: [64, 128]", "head_dim=128", ""},
      {"head_dim: [64, 128]", "head_dim=80", "head_dim 80 is not in {64, 128}"},
      {"head_dim: {max: 256}", "head_dim=256", ""},
      {"head_dim: {max: 256}", "head_dim=300", "head_dim 300 is above 256"},
      {"head_dim: {min: 32}", "head_dim=16", "head_dim 16 is below 32"},
      {"head_dim: {min: 32, max: 256, multiple_of: 8}", "head_dim=64", ""},
      {"head_dim: {min: 32, max: 256, multiple_of: 8}", "head_dim=36",
       "head_dim 36 is not a multiple of 8"},
      {"head_dim: {min: 32, max: 256, multiple_of: 8}", "head_dim=300",
       "head_dim 300 is above 256"},
      {"seq_q: {max: 2048}", "seq_q=4096", "seq_q 4096 is above 2048"},
      {"head_dim_v: {equals: head_dim}", "head_dim=128 head_dim_v=128", ""},
      {"head_dim_v: {equals: head_dim}", "head_dim=128", ""},  // 0 means head_dim
      {"head_dim_v: {equals: head_dim}", "head_dim=128 head_dim_v=64",
       "head_dim_v 64 does not equal head_dim 128"},
      {"mask_dtype: {equals: dtype}", "mask=additive dtype=f16", ""},
      {"mask_dtype: {equals: dtype}", "mask=additive dtype=f16 mask_dtype=f32",
       "mask_dtype f32 does not equal dtype f16"},
      {"dtype: [f16, bf16]", "dtype=bf16", ""},
      {"dtype: [f16, bf16]", "", "dtype f32 is not in {f16, bf16}"},
      {"dtype: \"f16\"", "dtype=f16", ""},
      {"causal: true", "causal=true", ""},
      {"causal: true", "", "causal false is not true"},
      {"causal: false", "causal=true", "causal true is not false"},
      {"causal: [true, false]", "causal=true", ""},
      {"mask: none", "mask=boolean", "mask boolean is not none"},
      {"align: top_left", "", "align bottom_right is not top_left"},
      {"window_left: unbounded", "", ""},
      {"window_left: -1", "", ""},
      {"window_left: unbounded", "window_left=4", "window_left 4 is not unbounded"},
      {"window_left: {max: 4096}", "", "window_left unbounded is above 4096"},
      {"window_left: {max: 4096}", "window_left=4096", ""},
      {"window_left: {multiple_of: 64}", "", "window_left unbounded is not a multiple of 64"},
      {"softcap: 0", "", ""},
      {"softcap: 0.1", "softcap=0.1", ""},  // equal in float, as in the problem
      {"softcap: {max: 0.1}", "softcap=0.1", ""},
      {"softcap: {min: 10, max: 50.5}", "softcap=51", "softcap 51 is above 50.5"},
      {"scale: 0.125", "head_dim=64", ""},  // the default is 1 / sqrt(head_dim)
      {"scale: {min: 0.2}", "head_dim=64", "scale 0.125 is below 0.2"},
      {"alignment_bytes: {min: 16}", "alignment_bytes=8", "alignment_bytes 8 is below 16"},
      {"device: cpu", "device=rocm:1", "device rocm is not cpu"},
      {"arch: gfx1100", "arch=gfx1100:xnack-", ""},
      {"arch: [gfx1100, sm_80+]", "arch=sm_90a", ""},
      {"arch: [gfx1100, sm_80+]", "arch=gfx942", "arch gfx942 is not in {gfx1100, sm_80+}"},
      {"arch: gfx1100", "", "arch (none) is not gfx1100"},
      {"page_size: [0, 16]", "page_size=32", "page_size 32 is not in {0, 16}"},
      {"{head_dim: 64, seq_q: {max: 4}, causal: true}", "head_dim=80 seq_q=5",
       "head_dim 80 is not 64; seq_q 5 is above 4; causal false is not true"},
  };
  for (const Row& row : rows)
    EXPECT_EQ(refusal(row.condition, row.words), row.refusal)
        << row.condition << " on " << row.words;
}

TEST(Constraint, GrammarErrorsSayWhereAndWhat) {
  const std::pair<std::string_view, std::string_view> rows[] = {
      {"head_dims: 64", "p.yaml:1:1: head_dims: unknown key; did you mean head_dim?"},
      {"head_dim: {mx: 3}", "p.yaml:1:12: head_dim.mx: unknown key; did you mean max?"},
      {"head_dim: {size: 3}",
       "p.yaml:1:12: head_dim.size: unknown key; expected one of min, max, multiple_of, equals"},
      {"head_dim: {}",
       "p.yaml:1:11: head_dim: found an empty map, expected {min, max, multiple_of} or {equals}"},
      {"head_dim: []",
       "p.yaml:1:11: head_dim: found an empty list, expected a value, a list of values or {min, "
       "max, ...}"},
      {"head_dim:",
       "p.yaml:1:1: head_dim: found nothing, expected a value, a list of values or {min, max, "
       "...}"},
      {"head_dim: [[1]]",
       "p.yaml:1:12: head_dim: found a list, expected a value, a list of values or {min, max, "
       "...}"},
      {"head_dim: '64'", "p.yaml:1:11: head_dim: found \"64\", expected a number"},
      {"head_dim: 064", "p.yaml:1:11: head_dim: found 064, expected a whole number"},
      {"head_dim: 0", "p.yaml:1:11: head_dim: found 0, expected at least 1"},
      {"head_dim: 64.0", "p.yaml:1:11: head_dim: found 64.0, expected a whole number"},
      {"head_dim: {max: 1e3}", "p.yaml:1:17: head_dim.max: found 1e3, expected a whole number"},
      {"head_dim: {multiple_of: 0}",
       "p.yaml:1:25: head_dim.multiple_of: found 0, expected at least 1"},
      {"softcap: {max: .nan}", "p.yaml:1:16: softcap.max: found .nan, expected a finite number"},
      {"softcap: {max: 1e400}", "p.yaml:1:16: softcap.max: found 1e400, expected a finite number"},
      {"softcap: {multiple_of: 2}",
       "p.yaml:1:11: softcap.multiple_of: softcap is not a whole number"},
      {"causal: 1", "p.yaml:1:9: causal: found 1, expected true or false"},
      {"causal: yes", "p.yaml:1:9: causal: found yes, expected true or false"},
      {"causal: {max: 1}", "p.yaml:1:10: causal.max: found a range, expected a value or a list"},
      {"dtype: {min: f16}", "p.yaml:1:9: dtype.min: found a range, expected a value or a list"},
      {"dtype: f8", "p.yaml:1:8: dtype: found f8, expected one of f32, f16, bf16"},
      {"dtype: fp16",
       "p.yaml:1:8: dtype: found fp16, expected one of f32, f16, bf16; did you mean f16?"},
      {"head_dim_v: {equals: head_dims}",
       "p.yaml:1:22: head_dim_v.equals: unknown word head_dims; did you mean head_dim?"},
      {"head_dim_v: {equals: dtype}",
       "p.yaml:1:22: head_dim_v.equals: found dtype, expected another word of the same kind"},
      {"head_dim_v: {equals: head_dim_v}",
       "p.yaml:1:22: head_dim_v.equals: found head_dim_v, expected another word of the same kind"},
      {"head_dim_v: {equals: head_dim, max: 3}",
       "p.yaml:1:13: head_dim_v: found equals with other keys, expected it alone"},
      {"window_left: all",
       "p.yaml:1:14: window_left: found all, expected a whole number, or unbounded (-1)"},
      {"[head_dim]", "p.yaml:1:1: when: found a list, expected a map of conditions"},
  };
  for (const auto& [text, expected] : rows) {
    const auto parsed = parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().message, expected);
    EXPECT_EQ(parsed.error().code, ATTNRT_INVALID_ARGUMENT);
  }
}

TEST(Constraint, KnowsWhatCanNeverMatch) {
  const auto never = [](std::string_view text) {
    const auto parsed = parse(text);
    EXPECT_TRUE(parsed) << parsed.error().message;
    return parsed && parsed->front().can_never_match();
  };
  for (const std::string_view text :
       {"seq_q: {min: 5, max: 4}", "seq_q: {max: 0}",
        "head_dim: {min: 65, max: 127, multiple_of: 64}", "alignment_bytes: {min: 8192}",
        "softcap: {min: 2, max: 1}", "softcap: {max: -1}", "page_size: {max: -1}",
        "page_size: {min: 3000000000}", "window_left: {max: -1}"}) {
    EXPECT_TRUE(never(text)) << text;
  }
  for (const std::string_view text :
       {"seq_q: {min: 4, max: 4}", "head_dim: {min: 64, max: 64, multiple_of: 64}",
        "page_size: {max: 0}", "window_left: {max: 0}", "causal: false",
        "head_dim_v: {equals: head_dim}", "scale: {max: -1}", "arch: anything",
        "head_dim: {multiple_of: 9223372036854775807}"}) {
    EXPECT_FALSE(never(text)) << text;
  }
}

TEST(Constraint, ShowsItselfAsYaml) {
  for (const std::string_view text :
       {"head_dim: 64", "head_dim: [64, 128]", "head_dim: {min: 32, max: 256, multiple_of: 8}",
        "causal: true", "head_dim_v: {equals: head_dim}", "softcap: {max: 0.1}",
        "window_left: unbounded"}) {
    EXPECT_EQ(parse(text)->front().text(), text);
  }
}

TEST(Constraint, KeepsUnknownNamesWhereAsked) {
  const auto document = yaml::parse("dtype: [f16, f8]", "m.yaml");
  std::vector<std::string> unknown;
  const auto constraint =
      parse_constraint(document->root.keys[0], document->root.items[0], &unknown);
  ASSERT_TRUE(constraint);
  EXPECT_THAT(unknown, ElementsAre("m.yaml:1:14: dtype f8 is not known to this runtime"));
  EXPECT_FALSE(constraint->can_never_match());
  EXPECT_EQ(constraint->refusal(default_problem(), ""), "dtype f32 is not in {f16, f8}");
}

TEST(Constraint, ArchPatterns) {
  struct ArchRow {
    std::string_view pattern, arch;
    bool matches;
  };
  const ArchRow rows[] = {
      {"gfx1100", "gfx1100", true},
      {"gfx1100", "gfx1100:xnack-", true},
      {"gfx942:xnack-", "gfx942:sramecc+:xnack+", true},
      {"gfx1100", "gfx1101", false},
      {"gfx110", "gfx1100", false},
      {"gfx90a", "gfx90a", true},
      {"gfx90a", "gfx90c", false},
      {"gfx90a", "gfx90", false},
      {"gfx1100+", "gfx1101", false},
      {"sm_80", "sm_80", true},
      {"sm_80", "sm_86", false},
      {"sm_80+", "sm_80", true},
      {"sm_80+", "sm_86", true},
      {"sm_80+", "sm_90a", true},
      {"sm_80+", "sm_100", true},
      {"sm_80+", "sm_75", false},
      {"sm_90a", "sm_90", true},
      {"sm_90", "sm_90a", true},
      {"sm_90a+", "sm_100f", true},
      {"sm_80+", "gfx1100", false},
      {"sm_80+", "", false},
      {"", "", false},
      {"", "gfx1100", false},
      {"sm_", "sm_", true},
      {"sm_+", "sm_90", false},
      {"sm_80+", "sm_90ab", false},
      {"sm_-1+", "sm_90", false},
      {"sm_80+", "sm_99999999999", false},
      {"gfx1100", "", false},
      {"gfx1100", ":xnack-", false},
  };
  for (const ArchRow& row : rows)
    EXPECT_EQ(arch_matches(row.pattern, row.arch), row.matches)
        << row.pattern << " and " << row.arch;
}

}  // namespace
}  // namespace attnrt::core
