// kernels/hip/flash_attention.hip: the three fused kernels for one dtype and head_dim, GPU_DTYPE
// and GPU_DIM of the build
#include "kernels/hip/flash_attention.hpp"

namespace kernels::hip {

using FlashTile = Tile<kFamilyHere, GPU_DTYPE, GPU_DIM>;

GPU_KERNEL(FlashTile::kThreads, FlashTile::kResident)
flash_attention_kernel(const AttentionParams p) { flash_attention<FlashTile, Kind::generic>(p); }
GPU_KERNEL(FlashTile::kThreads, FlashTile::kResident)
flash_attention_causal_kernel(const AttentionParams p) {
  flash_attention<FlashTile, Kind::causal>(p);
}
GPU_KERNEL(FlashTile::kThreads, FlashTile::kResident)
flash_attention_nocausal_kernel(const AttentionParams p) {
  flash_attention<FlashTile, Kind::nocausal>(p);
}

}  // namespace kernels::hip
