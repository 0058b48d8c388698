// tests/plugins/cpu/plugin_test.cpp: calls cpu.so as a host does, and compares with its kernels bit
// by bit
#include "attnrt/plugin.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/support/random.hpp"
#include "tests/kernels/support/run.hpp"

namespace {

using kernels::DType;
using kernels::test::Case;
using kernels::test::Recipe;

const attnrt_plugin& table() {
  static const attnrt_plugin* plugin = [] {
    void* library = dlopen(CPU_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    return static_cast<const attnrt_plugin*>(dlsym(library, ATTNRT_PLUGIN_SYMBOL));
  }();
  return *plugin;
}

attnrt_dtype dtype(DType from) {
  switch (from) {
    case DType::f32: return {ATTNRT_DTYPE_FLOAT, 32, 1};
    case DType::f16: return {ATTNRT_DTYPE_FLOAT, 16, 1};
    case DType::bf16: return {ATTNRT_DTYPE_BFLOAT, 16, 1};
    case DType::boolean: return {ATTNRT_DTYPE_BOOL, 8, 1};
    case DType::i8: return {ATTNRT_DTYPE_INT, 8, 1};
    case DType::f8_e4m3fn: return {ATTNRT_DTYPE_FLOAT8_E4M3FN, 8, 1};
    case DType::f8_e4m3fnuz: return {ATTNRT_DTYPE_FLOAT8_E4M3FNUZ, 8, 1};
    case DType::unknown: return {};
    default: return {ATTNRT_DTYPE_INT, 32, 1};
  }
}

attnrt_tensor tensor(const kernels::Tensor& from) {
  attnrt_tensor to{};
  to.data = from.data;
  to.dtype = dtype(from.dtype);
  to.ndim = from.ndim;
  std::copy(from.shape, from.shape + 4, to.shape);
  std::copy(from.stride, from.stride + 4, to.stride);
  return to;
}

attnrt_problem problem(const kernels::Problem& p) {
  attnrt_problem to = ATTNRT_PROBLEM_INIT;
  to.dtype = dtype(p.dtype);
  to.batch = p.batch;
  to.heads_q = p.heads_q;
  to.heads_kv = p.heads_kv;
  to.seq_q = p.seq_q;
  to.seq_kv = p.seq_kv;
  to.head_dim = p.head_dim;
  to.head_dim_v = p.head_dim_v;
  to.scale = p.scale;
  to.mask = static_cast<int32_t>(p.mask);
  if (p.mask == kernels::Mask::additive) to.mask_dtype = dtype(p.mask_dtype);
  to.causal = p.causal;
  to.align = static_cast<int32_t>(p.align);
  to.softcap = p.softcap;
  to.window_left = p.window_left;
  to.window_right = p.window_right;
  to.alibi = p.alibi;
  to.sinks = p.sinks;
  to.kv_lengths = p.kv_lengths;
  to.varlen = p.varlen;
  to.page_size = static_cast<int32_t>(p.page_size);
  to.lse = p.lse;
  to.kv_dtype = dtype(p.kv_dtype);
  to.kv_scale = static_cast<int32_t>(p.kv_scale);
  to.v_in_k = p.v_in_k;
  to.out_dtype = dtype(p.out_dtype);
  to.diagonal_offset = p.diagonal_offset;
  to.batch_invariant = p.batch_invariant;
  return to;
}

attnrt_args arguments(const kernels::Args& a) {
  attnrt_args to{};
  to.struct_size = sizeof(to);
#define CONVERT(name) to.name = tensor(a.name);
  ATTNRT_TENSORS(CONVERT)
#undef CONVERT
  return to;
}

class CpuPlugin : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(table().open(&host_, nullptr, 0, &instance_, &error_), ATTNRT_OK);
  }
  void TearDown() override { table().close(instance_); }

  // Calls plan, run and plan_destroy.
  attnrt_status attend(Case& c) {
    const attnrt_problem p = problem(c.problem);
    attnrt_plan_info info{};
    info.struct_size = sizeof(info);
    void* plan = nullptr;
    attnrt_status status = table().plan(instance_, &p, &info, &plan, &error_);
    if (status != ATTNRT_OK) return status;
    const std::unique_ptr<void, void (*)(void*)> workspace(
        std::aligned_alloc(static_cast<size_t>(info.workspace_alignment),
                           static_cast<size_t>(info.workspace_bytes)),
        std::free);
    attnrt_args args = arguments(c.args);
    args.workspace = workspace.get();
    args.workspace_bytes = info.workspace_bytes;
    status = table().run(instance_, plan, &p, &args, &error_);
    kernel_ = info.kernel;
    table().plan_destroy(instance_, plan);
    return status;
  }

  kernels::cpu::Workers threads_ = kernels::test::threads(2);
  attnrt_host host_{sizeof(attnrt_host),  ATTNRT_ABI_MINOR, 2, 0, threads_.self, nullptr,
                    threads_.parallel_for};
  void* instance_ = nullptr;
  attnrt_error error_ = ATTNRT_ERROR_INIT;
  std::string kernel_;
};

