// tests/runtime/problem/problem_test.cpp: problems in words, and illegal problems
#include "problem/problem.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace attnrt::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Problem parsed(std::string_view words) {
  Problem problem = default_problem();
  std::string arch;
  const auto read = parse_problem(words, problem, arch);
  EXPECT_TRUE(read) << read.error().message;
  return problem;
}

std::string parse_error(std::string_view words) {
  Problem problem = default_problem();
  std::string arch;
  const auto read = parse_problem(words, problem, arch);
  return read ? "accepted" : read.error().message;
}

std::string check_error(const Problem& problem) {
  const auto checked = check_problem(&problem);
  if (checked) return "accepted";
  EXPECT_EQ(checked.error().code, ATTNRT_INVALID_ARGUMENT);
  return checked.error().message;
}

bool same_bytes(const Problem& a, const Problem& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

TEST(Problem, VocabularyIsTheDocumentedOne) {
  std::vector<std::string_view> names;
  for (const Word& word : vocabulary()) names.push_back(word.name);
  EXPECT_THAT(names, ElementsAre("device", "arch", "dtype", "batch", "heads_q", "heads_kv", "seq_q",
                                 "seq_kv", "head_dim", "head_dim_v", "scale", "mask", "mask_dtype",
                                 "causal", "align", "window_left", "window_right", "softcap",
                                 "alibi", "sinks", "kv_lengths", "varlen", "page_size", "lse",
                                 "alignment_bytes", "deterministic", "kv_dtype", "kv_scale",
                                 "v_in_k", "out_dtype", "diagonal_offset", "batch_invariant"));
  for (const Word& word : vocabulary()) {
    EXPECT_EQ(find_word(word.name), &word);
    EXPECT_EQ(word.bound, word.name == "batch" || word.name == "seq_q" || word.name == "seq_kv")
        << word.name;
    const auto features = all_features();
    EXPECT_TRUE(word.feature.empty() ||
                std::find(features.begin(), features.end(), word.feature) != features.end());
  }
  EXPECT_EQ(find_word("heads"), nullptr);
}

// Each word sets its own field and nothing else.
TEST(Problem, EachWordReachesItsField) {
  const std::pair<std::string_view, bool (*)(const Problem&)> rows[] = {
      {"device=rocm:3",
       [](const Problem& p) { return p.device_type == ATTNRT_DEVICE_ROCM && p.device_id == 3; }},
      {"device=cuda",
       [](const Problem& p) { return p.device_type == ATTNRT_DEVICE_CUDA && p.device_id == 0; }},
      {"dtype=bf16",
       [](const Problem& p) { return p.dtype.code == ATTNRT_DTYPE_BFLOAT && p.dtype.bits == 16; }},
      {"batch=2", [](const Problem& p) { return p.batch == 2; }},
      {"heads_q=3", [](const Problem& p) { return p.heads_q == 3; }},
      {"heads_kv=4", [](const Problem& p) { return p.heads_kv == 4; }},
      {"seq_q=5", [](const Problem& p) { return p.seq_q == 5; }},
      {"seq_kv=6", [](const Problem& p) { return p.seq_kv == 6; }},
      {"head_dim=7", [](const Problem& p) { return p.head_dim == 7; }},
      {"head_dim_v=8", [](const Problem& p) { return p.head_dim_v == 8; }},
      {"scale=0.25", [](const Problem& p) { return p.scale == 0.25F; }},
      {"mask=additive mask_dtype=f16",
       [](const Problem& p) {
         return p.mask == ATTNRT_MASK_ADDITIVE && dtype_name(p.mask_dtype) == "f16";
       }},
      {"causal=true", [](const Problem& p) { return p.causal == 1; }},
      {"align=top_left", [](const Problem& p) { return p.align == ATTNRT_ALIGN_TOP_LEFT; }},
      {"window_left=9",
       [](const Problem& p) { return p.window_left == 9 && p.window_right == -1; }},
      {"window_right=0",
       [](const Problem& p) { return p.window_right == 0 && p.window_left == -1; }},
      {"softcap=30", [](const Problem& p) { return p.softcap == 30.0F; }},
      {"alibi=true", [](const Problem& p) { return p.alibi == 1; }},
      {"sinks=true", [](const Problem& p) { return p.sinks == 1; }},
      {"kv_lengths=true", [](const Problem& p) { return p.kv_lengths == 1; }},
      {"varlen=true", [](const Problem& p) { return p.varlen == 1; }},
      {"page_size=16", [](const Problem& p) { return p.page_size == 16; }},
      {"lse=true", [](const Problem& p) { return p.lse == 1; }},
      {"alignment_bytes=4", [](const Problem& p) { return p.alignment_bytes == 4; }},
      {"deterministic=true", [](const Problem& p) { return p.deterministic == 1; }},
      {"kv_dtype=f8_e4m3fn",
       [](const Problem& p) { return p.kv_dtype.code == 10 && p.kv_dtype.bits == 8; }},
      {"kv_dtype=f8_e4m3fnuz",
       [](const Problem& p) { return p.kv_dtype.code == 11 && p.kv_dtype.bits == 8; }},
      {"kv_dtype=i8",
       [](const Problem& p) { return p.kv_dtype.code == 0 && p.kv_dtype.bits == 8; }},
      {"kv_dtype=off", [](const Problem& p) { return is_off(p.kv_dtype); }},
      {"kv_scale=token", [](const Problem& p) { return p.kv_scale == ATTNRT_KV_SCALE_TOKEN; }},
      {"v_in_k=true", [](const Problem& p) { return p.v_in_k == 1; }},
      {"out_dtype=f32",
       [](const Problem& p) { return p.out_dtype.code == 2 && p.out_dtype.bits == 32; }},
      {"diagonal_offset=true", [](const Problem& p) { return p.diagonal_offset == 1; }},
      {"batch_invariant=true", [](const Problem& p) { return p.batch_invariant == 1; }},
      {"causal=false window_left=unbounded window_right=-1",
       [](const Problem& p) { return same_bytes(p, default_problem()); }},
      {" \t\n", [](const Problem& p) { return same_bytes(p, default_problem()); }},
  };
  for (const auto& [words, holds] : rows) {
    const Problem problem = parsed(words);
    EXPECT_TRUE(holds(problem)) << words;
    size_t differing = 0;
    const auto usual = default_problem();
    for (const Word& word : vocabulary())
      differing += value_of(word, problem, "") != value_of(word, usual, "") ? 1U : 0U;
    const auto named = static_cast<size_t>(std::count(words.begin(), words.end(), '='));
    const bool head_dim =
        words.starts_with("head_dim=");  // moves the defaults of head_dim_v and scale
    EXPECT_LE(differing, head_dim ? 3U : named) << words;
  }
}

TEST(Problem, WordsThatAreWrongSayWhy) {
  EXPECT_EQ(parse_error("head_dims=64"), "head_dims: unknown word; did you mean head_dim?");
  EXPECT_EQ(parse_error("Causal=true"), "Causal: unknown word; did you mean causal?");
  EXPECT_THAT(parse_error("banana=1"),
              HasSubstr("banana: unknown word; expected one of device, arch, dtype, "));
  EXPECT_EQ(parse_error("batch=1 batch=1"), "batch: found twice, expected once");
  EXPECT_EQ(parse_error("causal"), "causal: found no value, expected causal=VALUE");
  EXPECT_EQ(parse_error("causal=1"), "causal: found 1, expected true or false");
  EXPECT_EQ(parse_error("dtype=fp16"),
            "dtype: found fp16, expected one of f32, f16, bf16; did you mean f16?");
  EXPECT_EQ(parse_error("device=tpu"),
            "device: found tpu, expected one of cpu, cuda, rocm; did you mean cpu?");
  EXPECT_EQ(parse_error("device=rocm:-1"), "device: found -1, expected at least 0");
  EXPECT_EQ(parse_error("device=rocm:"), "device: found \"\", expected a whole number");
  EXPECT_EQ(parse_error("heads_q=0"), "heads_q: found 0, expected at least 1");
  EXPECT_EQ(parse_error("seq_q=010"), "seq_q: found 010, expected a whole number");
  EXPECT_EQ(parse_error("seq_q=9223372036854775808"),
            "seq_q: found 9223372036854775808, expected at most 9223372036854775807");
  EXPECT_EQ(parse_error("seq_q=-99999999999999999999"),
            "seq_q: found -99999999999999999999, expected at least 1");
  EXPECT_EQ(parse_error("seq_q=99999999999999999999x"),
            "seq_q: found 99999999999999999999x, expected a whole number");
  EXPECT_EQ(parse_error("window_left=-2"),
            "window_left: found -2, expected at least 0, or unbounded (-1)");
  EXPECT_EQ(parse_error("window_left=all"),
            "window_left: found all, expected a whole number, or unbounded (-1)");
  EXPECT_EQ(parse_error("page_size=2147483648"),
            "page_size: found 2147483648, expected at most 2147483647");
  EXPECT_EQ(parse_error("alignment_bytes=8192"),
            "alignment_bytes: found 8192, expected at most 4096");
  EXPECT_EQ(parse_error("softcap="), "softcap: found \"\", expected a finite number");
  EXPECT_EQ(parse_error("arch="),
            "arch: found \"\", expected an architecture such as gfx1100 or sm_90");
  for (const std::string_view bad : {"1e400", "nan", "inf", "-inf", "0x1", "1.0f", "1 "}) {
    if (bad.ends_with(' ')) continue;
    EXPECT_THAT(parse_error("scale=" + std::string(bad)), HasSubstr("expected a finite number"))
        << bad;
  }
}

TEST(Problem, AFailedParseChangesNothing) {
  Problem problem = default_problem();
  std::string arch = "gfx942";
  EXPECT_FALSE(parse_problem("batch=7 arch=gfx1100 heads_q=x", problem, arch));
  EXPECT_TRUE(same_bytes(problem, default_problem()));
  EXPECT_EQ(arch, "gfx942");
}

TEST(Problem, AMaskBringsItsDtype) {
  EXPECT_EQ(dtype_name(parsed("mask=additive dtype=bf16").mask_dtype), "bf16");
  EXPECT_EQ(dtype_name(parsed("dtype=bf16 mask_dtype=f32 mask=additive").mask_dtype), "f32");
  EXPECT_EQ(dtype_name(parsed("mask=boolean").mask_dtype), "bool");
}

TEST(Problem, DescribeGivesTheCanonicalWords) {
  EXPECT_EQ(
      describe(default_problem()),
      "device=cpu dtype=f32 batch=1 heads_q=1 heads_kv=1 seq_q=1 seq_kv=1 head_dim=1 head_dim_v=1");
  EXPECT_EQ(describe(parsed("scale=0.1 softcap=30.5 window_left=0 lse=true head_dim=64 "
                            "device=rocm:1 causal=true"),
                     "gfx1100"),
            "device=rocm:1 arch=gfx1100 dtype=f32 batch=1 heads_q=1 heads_kv=1 seq_q=1 seq_kv=1 "
            "head_dim=64 head_dim_v=64 "
            "scale=0.1 causal=true window_left=0 softcap=30.5 lse=true");
}

Problem random_problem(std::mt19937_64& random) {
  const auto below = [&](int64_t limit) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
  };
  const auto flag = [&] { return static_cast<int32_t>(below(2)); };
  const int32_t devices[] = {ATTNRT_DEVICE_CPU, ATTNRT_DEVICE_CUDA, ATTNRT_DEVICE_ROCM};
  const attnrt_dtype dtypes[] = {
      {ATTNRT_DTYPE_FLOAT, 32, 1}, {ATTNRT_DTYPE_FLOAT, 16, 1}, {ATTNRT_DTYPE_BFLOAT, 16, 1}};
  Problem p = default_problem();
  p.device_type = devices[below(3)];
  p.device_id = static_cast<int32_t>(below(3));
  p.dtype = dtypes[below(3)];
  p.batch = 1 + below(64);
  p.heads_kv = 1 + below(8);
  p.heads_q = p.heads_kv * (1 + below(8));
  p.seq_q = 1 + below(100000);
  p.seq_kv = 1 + below(100000);
  p.head_dim = 1 + below(512);
  p.head_dim_v = 1 + below(512);
  p.scale = flag() != 0 ? std::ldexp(static_cast<float>(below(1 << 24)) - 8e6F,
                                     static_cast<int>(below(60)) - 40) +
                              0.0F
                        : 0.0F;
  p.varlen = flag();
  p.mask = p.varlen != 0 ? ATTNRT_MASK_NONE : static_cast<int32_t>(below(3));
  if (p.mask == ATTNRT_MASK_ADDITIVE) p.mask_dtype = flag() != 0 ? p.dtype : dtypes[0];
  p.causal = flag();
  p.align = flag();
  p.softcap = flag() != 0 ? static_cast<float>(below(1000)) / 7 : 0;
  p.window_left = below(4) - 1;
  p.window_right = below(4) - 1;
  p.alibi = flag();
  p.sinks = flag();
  p.page_size = flag() * static_cast<int32_t>(1 + below(256));
  p.kv_lengths = p.page_size > 0 ? 1 : flag();
  p.lse = flag();
  p.alignment_bytes = 1 << below(13);
  p.batch_invariant = flag();
  p.deterministic = p.batch_invariant != 0 ? 1 : flag();
  constexpr attnrt_dtype kv_dtypes[] = {{},
                                        {ATTNRT_DTYPE_INT, 8, 1},
                                        {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1},
                                        {ATTNRT_DTYPE_FLOAT8_E4M3FNUZ, 8, 1}};
  p.kv_dtype = kv_dtypes[below(4)];
  p.kv_scale = same_dtype(p.kv_dtype, {}) ? 0 : static_cast<int32_t>(below(4));
  p.v_in_k = p.head_dim_v <= p.head_dim ? flag() : 0;
  if (!same_dtype(p.dtype, dtypes[0]) && flag() != 0) p.out_dtype = dtypes[0];
  p.diagonal_offset = flag();
  return p;
}

