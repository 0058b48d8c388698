// tests/kernels/hip/expect.hpp: a recipe into a run of the GPU kernels that serve it, checked against float64
#pragma once

#include <cstdint>

#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// Plans, launches and runs as a plugin would for that architecture; expects the accuracy of tolerance.hpp and not a
// byte written outside the rows of out and lse. seed: of the order of a workgroup's threads.
void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);  // fused
void expect_unfused_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);

// Runs alone.
void run_unfused_on(const char* arch, const Case& c);

// What runs a launch: the host build (host_kernels.cpp), or an emulator of the GPU (../emulator/library.cpp). seed: of
// the order of a workgroup's threads, where that can be chosen.
void run_launch(const char* arch, const hip::Launch& launch, uint32_t seed);

}  // namespace kernels::test
