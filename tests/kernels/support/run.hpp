// tests/kernels/support/run.hpp: runs the CPU kernels on a case and compares with float64
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/attention.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Real threads, which take indices in order, first come, first served.
cpu::Workers threads(int32_t count);

// Runs once, in a workspace that is filled with NaN.
cpu::Status run_once(const Case& c, const cpu::Target& target, int32_t thread_count,
                     cpu::Error* error);

// The targets that this machine has, best first.
std::vector<const cpu::Target*> targets();

// Runs on every target with 1, 2 and 3 threads. Expects the accuracy of tolerance.hpp, the same
// bits for every thread count, and no byte written outside the rows of out and lse.
void expect_right(const Recipe& recipe);
void expect_right(Case& c);

}  // namespace kernels::test
