// tests/kernels/emulator/library.cpp: the tests of this folder into a library whose launches its caller runs (run_tests.py)
#include "tests/kernels/emulator/library.hpp"

#include <gtest/gtest.h>

#include <cstdint>

#include "tests/kernels/hip/expect.hpp"

namespace kernels::test {
namespace {

// Runs a kernel to its end. Returns 0, or puts a line into message.
using RunKernel = int (*)(const char* object, const char* kernel, const uint32_t* grid, uint32_t block,
                          uint32_t shared_bytes, const void* params, uint32_t params_bytes, char* message,
                          uint32_t message_bytes);
RunKernel run_kernel;

}  // namespace

const char* emulated_arch;

void run_launch(const char*, const hip::Launch& launch, uint32_t) {
  char message[512] = "";
  const int failed = run_kernel(launch.object, launch.kernel, launch.grid, launch.block, launch.shared_bytes,
                                launch.params, launch.params_bytes, message, sizeof message);
  ASSERT_EQ(failed, 0) << launch.object << " " << launch.kernel << ": " << message;
}

}  // namespace kernels::test

// arguments: gtest's options. Returns gtest's exit status.
extern "C" __attribute__((visibility("default"))) int run_tests(const char* arch, int count, char** arguments,
                                                                kernels::test::RunKernel run_kernel) {
  kernels::test::emulated_arch = arch;
  kernels::test::run_kernel = run_kernel;
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}
