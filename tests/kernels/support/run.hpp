// tests/kernels/support/run.hpp: a case into the CPU kernel's run on every target and thread count, checked against float64
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/attention.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Real threads, indices handed out first come first served.
cpu::Workers threads(int32_t count);

// Allocates a workspace filled with NaN and runs.
cpu::Status run_once(const Case& c, const cpu::Target& target, int32_t thread_count,
                     cpu::Error* error);

// Those that this machine has and the kernels were compiled for, best first.
std::vector<const cpu::Target*> targets();

// Runs on every target with 1, 2 and 3 threads; expects the accuracy of tolerance.hpp, the same bits for every thread count,
// and not a byte written outside the rows of out and lse.
void expect_right(const Recipe& recipe);
void expect_right(Case& c);

}  // namespace kernels::test
