// tests/kernels/emulator/library.cpp: the tests of this folder as a library whose launches its
// caller runs (run_tests.py, tabulate.py)
#include "tests/kernels/emulator/library.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>

#include "kernels/hip/launch/family.hpp"
#include "tests/kernels/hip/expect.hpp"

namespace kernels::test {
namespace {

// Runs a kernel to its end. RETURNS 0; on failure not 0, with one line in message.
using RunKernel = int (*)(const char* object, const char* kernel, const uint32_t* grid,
                          uint32_t block, uint32_t shared_bytes, const void* params,
                          uint32_t params_bytes, char* message, uint32_t message_bytes);
RunKernel run_kernel;

}  // namespace

const char* emulated_arch;

void run_launch(const char*, const hip::Launch& launch, uint32_t) {
  char message[512] = "";
  const int failed =
      run_kernel(launch.object, launch.kernel, launch.grid, launch.block, launch.shared_bytes,
                 launch.params, launch.params_bytes, message, sizeof message);
  ASSERT_EQ(failed, 0) << launch.object << " " << launch.kernel << ": " << message;
}

}  // namespace kernels::test

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Runs the tests. arguments: gtest's options. RETURNS gtest's exit status.
EXPORTED int run_tests(const char* arch, int count, char** arguments,
                       kernels::test::RunKernel run_kernel) {
  kernels::test::emulated_arch = arch;
  kernels::test::run_kernel = run_kernel;
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}

// Launches the fused kernel for one workgroup's queries and seq_kv keys. mask: whether there is a
// boolean mask, whose rows are read in 16-byte words.
EXPORTED void run_workgroup(const char* arch, const char* dtype, int head_dim, int mask, int causal,
                            int seq_kv, kernels::test::RunKernel run_kernel) {
  using namespace kernels;
  test::run_kernel = run_kernel;
  const std::string_view name = dtype;
  test::Recipe r;
  r.problem.dtype = name == "f32" ? DType::f32 : name == "f16" ? DType::f16 : DType::bf16;
  r.problem.head_dim = r.problem.head_dim_v = head_dim;
  r.problem.mask = mask ? Mask::boolean : Mask::none;
  r.problem.causal = causal;
  r.seq_q =
      static_cast<int64_t>(hip::tile_facts(hip::family_of(arch), r.problem.dtype, head_dim).rows);
  r.seq_kv = seq_kv;
  const test::Case c(r);
  hip::Launch launches[8];
  hip::launches(hip::plan_flash(c.problem, {arch}), c.problem, c.args, nullptr, launches);
  test::run_launch(arch, launches[0], 0);
}
