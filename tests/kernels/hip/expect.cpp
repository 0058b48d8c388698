// tests/kernels/hip/expect.cpp: runs a problem on the GPU kernels and checks it against float64
#include "tests/kernels/hip/expect.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {
namespace {

template <class Plan>
void run_with(const Plan& plan, const char* arch, const Case& c, uint32_t seed) {
  // Filled with NaN, so that a read before a write shows. On the heap, so that a sanitizer sees an
  // access past its end.
  std::vector<char> workspace(static_cast<size_t>(plan.workspace_bytes), '\xFF');
  hip::Launch launches[8];
  const int32_t count = hip::launches(plan, c.problem, c.args, workspace.data(), launches);
  ASSERT_GE(count, 0);
  for (int32_t n = 0; n < count; ++n) run_launch(arch, launches[n], seed);
}

template <class Plan>
void expect_right_with(const Plan& plan, const char* arch, const Case& c, uint32_t seed) {
  SCOPED_TRACE(std::string(arch) + " " + plan.object + " " + plan.kernel);
  run_with(plan, arch, c, seed);
  EXPECT_TRUE(c.outside_untouched()) << "wrote outside the rows";
  expect_accurate(c, reference::expect(c.problem, c.args));
}

}  // namespace

void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed) {
  SCOPED_TRACE(describe(recipe));
  const Case c(recipe);
  std::string reason;
  ASSERT_TRUE(hip::flash_supported(c.problem, arch, &reason)) << reason;
  expect_right_with(hip::plan_flash(c.problem, arch), arch, c, seed);
}

void expect_unfused_right_on(const char* arch, const Recipe& recipe, uint32_t seed) {
  SCOPED_TRACE(describe(recipe));
  const Case c(recipe);
  std::string reason;
  ASSERT_TRUE(hip::unfused_supported(c.problem, arch, &reason)) << reason;
  expect_right_with(hip::plan_unfused(c.problem, arch), arch, c, seed);
}

void run_unfused_on(const char* arch, const Case& c) {
  ASSERT_TRUE(hip::unfused_supported(c.problem, arch, nullptr));
  run_with(hip::plan_unfused(c.problem, arch), arch, c, 0);
}

}  // namespace kernels::test
