// kernels/hip/unfused_attention.hip: the five unfused kernels for one dtype and head_dim, GPU_DTYPE
// and GPU_DIM of the build
#include "kernels/hip/unfused_attention.hpp"

namespace kernels::hip {

using UnfusedTile = Tile<kFamilyHere, GPU_DTYPE, GPU_DIM>;
// See GPU_KERNEL. Two large workgroups would leave a thread too few registers for its part of the
// products.
inline constexpr int kProductsPerUnit = UnfusedTile::kThreads > 128 ? 1 : 2;

GPU_KERNEL(UnfusedTile::kThreads, kProductsPerUnit)
qk_kernel(const AttentionParams p) { qk<UnfusedTile>(p); }
GPU_KERNEL(kScoreThreads, 2)
scale_kernel(const AttentionParams p) { scale<UnfusedTile>(p); }
GPU_KERNEL(kScoreThreads, 2)
mask_kernel(const AttentionParams p) { mask<UnfusedTile>(p); }
GPU_KERNEL(kScoreThreads, 2)
softmax_kernel(const AttentionParams p) { softmax<UnfusedTile>(p); }
GPU_KERNEL(UnfusedTile::kThreads, kProductsPerUnit)
pv_kernel(const AttentionParams p) { pv<UnfusedTile>(p); }

}  // namespace kernels::hip
