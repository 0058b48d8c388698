// tests/kernels/support/plain.hpp: a case into what a plain evaluation in its dtype gives, and how far a row may be off
#pragma once

#include <vector>

#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Rows as Case numbers them; lse in the same order.
struct Plain {
  std::vector<float> out;
  std::vector<float> lse;
  std::vector<double> out_floor;  // for each row: see tolerance.hpp
  std::vector<double> lse_floor;
};

// As torch's MATH: everything in float32, each sum in one order, weights and out rounded to the dtype.
Plain plain_attention(const Case& c);

}  // namespace kernels::test
