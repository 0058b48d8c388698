// tests/kernels/cpu/check_test.cpp: arguments that do not fit are refused with a message, and
// nothing is written
#include "kernels/cpu/check.hpp"

#include <gtest/gtest.h>

#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

Recipe serving() {
  Recipe r;
  r.problem.varlen = true;
  r.problem.page_size = 4;
  r.problem.head_dim = r.problem.head_dim_v = 8;
  r.q_lengths = {3, 2};
  r.kv_lengths = {5, 9};
  return r;
}

Recipe packed() {
  Recipe r = serving();
  r.problem.page_size = 0;
  return r;
}

void expect_refused(const Case& c, const char* message) {
  cpu::Error error;
  EXPECT_EQ(run_once(c, *cpu::find_target(nullptr), 1, &error), cpu::Status::invalid_argument);
  EXPECT_STREQ(error.message, message);
  EXPECT_EQ(c.output_bytes().find_first_not_of('\xFF'), std::string::npos)
      << "something was written";
}

int32_t* values(const Tensor& t) { return static_cast<int32_t*>(t.data); }

TEST(CheckArgs, IndexArrays) {
  const auto refused = [](const Recipe& r, Tensor Args::*array, int64_t index, int32_t value,
                          const char* message) {
    Case c(r);
    values(c.args.*array)[index] = value;
    expect_refused(c, message);
  };
  refused(serving(), &Args::kv_lengths, 1, -1, "kv_lengths[1]: found -1, expected 0 to 9");
  refused(serving(), &Args::kv_lengths, 1, 10, "kv_lengths[1]: found 10, expected 0 to 9");
  refused(serving(), &Args::page_table, 0, -1, "page_table[0, 0]: found -1, expected 0 to 7");
  refused(serving(), &Args::page_table, 1, 8, "page_table[0, 1]: found 8, expected 0 to 7");
  refused(serving(), &Args::offsets_q, 0, -2, "offsets_q[0]: found -2, expected 0 to 10");
  refused(serving(), &Args::offsets_q, 2, 4, "offsets_q[2]: found 4, expected 5 to 8");
  refused(serving(), &Args::offsets_q, 2, 9, "offsets_q[2]: found 9, expected 5 to 8");
  refused(packed(), &Args::offsets_kv, 2, 16, "offsets_kv[2]: found 16, expected 6 to 15");
  refused(packed(), &Args::offsets_kv, 1, 0, "offsets_kv[1]: found 0, expected 1 to 10");
  refused(packed(), &Args::offsets_q, 2, 2147483647,
          "offsets_q[2]: found 2147483647, expected 5 to 8");
}

TEST(CheckArgs, IndexPastTheTensorWithinTheBound) {
  Recipe r = packed();
  r.slack = 100;
  Case c(r);
  values(c.args.offsets_q)[2] = 11;
  expect_refused(c, "offsets_q[2]: found 11, expected 5 to 10");
}

TEST(CheckArgs, TensorsThatDisagree) {
  Recipe r;
  r.problem.head_dim = r.problem.head_dim_v = 8;
  r.problem.mask = Mask::boolean;
  r.problem.lse = true;
  r.seq_q = 3;
  r.seq_kv = 5;
  const auto refused = [&](auto change, const char* message) {
    Case c(r);
    change(c);
    expect_refused(c, message);
  };
  refused([](Case& c) { c.args.q.shape[3] = 7; }, "q.shape[3]: found 7, expected 8");
  refused([](Case& c) { c.args.q.stride[3] = 2; }, "q.stride[3]: found 2, expected 1");
  refused([](Case& c) { c.args.v.shape[1] = 4; }, "v.shape[1]: found 4, expected 5");
  refused([](Case& c) { c.args.out.dtype = DType::f16; }, "out: found dtype f16, expected f32");
  refused([](Case& c) { c.args.k.ndim = 3; }, "k: found 3 dimensions, expected 4");
  refused([](Case& c) { c.args.lse.data = nullptr; }, "lse: found no data, expected a tensor");
  refused([](Case& c) { c.args.mask.shape[2] = 1; }, "mask.shape[2]: found 1, expected 3");
  refused([](Case& c) { c.problem.seq_q = 2; },
          "q.shape[1]: found 3, expected at most the plan's 2");
  refused([](Case& c) { c.problem.seq_kv = 4; },
          "k.shape[1]: found 5, expected at most the plan's 4");
}

