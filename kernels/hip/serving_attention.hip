// kernels/hip/serving_attention.hip: the kernels that take their work from a list, for one dtype
// and head_dim, GPU_DTYPE and GPU_DIM of the build
#include "kernels/hip/decode_attention.hpp"
#include "kernels/hip/listed_attention.hpp"
#include "kernels/hip/schedule.hpp"

namespace kernels::hip {

using ListedTile = Tile<kFamilyHere, GPU_DTYPE, GPU_DIM>;

GPU_KERNEL(kScheduleThreads, 1)
schedule_kernel(const GPU_GRID_CONSTANT ScheduleParams p) { Scheduler(p).run(); }

GPU_KERNEL(ListedTile::kThreads, ListedTile::kResident)
listed_attention_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  listed_attention<ListedTile>(p);
}

GPU_KERNEL(kCombineThreads, 1)
combine_kernel(const GPU_GRID_CONSTANT ServingParams p) { combine<GPU_DTYPE>(p); }

#if defined(GPU_NVIDIA)
using DecodeTileHere = DecodeTile<BF16, GPU_DIM>;  // F16's is of the same shape

GPU_KERNEL(DecodeTileHere::kThreads, DecodeTileHere::kResident)
decode_attention_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  if constexpr (GPU_DTYPE::kBytes == 2) DecodeAttention<GPU_DTYPE, GPU_DIM, false>(p).run();
}
GPU_KERNEL(DecodeTileHere::kThreads, DecodeTileHere::kResident)
decode_attention_small_pages_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  if constexpr (GPU_DTYPE::kBytes == 2) DecodeAttention<GPU_DTYPE, GPU_DIM, true>(p).run();
}
#endif

}  // namespace kernels::hip
