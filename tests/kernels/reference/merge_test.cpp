// tests/kernels/reference/merge_test.cpp: how far partials that are off move their merge
#include "kernels/reference/merge.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace kernels::reference {
namespace {

// Merges one value of each partial.
double merged(const std::vector<double>& outs, const std::vector<double>& lses) {
  double sum = 0, out = 0;
  for (size_t i = 0; i < outs.size(); ++i) {
    sum += std::exp(lses[i]);
    out += std::exp(lses[i]) * outs[i];
  }
  return out / sum;
}

// Two partials at opposite ends of the range, of which one gains what the other loses, come close
// to the bound.
TEST(MergedOutError, IsReachedAndNotExceeded) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> value(-2, 2), lse(-3, 3), sign(-1, 1);
  double closest = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    const double out_error = 0.01 * (trial % 3), lse_error = 0.02 * (trial % 5);
    const size_t count = trial % 2 == 0 ? 2 : 5;
    std::vector<double> outs(count), lses(count);
    for (double& each : outs)
      each = trial % 4 == 0 ? (&each == outs.data() ? 2 : -2) : value(random);
    for (double& each : lses) each = trial % 4 == 0 ? 0 : lse(random);
    std::vector<double> off_outs = outs, off_lses = lses;
    double largest = 0;
    for (size_t i = 0; i < count; ++i) {
      off_outs[i] += trial % 4 == 0 ? out_error : out_error * sign(random);
      off_lses[i] += trial % 4 == 0 ? (i == 0 ? lse_error : -lse_error) : lse_error * sign(random);
      largest = std::max(largest, std::abs(off_outs[i]));
    }
    const double error = std::abs(merged(off_outs, off_lses) - merged(outs, lses));
    const double bound = merged_out_error(out_error, lse_error, largest);
    EXPECT_LE(error, bound * (1 + 1e-12) + 1e-15);
    if (bound > 0) closest = std::max(closest, error / bound);
  }
  EXPECT_GT(closest, 0.4);
}

}  // namespace
}  // namespace kernels::reference