TEST_F(CpuPlugin, GivesTheBitsOfItsKernels) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const Recipe recipe = kernels::test::random_recipe(seed);
    SCOPED_TRACE(kernels::test::describe(recipe));
    Case c(recipe);
    kernels::cpu::Error error;
    ASSERT_EQ(kernels::test::run_once(c, *kernels::cpu::find_target(nullptr), 2, &error),
              kernels::cpu::Status::ok)
        << error.message;
    const std::string want = c.output_bytes();
    c.poison_outputs();
    ASSERT_EQ(attend(c), ATTNRT_OK) << error_.message;
    EXPECT_TRUE(c.output_bytes() == want);
  }
  EXPECT_EQ(kernel_, kernels::cpu::kernel_name(*kernels::cpu::find_target(nullptr)));
}

TEST_F(CpuPlugin, WorksWithoutThreads) {
  table().close(instance_);
  attnrt_host host = host_;
  host.parallel_for = nullptr;
  ASSERT_EQ(table().open(&host, nullptr, 0, &instance_, &error_), ATTNRT_OK);
  Case c(kernels::test::random_recipe(1));
  EXPECT_EQ(attend(c), ATTNRT_OK) << error_.message;
}

TEST_F(CpuPlugin, RefusesAnUnknownOption) {
  const attnrt_option options[] = {{"tile", "64"}};
  void* other = nullptr;
  EXPECT_EQ(table().open(&host_, options, 1, &other, &error_), ATTNRT_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error_.message).find("found tile"), std::string::npos) << error_.message;
}

// A second instance beside the first, with its own instruction set.
TEST_F(CpuPlugin, EachTargetCanBeForced) {
  for (const kernels::cpu::Target* target : kernels::test::targets()) {
    const std::string name = kernels::cpu::target_name(*target);
    if (name.find(' ') != std::string::npos) continue;  // "plain tiles, ...": not in the plugin
    const attnrt_option options[] = {{"target", name.c_str()}};
    void* forced = nullptr;
    ASSERT_EQ(table().open(&host_, options, 1, &forced, &error_), ATTNRT_OK) << error_.message;
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const Recipe recipe = kernels::test::random_recipe(seed);
      SCOPED_TRACE(name + " " + kernels::test::describe(recipe));
      Case c(recipe);
      kernels::cpu::Error error;
      ASSERT_EQ(kernels::test::run_once(c, *target, 2, &error), kernels::cpu::Status::ok)
          << error.message;
      const std::string want = c.output_bytes();
      std::swap(instance_, forced);
      c.poison_outputs();
      ASSERT_EQ(attend(c), ATTNRT_OK) << error_.message;
      EXPECT_TRUE(c.output_bytes() == want);
      EXPECT_EQ(kernel_, "attend<" + name + ">");
      std::swap(instance_, forced);
    }
    table().close(forced);
  }
}

TEST_F(CpuPlugin, RefusesATargetThatIsNotAvailable) {
  const attnrt_option options[] = {{"target", "avx1024"}};
  void* other = nullptr;
  EXPECT_EQ(table().open(&host_, options, 1, &other, &error_), ATTNRT_INVALID_ARGUMENT);
  const std::string message = error_.message;
  EXPECT_EQ(message.rfind("options.target: found avx1024, expected one of: ", 0), 0u) << message;
  EXPECT_NE(message.find(kernels::cpu::target_name(*kernels::cpu::find_target(nullptr))),
            std::string::npos)
      << message;
}

TEST_F(CpuPlugin, RefusesBadIndices) {
  Recipe recipe;
  recipe.problem.kv_lengths = true;
  recipe.kv_lengths = {3};
  recipe.seq_kv = 3;
  Case c(recipe);
  static_cast<int32_t*>(c.args.kv_lengths.data)[0] = 4;
  EXPECT_EQ(attend(c), ATTNRT_INVALID_ARGUMENT);
  EXPECT_EQ(error_.code, ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "kv_lengths[0]: found 4, expected 0 to 3");
}

TEST_F(CpuPlugin, RefusesATensorOfAnotherDtype) {
  Case c(Recipe{});
  c.args.k.dtype = DType::i32;
  EXPECT_EQ(attend(c), ATTNRT_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "k: found dtype i32, expected f32");
}

TEST_F(CpuPlugin, SupportsReportsAReason) {
  attnrt_problem p = ATTNRT_PROBLEM_INIT;
  p.batch = p.heads_q = p.heads_kv = p.seq_q = p.seq_kv = p.head_dim = p.head_dim_v = 4;
  std::vector<std::string> reasons;
  const auto add = [](void* sink, const char* reason) {
    static_cast<std::vector<std::string>*>(sink)->emplace_back(reason);
  };
  EXPECT_EQ(table().supports(instance_, &p, add, &reasons), ATTNRT_OK);
  p.heads_kv = 3;
  EXPECT_EQ(table().supports(instance_, &p, add, &reasons), ATTNRT_UNSUPPORTED);
  EXPECT_EQ(reasons,
            std::vector<std::string>{"heads_q: found 4, expected a multiple of heads_kv 3"});
}

}  // namespace