TEST(Problem, DescribeAndParseAreEachOthersInverse) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 5000; ++round) {
    const Problem problem = random_problem(random);
    const auto checked = check_problem(&problem);
    ASSERT_TRUE(checked) << checked.error().message << " of " << describe(problem);
    ASSERT_TRUE(same_bytes(*checked, problem)) << describe(problem);
    const std::string arch = round % 2 == 0 ? "" : "gfx942:sramecc+:xnack-";
    Problem back = default_problem();
    std::string back_arch;
    const auto read = parse_problem(describe(problem, arch), back, back_arch);
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_TRUE(same_bytes(back, problem)) << describe(problem) << "\n" << describe(back);
    ASSERT_EQ(back_arch, arch);
  }
}

TEST(Problem, FeaturesAreWhatItUses) {
  EXPECT_THAT(features_of(parsed("head_dim=64")), IsEmpty());
  EXPECT_THAT(
      features_of(parsed("heads_q=4 heads_kv=2 causal=true align=top_left window_left=3 softcap=1 "
                         "alibi=true sinks=true "
                         "kv_lengths=true varlen=true page_size=1 lse=true deterministic=true "
                         "diagonal_offset=true batch_invariant=true v_in_k=true")),
      ElementsAre("gqa", "causal", "align_top_left", "window", "softcap", "alibi", "sinks",
                  "kv_lengths", "varlen", "paged", "lse", "deterministic", "diagonal_offset",
                  "batch_invariant", "v_in_k"));
  EXPECT_THAT(features_of(parsed("align=top_left")), IsEmpty());  // nothing uses the diagonal
  EXPECT_THAT(features_of(parsed("align=top_left alibi=true")),
              ElementsAre("align_top_left", "alibi"));
  EXPECT_THAT(features_of(parsed("align=top_left window_right=0")),
              ElementsAre("align_top_left", "window"));
  EXPECT_EQ(all_features().size(), 15U);
}

