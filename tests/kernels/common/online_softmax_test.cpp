// tests/kernels/common/online_softmax_test.cpp: what a softmax has seen into its denominator
#include "kernels/common/online_softmax.hpp"

#include <gtest/gtest.h>

namespace kernels {
namespace {

TEST(OnlineSoftmax, NothingSeen) {
  EXPECT_EQ(log_sum_exp({}), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(-INFINITY)), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(2.5f)), 2.5f);
}

}  // namespace
}  // namespace kernels
