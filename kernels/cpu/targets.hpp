// kernels/cpu/targets.hpp: one block into its rows of out, on the best instruction set of this machine
#pragma once

#include "kernels/cpu/block.hpp"

namespace kernels::cpu {

// Runs block `index` of the run with the scratch memory of `worker`.
void attend_block(const Run& run, int64_t index, int32_t worker);

}  // namespace kernels::cpu
