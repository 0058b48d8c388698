// kernels/cpu/targets.hpp: the instruction sets that the kernels were compiled for, as one table
#pragma once

#include "kernels/cpu/block.hpp"

namespace kernels::cpu {

inline constexpr int64_t kRowGroup = 6;     // rows of one register block: 6 x 4 vectors of the 32 of AVX-512
inline constexpr int64_t kBlockRows = 384;  // a multiple of kRowGroup; amortizes reading a tile of K and V
inline constexpr int64_t kTileKeys = 256;   // keys of one tile: its K and V stay in L2

}  // namespace kernels::cpu
