// tests/kernels/common/instruction_set_test.cpp: the answers are Highway's
#include "kernels/common/instruction_set.hpp"

#include <gtest/gtest.h>

#include "hwy/targets.h"

namespace kernels {
namespace {

TEST(InstructionSet, IsThereWhereHighwaySaysSo) {
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t left = HWY_TARGETS; left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    EXPECT_EQ(has_instruction_set(target), (supported & target) != 0) << hwy::TargetName(target);
  }
}

TEST(InstructionSet, OneIsAlwaysThere) { EXPECT_TRUE(has_instruction_set(HWY_STATIC_TARGET)); }

}  // namespace
}  // namespace kernels
