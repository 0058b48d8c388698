// tests/kernels/common/online_softmax_test.cpp: pieces of a softmax into the whole
#include "kernels/common/online_softmax.hpp"

#include <gtest/gtest.h>

namespace kernels {
namespace {

TEST(OnlineSoftmax, NothingSeen) {
  EXPECT_EQ(log_sum_exp({}), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(-INFINITY)), -INFINITY);
  EXPECT_EQ(log_sum_exp(start_with_sink(2.5f)), 2.5f);
}

TEST(OnlineSoftmax, MergeWithNothingChangesNothing) {
  const SoftmaxState some{3.0f, 1.5f};
  float a = 0, b = 0;
  const SoftmaxState left = merge(some, {}, &a, &b);
  EXPECT_EQ(left.max, some.max);
  EXPECT_EQ(left.sum, some.sum);
  EXPECT_EQ(a, 1.0f);
  EXPECT_EQ(b, 0.0f);
  const SoftmaxState none = merge({}, {}, &a, &b);
  EXPECT_EQ(none.sum, 0.0f);
  EXPECT_FALSE(std::isnan(a) || std::isnan(b));
}

TEST(OnlineSoftmax, MergeAddsDenominators) {
  float a = 0, b = 0;
  const SoftmaxState merged = merge({1.0f, 2.0f}, {3.0f, 0.5f}, &a, &b);
  EXPECT_NEAR(log_sum_exp(merged), std::log(2.0 * std::exp(1.0) + 0.5 * std::exp(3.0)), 1e-6);
  EXPECT_EQ(b, 1.0f);
  EXPECT_NEAR(a, std::exp(-2.0), 1e-7);
}

TEST(OnlineSoftmax, HugeMaximaStayFinite) {
  float a = 0, b = 0;
  const SoftmaxState merged = merge({-3e38f, 1.0f}, {3e38f, 1.0f}, &a, &b);
  EXPECT_EQ(merged.sum, 1.0f);
  EXPECT_EQ(rescale(1e30f, 1e29f), 1.0f);
}

}  // namespace
}  // namespace kernels
