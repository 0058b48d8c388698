// tests/kernels/hip/expect.cpp: see expect.hpp
#include "tests/kernels/hip/expect.hpp"

#include <gtest/gtest.h>

#include "kernels/hip/launch.hpp"
#include "tests/kernels/hip/host_kernels.hpp"
#include "tests/kernels/support/accuracy.hpp"

namespace kernels::test {

void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed) {
  SCOPED_TRACE(describe(recipe));
  const Case c(recipe);
  std::string reason;
  ASSERT_TRUE(hip::flash_supported(c.problem, arch, &reason)) << reason;
  const hip::FlashPlan plan = hip::plan_flash(c.problem, arch);
  SCOPED_TRACE(std::string(arch) + " " + plan.object + " " + plan.kernel);
  hip::Launch launches[8];
  const int32_t count = hip::launches(plan, c.problem, c.args, nullptr, launches);
  ASSERT_GE(count, 0);
  for (int32_t n = 0; n < count; ++n) run_on_host(hip::family_of(arch), launches[n], seed);
  EXPECT_TRUE(c.outside_untouched()) << "wrote outside the rows";
  expect_accurate(c, expected_of(c));
}

}  // namespace kernels::test