TEST(Problem, CheckRefusesEachBadWord) {
  const std::pair<void (*)(Problem&), std::string_view> rows[] = {
      {[](Problem& p) { p.batch = 0; },
       "problem: batch is 0, or was not given; expected at least 1"},
      {[](Problem& p) { p.seq_q = 0; },
       "problem: seq_q is 0, or was not given; expected at least 1"},
      {[](Problem& p) { p.seq_kv = -3; }, "problem: seq_kv -3 is below 1"},
      {[](Problem& p) { p.heads_q = INT64_MIN; },
       "problem: heads_q -9223372036854775808 is below 1"},
      {[](Problem& p) { p.heads_kv = 0; },
       "problem: heads_kv is 0, or was not given; expected at least 1"},
      {[](Problem& p) { p.head_dim = -1; }, "problem: head_dim -1 is below 1"},
      {[](Problem& p) { p.head_dim_v = -1; }, "problem: head_dim_v -1 is below 1"},
      {[](Problem& p) { p.heads_q = 9, p.heads_kv = 2; },
       "problem: heads_q 9 is not a multiple of heads_kv 2"},
      {[](Problem& p) { p.heads_q = 1, p.heads_kv = 2; },
       "problem: heads_q 1 is not a multiple of heads_kv 2"},
      {[](Problem& p) { p.device_type = 7; }, "problem: device 7 is not in {cpu, cuda, rocm}"},
      {[](Problem& p) { p.device_type = -7; },
       "problem: unknown device is not in {cpu, cuda, rocm}"},
      {[](Problem& p) {
         p.kv_dtype = {ATTNRT_DTYPE_FLOAT, 16, 1};
       },
       "problem: kv_dtype f16 is not in {off, f8_e4m3fn, f8_e4m3fnuz, i8}"},
      {[](Problem& p) {
         p.out_dtype = {ATTNRT_DTYPE_BFLOAT, 16, 1};
       },
       "problem: out_dtype bf16 is not in {off, f32}"},
      {[](Problem& p) { p.kv_scale = ATTNRT_KV_SCALE_HEAD; },
       "problem: kv_scale head needs a kv_dtype"},
      {[](Problem& p) { p.kv_scale = 4; },
       "problem: kv_scale 4 is not in {none, tensor, head, token}"},
      {[](Problem& p) { p.head_dim = 64, p.head_dim_v = 65, p.v_in_k = 1; },
       "problem: v_in_k needs a head_dim_v of at most head_dim 64, found 65"},
      {[](Problem& p) { p.batch_invariant = 2; }, "problem: batch_invariant 2 is above 1"},
      {[](Problem& p) { p.device_id = -1; }, "problem: device_id -1 is below 0"},
      {[](Problem& p) {
         p.dtype = {ATTNRT_DTYPE_FLOAT, 64, 1};
       },
       "problem: dtype f64 is not in {f32, f16, bf16}"},
      {[](Problem& p) { p.dtype.lanes = 2; },
       "problem: dtype f32 of 2 lanes is not in {f32, f16, bf16}"},
      {[](Problem& p) { p.mask = 3; }, "problem: mask 3 is not in {none, boolean, additive}"},
      {[](Problem& p) { p.mask = -1; }, "problem: mask -1 is not in {none, boolean, additive}"},
      {[](Problem& p) { p.mask = 1, p.mask_dtype = p.dtype; },
       "problem: mask_dtype f32 does not fit a boolean mask, expected bool"},
      {[](Problem& p) { p.mask = 2; },
       "problem: mask_dtype bool does not fit an additive mask, expected f32"},
      {[](Problem& p) {
         p.mask = 2, p.mask_dtype = {4, 16, 1}, p.dtype.bits = 16;
       },
       "problem: mask_dtype bf16 does not fit an additive mask, expected f16 or f32"},
      {[](Problem& p) { p.causal = 2; }, "problem: causal 2 is above 1"},
      {[](Problem& p) { p.lse = -1; }, "problem: lse -1 is below 0"},
      {[](Problem& p) { p.align = 2; }, "problem: align 2 is not in {bottom_right, top_left}"},
      {[](Problem& p) { p.window_left = -2; },
       "problem: window_left: found -2, expected at least 0, or unbounded (-1)"},
      {[](Problem& p) { p.window_right = INT64_MIN; },
       "problem: window_right: found -9223372036854775808, expected at least 0, or unbounded (-1)"},
      {[](Problem& p) { p.scale = NAN; }, "problem: scale nan is not finite"},
      {[](Problem& p) { p.scale = -INFINITY; }, "problem: scale -inf is not finite"},
      {[](Problem& p) { p.softcap = INFINITY; }, "problem: softcap inf is not finite"},
      {[](Problem& p) { p.softcap = -1; }, "problem: softcap -1 is below 0"},
      {[](Problem& p) { p.page_size = -1; }, "problem: page_size -1 is below 0"},
      {[](Problem& p) { p.page_size = 16; }, "problem: page_size 16 needs kv_lengths"},
      {[](Problem& p) { p.varlen = 1, p.mask = 1; },
       "problem: varlen takes no mask, found mask boolean"},
      {[](Problem& p) { p.alignment_bytes = 24; },
       "problem: alignment_bytes 24 is not a power of two"},
      {[](Problem& p) { p.alignment_bytes = 8192; }, "problem: alignment_bytes 8192 is above 4096"},
      {[](Problem& p) { p.alignment_bytes = INT32_MIN; },
       "problem: alignment_bytes -2147483648 is below 1"},
  };
  for (const auto& [spoil, expected] : rows) {
    Problem problem = default_problem();
    spoil(problem);
    EXPECT_EQ(check_error(problem), expected);
  }
  EXPECT_EQ(check_error(default_problem()), "accepted");
  EXPECT_EQ(check_problem(nullptr).error().message, "problem: found NULL, expected a problem");
}

