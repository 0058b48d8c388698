// runtime/cli/bench/peak_loops.hpp: the inner loops that reach a processor's limits
#pragma once

#include <cstdint>

namespace attnrt::cli::bench {

// Multiplies and adds f32 vectors in registers. RETURNS the FLOP that it computed. The result goes
// to *sink, so that the compiler cannot remove the loop.
double multiply_add_loop(int64_t rounds, float* sink);

// Reads `count` floats. REQUIRES: count is a multiple of kReadUnit.
void read_loop(const float* from, int64_t count, float* sink);

// Floats that one step of read_loop may take, for vectors of any size up to 512 bits.
constexpr int64_t kReadUnit = 12 * 16;

// Whether the processor has AMX tiles of bf16 and Linux lets this process use them.
bool has_amx();

// Multiplies AMX tiles in registers. RETURNS the FLOP that it computed. REQUIRES: has_amx().
double tile_product_loop(int64_t rounds);

}  // namespace attnrt::cli::bench
