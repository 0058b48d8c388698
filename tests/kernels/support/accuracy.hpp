// tests/kernels/support/accuracy.hpp: compares what a kernel wrote with the exact answer
#pragma once

#include "kernels/reference/expectation.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Compares the case's out, and its lse if it has one: each value with its row's bound, and the mean
// error with the mean's. Fails the running test for what is beyond.
// expected: reference::expect(c.problem, c.args), once for a case, however often it is run.
void expect_accurate(const Case& c, const reference::Expectation& expected);

}  // namespace kernels::test
