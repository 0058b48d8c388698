// tests/kernels/reference/difference_test.cpp: two right results agree, a wrong one does not
#include "kernels/reference/difference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"
#include "tests/kernels/support/case.hpp"
#include "tests/kernels/support/random.hpp"
#include "tests/kernels/support/run.hpp"

namespace kernels::test {
namespace {

using reference::difference;

// A case with the result of one target.
Case result_of(const Recipe& recipe, const cpu::Target& target) {
  Case c(recipe);
  c.poison_outputs();
  cpu::Error error;
  EXPECT_EQ(run_once(c, target, 1, &error), cpu::Status::ok);
  return c;
}

Recipe recipe(DType dtype) {
  Recipe r = dense_recipe(dtype, 5, 40, 32, 32);
  r.problem.lse = true;
  return r;
}

TEST(Difference, TheResultsOfAnyTwoTargetsAgree) {
  const auto all = targets();
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    const Recipe r = random_recipe(seed);
    const Case first = result_of(r, *all.front()), second = result_of(r, *all.back());
    const auto found = difference(first.problem, first.args, second.args.out, second.args.lse);
    ASSERT_FALSE(found) << describe(r) << ": " << found->first << " and " << found->second
                        << " beyond " << found->bound << " in column " << found->x;
  }
}

TEST(Difference, AMaskOfLowestNumbersDoesNotHideWrongResults) {
  Recipe r = recipe(DType::f32);
  r.problem.mask = Mask::additive;
  r.hidden = Hidden::lowest;
  const Case first = result_of(r, *targets().front());
  Case second = result_of(r, *targets().front());
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
  float* const value = static_cast<float*>(second.args.out.data);
  *value += 0.001f;
  EXPECT_TRUE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, OneWrongValueIsNamed) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Recipe r = recipe(dtype);
    const Case first = result_of(r, *targets().front());
    for (const int64_t column : {0, 31}) {
      Case second = result_of(r, *targets().front());
      const Tensor& out = second.args.out;
      const int64_t at = 3 * out.stride[1] + 1 * out.stride[2] + column;
      store_float(dtype, out.data, at, load_float(dtype, out.data, at) + 0.25f);
      const auto found = difference(first.problem, first.args, out, second.args.lse);
      ASSERT_TRUE(found);
      EXPECT_EQ(found->b, 0);
      EXPECT_EQ(found->i, 3);
      EXPECT_EQ(found->head, 1);
      EXPECT_EQ(found->x, column);
      EXPECT_NEAR(found->second - found->first, 0.25, 0.01);
      EXPECT_LT(found->bound, 0.25);
    }
  }
}

TEST(Difference, AMissingKeyIsBeyond) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Case first = result_of(recipe(dtype), *targets().front());
    Case second(recipe(dtype));
    second.args.k.shape[1] = second.args.v.shape[1] = 20;
    second.problem.causal = false;
    cpu::Error error;
    ASSERT_EQ(run_once(second, *targets().front(), 1, &error), cpu::Status::ok);
    EXPECT_TRUE(difference(first.problem, first.args, second.args.out, second.args.lse));
  }
}

TEST(Difference, WhatWasNotWrittenIsBeyond) {
  const Recipe r = recipe(DType::f16);
  const Case first = result_of(r, *targets().front());
  Case second(r);
  second.poison_outputs();
  const auto found = difference(first.problem, first.args, second.args.out, second.args.lse);
  ASSERT_TRUE(found);
  EXPECT_TRUE(std::isnan(found->second));
}

TEST(Difference, NumbersThatAreNotFiniteAreNotCompared) {
  // Whether NaN in a value that no query sees reaches the result is not told by the two results.
  Recipe r = recipe(DType::f32);
  r.problem.mask = Mask::boolean;
  r.hides = [](int64_t, int64_t, int64_t, int64_t key) { return key == 7; };
  const Case first = result_of(r, *targets().front());
  Case second = result_of(r, *targets().front());
  static_cast<float*>(second.args.out.data)[0] = NAN;
  // The hidden key's row holds NaN (case.hpp).
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, AnOverflowMayBeInfiniteInOneResult) {
  const Recipe r = recipe(DType::f16);
  const Case first = result_of(r, *targets().front());
  Case second = result_of(r, *targets().front());
  const uint16_t largest = 0x7bff, infinite = 0x7c00, less = 0x7b00;
  static_cast<uint16_t*>(first.args.out.data)[0] = largest;
  static_cast<uint16_t*>(second.args.out.data)[0] = infinite;
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
  static_cast<uint16_t*>(first.args.out.data)[0] = less;
  EXPECT_TRUE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, ASinkThatDoesNotCountHidesNothing) {
  Recipe r = recipe(DType::f32);
  r.problem.sinks = true;
  Case first(r), second(r);
  for (Case* c : {&first, &second}) {
    for (int64_t head = 0; head < c->problem.heads_q; ++head)
      static_cast<float*>(c->args.sinks.data)[head * c->args.sinks.stride[0]] = -1e9F;
    c->poison_outputs();
    cpu::Error error;
    ASSERT_EQ(run_once(*c, *targets().front(), 1, &error), cpu::Status::ok);
  }
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
  static_cast<float*>(second.args.out.data)[0] += 0.01F;
  EXPECT_TRUE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, NumbersBelowTheLeastNormalOneMayBeZero) {
  const Recipe r = recipe(DType::f32);
  Case first(r), second(r);
  for (Case* c : {&first, &second}) {
    float* const v = static_cast<float*>(c->args.v.data);
    for (int64_t at = 0; at < c->args.v.shape[1] * c->args.v.stride[1]; ++at) v[at] = 0;
    c->poison_outputs();
    cpu::Error error;
    ASSERT_EQ(run_once(*c, *targets().front(), 1, &error), cpu::Status::ok);
  }
  float* const value = static_cast<float*>(second.args.out.data);
  *value = 0x1p-127F;
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
  *value = 0x1p-120F;
  EXPECT_TRUE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, LseOfALowestMaskIsNotCompared) {
  const Recipe r = recipe(DType::f32);
  const Case first = result_of(r, *targets().front());
  Case second = result_of(r, *targets().front());
  static_cast<float*>(first.args.lse.data)[0] = -6e34F;
  static_cast<float*>(second.args.lse.data)[0] = std::nextafter(-6e34F, 0.0F);
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
}

TEST(Difference, LseIsCompared) {
  const Recipe r = recipe(DType::f32);
  const Case first = result_of(r, *targets().front());
  Case second = result_of(r, *targets().front());
  float* const lse = static_cast<float*>(second.args.lse.data);
  const float right = *lse;
  for (const float wrong : {right + 0.001f, -std::numeric_limits<float>::infinity()}) {
    *lse = wrong;
    const auto found = difference(first.problem, first.args, second.args.out, second.args.lse);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->x, -1);
    EXPECT_LT(found->bound, 0.001);
  }
  *lse = right;
  EXPECT_FALSE(difference(first.problem, first.args, second.args.out, second.args.lse));
  // A row without keys has -inf, and nothing else will do.
  *static_cast<float*>(first.args.lse.data) = -std::numeric_limits<float>::infinity();
  const auto found = difference(first.problem, first.args, second.args.out, second.args.lse);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->bound, 0);
}

}  // namespace
}  // namespace kernels::test
