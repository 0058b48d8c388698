// tests/kernels/hip/expect.hpp: a recipe into the host build's run of the GPU kernels that serve it, checked against float64
#pragma once

#include <cstdint>

#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Plans, launches and runs as a plugin would for that architecture; expects the accuracy of tolerance.hpp and not a byte
// written outside the rows of out and lse. seed: of the order of a workgroup's threads.
void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);  // fused
void expect_unfused_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);

// Runs alone.
void run_unfused_on(const char* arch, const Case& c);

}  // namespace kernels::test