TEST(Problem, CheckRefusesDimensionsThatOverflow) {
  const char* const text = "problem: the dimensions multiply to more than 64 bits hold";
  for (int64_t Problem::*field : {&Problem::batch, &Problem::seq_q, &Problem::seq_kv,
                                  &Problem::head_dim, &Problem::head_dim_v}) {
    Problem problem = default_problem();
    problem.*field = INT64_MAX;
    EXPECT_EQ(check_error(problem), text);
  }
  Problem problem = default_problem();
  problem.seq_q = problem.seq_kv = int64_t{1} << 30;  // q fits, the scores do not
  EXPECT_EQ(check_error(problem), text);
  problem.seq_q = problem.seq_kv = int64_t{1} << 28;
  EXPECT_EQ(check_error(problem), "accepted");
}

TEST(Problem, CheckTurnsWhatEqualsDtypeOff) {
  Problem problem = default_problem();
  problem.kv_dtype = problem.out_dtype = problem.dtype;
  problem.batch_invariant = 1;
  const auto checked = check_problem(&problem);
  ASSERT_TRUE(checked);
  EXPECT_TRUE(is_off(checked->kv_dtype));
  EXPECT_TRUE(is_off(checked->out_dtype));
  EXPECT_EQ(checked->deterministic, 1);  // batch_invariant implies it
}

