// tests/kernels/common/online_softmax_test.cpp: tests the state of a softmax that has seen nothing
#include "kernels/common/online_softmax.hpp"

#include <gtest/gtest.h>

namespace kernels {
namespace {

TEST(OnlineSoftmax, WithoutScoresOnlyTheSinkCounts) {
  EXPECT_EQ(log_sum_exp({}), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(-INFINITY)), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(2.5f)), 2.5f);
}

}  // namespace
}  // namespace kernels
