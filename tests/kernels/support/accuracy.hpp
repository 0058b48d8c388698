// tests/kernels/support/accuracy.hpp: a case that a kernel has run into failures of the test, by the rule of tolerance.hpp
#pragma once

#include <vector>

#include "tests/kernels/support/case.hpp"
#include "tests/kernels/support/plain.hpp"

namespace kernels::test {

struct Exact {
  std::vector<double> out;
  std::vector<double> lse;  // [batch, heads, seq] as the reference writes it
};

struct Expected {
  Exact exact;
  Plain plain;
};

// Once for a case, however often it is run.
Expected expected_of(const Case& c);

// Compares the case's out, and lse if it has one, row by row.
void expect_accurate(const Case& c, const Expected& expected);

}  // namespace kernels::test