TEST(Problem, CheckFillsInTheDefaults) {
  Problem problem = default_problem();
  problem.head_dim = 96;
  problem.alignment_bytes = 0;
  problem.mask_dtype = {};
  problem.scale = -0.0F;
  problem.softcap = -0.0F;
  const auto checked = check_problem(&problem);
  ASSERT_TRUE(checked);
  EXPECT_EQ(checked->head_dim_v, 96);
  EXPECT_EQ(checked->alignment_bytes, 16);
  EXPECT_EQ(dtype_name(checked->mask_dtype), "bool");
  EXPECT_FALSE(std::signbit(checked->scale) || std::signbit(checked->softcap));
}

struct NewerProblem {
  attnrt_problem known = ATTNRT_PROBLEM_INIT;
  int64_t added = 0;
  int32_t also_added[2] = {};
};

TEST(Problem, ANewerStructServesWhileItsNewFieldsAreOff) {
  NewerProblem newer;
  newer.known.struct_size = sizeof newer;
  newer.known.head_dim = 64;
  const auto checked = check_problem(&newer.known);
  ASSERT_TRUE(checked) << checked.error().message;
  EXPECT_EQ(checked->struct_size, static_cast<int32_t>(sizeof(Problem)));
  newer.also_added[1] = 1 << 24;  // only the last byte
  EXPECT_EQ(check_error(newer.known),
            fmt::format("problem: byte {} of {} is not zero, but this runtime knows only the first "
                        "{}; leave newer fields at zero",
                        sizeof newer - 1, sizeof newer, sizeof(Problem)));
}

