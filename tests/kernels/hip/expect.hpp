// tests/kernels/hip/expect.hpp: runs a problem on the GPU kernels and checks it against float64
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/hip/launch/launch.hpp"
#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// A problem with lse, and its extents.
inline Recipe recipe_of(DType dtype, int64_t seq_q, int64_t seq_kv, int64_t head_dim,
                        int64_t heads_q, int64_t heads_kv) {
  Recipe r;
  r.problem.dtype = dtype;
  r.problem.heads_q = heads_q, r.problem.heads_kv = heads_kv;
  r.problem.head_dim = r.problem.head_dim_v = head_dim;
  r.problem.lse = true;
  r.seq_q = seq_q, r.seq_kv = seq_kv;
  return r;
}

// Plans, launches and runs a problem as a plugin would on that architecture. Expects the accuracy
// that support/ derives, and that nothing was written outside the rows of out and lse. Where a
// mask's tiles can be looked at before, runs with that and without, and expects the same bits.
// seed: of the order in which a workgroup's threads run.
void expect_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);  // fused
void expect_unfused_right_on(const char* arch, const Recipe& recipe, uint32_t seed = 0);

// Run a problem and check nothing.
void run_flash_on(const char* arch, const Case& c);
void run_unfused_on(const char* arch, const Case& c);

// Runs three sequences under bounds that are too large, then the second of them alone under the
// least bounds. Expects the same bits of out and lse.
void expect_same_bits_alone(Recipe recipe, const std::function<void(const Case&)>& run);

// Expects holds(out, lse) of each row, where out is each value of the row in turn.
void expect_in_each_row(const Case& c, const std::function<bool(float out, float lse)>& holds);

// Expects that a NaN sink reaches every row, also one that sees nothing. recipe: of a problem with
// this number of keys, and more queries.
void expect_nan_sinks(const std::function<Recipe(int64_t keys)>& recipe,
                      const std::function<void(const Case&)>& run);

// Expects that a row whose scores all overflow to -inf is one that sees nothing, with a sink and
// without. Does nothing for f16, whose products are far from f32's limit.
void expect_overflow(Recipe recipe, const std::function<void(const Case&)>& run);

// Sets every element of q, k or v.
void fill_rows(const Tensor& tensor, float value);

// Runs a launch: on the host build (host/kernels.cpp) or on an emulator of the GPU
// (../emulator/library.cpp). seed: as above; the emulator ignores it.
void run_launch(const char* arch, const hip::Launch& launch, uint32_t seed);

}  // namespace kernels::test