TEST(CheckArgs, ScalesOffsetsAndTypes) {
  Recipe r;
  r.problem.dtype = DType::bf16;
  r.problem.head_dim = r.problem.head_dim_v = 8;
  r.problem.kv_dtype = DType::i8;
  r.problem.kv_scale = KvScale::token;
  r.problem.out_dtype = DType::f32;
  r.problem.diagonal_offset = r.problem.alibi = true;
  r.seq_q = 3;
  r.seq_kv = 5;
  const auto refused = [&](auto change, const char* message) {
    Case c(r);
    change(c);
    expect_refused(c, message);
  };
  refused([](Case& c) { c.args.k.dtype = DType::bf16; }, "k: found dtype bf16, expected i8");
  refused([](Case& c) { c.args.v.dtype = DType::f8_e4m3fn; },
          "v: found dtype f8_e4m3fn, expected i8");
  refused([](Case& c) { c.args.out.dtype = DType::bf16; }, "out: found dtype bf16, expected f32");
  refused([](Case& c) { c.args.k_scale = {}; }, "k_scale: found 0 dimensions, expected 3");
  refused([](Case& c) { c.args.v_scale.shape[1] = 4; }, "v_scale.shape[1]: found 4, expected 5");
  refused([](Case& c) { c.args.v_scale.data = nullptr; },
          "v_scale: found no data, expected a tensor");
  refused([](Case& c) { c.args.diagonal_offset = {}; },
          "diagonal_offset: found 0 dimensions, expected 1");
  refused([](Case& c) { c.args.alibi_slopes.shape[0] = 2; },
          "alibi_slopes.shape[0]: found 2, expected 1");
  r.problem.v_in_k = true;
  refused([](Case& c) { c.args.k_scale.shape[2] = 2; }, "k_scale.shape[2]: found 2, expected 1");
}

TEST(CheckProblem, NamesTheNumberThatIsWrong) {
  const auto refused = [](auto change, const char* message) {
    Problem p;
    change(p);
    cpu::Error error;
    EXPECT_EQ(cpu::check_problem(p, &error), cpu::Status::invalid_argument);
    EXPECT_STREQ(error.message, message);
  };
  refused([](Problem& p) { p.head_dim = 0; }, "head_dim: found 0, expected at least 1");
  refused([](Problem& p) { p.head_dim_v = int64_t{1} << 53; },
          "head_dim_v: found 9007199254740992, expected at most 16777216");
  refused([](Problem& p) { p.heads_q = 3, p.heads_kv = 2; },
          "heads_q: found 3, expected a multiple of heads_kv 2");
  refused([](Problem& p) { p.dtype = DType::i32; }, "dtype: found i32, expected f32, f16 or bf16");
  refused([](Problem& p) { p.window_left = -2; }, "window_left: found -2, expected at least -1");
  refused([](Problem& p) { p.softcap = -1; }, "softcap: found -1, expected 0 or more");
  refused([](Problem& p) { p.mask = Mask::boolean, p.varlen = true; },
          "mask: found a mask with varlen, expected none");
  refused([](Problem& p) { p.mask = Mask::additive, p.mask_dtype = DType::f16; },
          "mask_dtype: found f16, expected f32 or q's f32");
  refused([](Problem& p) { p.kv_dtype = DType::f16; },
          "kv_dtype: found f16, expected i8, f8_e4m3fn, f8_e4m3fnuz or q's f32");
  refused([](Problem& p) { p.kv_scale = KvScale::head; },
          "kv_scale: found a scale with k of q's dtype, expected none");
  refused([](Problem& p) { p.out_dtype = DType::bf16; },
          "out_dtype: found bf16, expected f32 or q's f32");
  refused([](Problem& p) { p.v_in_k = true, p.head_dim_v = 2; },
          "head_dim_v: found 2 with v_in_k, expected at most head_dim 1");
  EXPECT_EQ(cpu::check_problem(Problem{}, nullptr), cpu::Status::ok);
}

TEST(Run, RefusesAWorkspaceThatIsTooSmall) {
  Recipe r;
  r.problem.head_dim = r.problem.head_dim_v = 8;
  Case c(r);
  cpu::Error error;
  EXPECT_EQ(cpu::run(c.problem, c.args, *cpu::find_target(nullptr), {}, nullptr, 0, &error),
            cpu::Status::invalid_argument);
  EXPECT_EQ(std::string(error.message).rfind("workspace: found 0 bytes", 0), 0u) << error.message;
}

// Bounds beyond any memory give a size beyond any memory, not one that has overflowed.
TEST(Run, WorkspacesOfHugeProblemsDoNotOverflow) {
  Problem p;
  p.batch = p.heads_q = p.heads_kv = p.seq_q = p.seq_kv = int64_t{1} << 62;
  p.head_dim = p.head_dim_v = int64_t{1} << 24;
  EXPECT_GE(cpu::workspace_bytes(p, *cpu::find_target(nullptr), 1024), int64_t{1} << 60);
}

}  // namespace
}  // namespace kernels::test