TEST(Problem, AShorterStructHasDefaultsInItsPlace) {
  Problem problem = default_problem();
  problem.head_dim = 64;
  problem.causal = 1;
  problem.window_left = 77;
  problem.alignment_bytes = -5;  // beyond its size: never read
  problem.deterministic = 99;
  problem.struct_size = offsetof(Problem, window_right);
  const auto checked = check_problem(&problem);
  ASSERT_TRUE(checked) << checked.error().message;
  EXPECT_EQ(checked->causal, 1);
  EXPECT_EQ(checked->window_left, 77);
  EXPECT_EQ(checked->window_right, -1);
  EXPECT_EQ(checked->alignment_bytes, 16);
  EXPECT_EQ(checked->deterministic, 0);
  problem.struct_size -= 4;  // half of window_left is not window_left
  EXPECT_EQ(check_problem(&problem)->window_left, -1);
}

TEST(Problem, AStructIsNeverReadPastItsSize) {
  for (size_t size = offsetof(Problem, scale); size <= sizeof(Problem); ++size) {
    std::vector<unsigned char> bytes(size);  // exactly: a sanitizer sees one byte more
    const Problem problem = default_problem();
    std::memcpy(bytes.data(), &problem, size);
    const auto short_size = static_cast<int32_t>(size);
    std::memcpy(bytes.data(), &short_size, sizeof short_size);
    EXPECT_TRUE(check_problem(reinterpret_cast<const Problem*>(bytes.data()))) << size;
  }
}

TEST(Problem, ASizeThatCannotBeIsRefused) {
  for (const int32_t size :
       {-1, 0, 4, static_cast<int32_t>(offsetof(Problem, scale)) - 1, 4097, INT32_MAX, INT32_MIN}) {
    Problem problem = default_problem();
    problem.struct_size = size;
    EXPECT_THAT(check_error(problem), HasSubstr(fmt::format("struct_size is {}, expected ", size)));
  }
}

TEST(Problem, NamesOfDevicesAndDtypes) {
  EXPECT_STREQ(device_name(ATTNRT_DEVICE_CPU), "cpu");
  EXPECT_STREQ(device_name(ATTNRT_DEVICE_CUDA), "cuda");
  EXPECT_STREQ(device_name(ATTNRT_DEVICE_ROCM), "rocm");
  EXPECT_STREQ(device_name(7), "device 7");
  EXPECT_STREQ(device_name(-1), "unknown device");
  EXPECT_EQ(find_device("rocm"), ATTNRT_DEVICE_ROCM);
  EXPECT_EQ(find_device("tpu"), std::nullopt);
  EXPECT_EQ(dtype_name({ATTNRT_DTYPE_INT, 32, 1}), "int32");
  EXPECT_EQ(dtype_name({ATTNRT_DTYPE_FLOAT, 64, 1}), "f64");
  EXPECT_EQ(dtype_name({ATTNRT_DTYPE_INT, 64, 1}), "int64");
  EXPECT_EQ(dtype_name({ATTNRT_DTYPE_UINT, 8, 1}), "uint8");
  EXPECT_EQ(dtype_name({ATTNRT_DTYPE_FLOAT, 16, 2}), "f16 of 2 lanes");
  EXPECT_EQ(dtype_name({9, 4, 1}), "code 9 bits 4");
  EXPECT_EQ(dtype_bytes({ATTNRT_DTYPE_BFLOAT, 16, 1}), 2);
  EXPECT_EQ(dtype_bytes({ATTNRT_DTYPE_BOOL, 8, 1}), 1);
}

TEST(Problem, SurvivesAnyWords) {
  std::mt19937 random(5);
  const std::string_view pieces[] = {"batch",
                                     "=",
                                     " ",
                                     "1",
                                     "-",
                                     "device",
                                     "rocm",
                                     ":",
                                     "9999999999999999999",
                                     "0",
                                     ".",
                                     "e",
                                     "causal=true",
                                     "mask=additive ",
                                     "arch",
                                     "\xFF",
                                     "nan",
                                     "unbounded",
                                     "window_left="};
  for (int round = 0; round < 20000; ++round) {
    std::string words;
    for (auto length = random() % 12; length > 0; --length)
      words += pieces[random() % std::size(pieces)];
    Problem problem = default_problem();
    std::string arch;
    if (parse_problem(words, problem, arch)) {
      const Problem once = parsed(describe(problem, arch));
      EXPECT_EQ(describe(once), describe(problem)) << words;
    }
  }
}

}  // namespace
}  // namespace attnrt::core
