// kernels/hip/flash_attention_sm90.hip: the fused kernels of sm_90a, and the one that comes before
// them, for one dtype and head dimensions, GPU_DTYPE, GPU_DIM and GPU_DIM_V of the build
#include "kernels/hip/flash_attention_sm90.hpp"

namespace kernels::hip {

template <Kind kKind>
using Attention = PipelinedAttention<PipelinedTile<GPU_DTYPE, GPU_DIM, GPU_DIM_V, kKind>, kKind>;

GPU_KERNEL(kPrepareThreads, 4) flash_attention_sm90_prepare_kernel(const PrepareParams params) {
  prepare<PipelinedTile<GPU_DTYPE, GPU_DIM, GPU_DIM_V, Kind::generic>>(params);
}
#if GPU_DIM != 576  // only for lists
GPU_KERNEL(Attention<Kind::generic>::kThreads, 1)
flash_attention_sm90_kernel(const GPU_GRID_CONSTANT PipelinedParams params) {
  Attention<Kind::generic>(params).run();
}
#if GPU_DIM != 512  // its steps are too short for copies of masks
GPU_KERNEL(Attention<Kind::masked>::kThreads, 1)
flash_attention_sm90_masked_kernel(const GPU_GRID_CONSTANT PipelinedParams params) {
  Attention<Kind::masked>(params).run();
}
#endif
GPU_KERNEL(Attention<Kind::causal>::kThreads, 1)
flash_attention_sm90_causal_kernel(const GPU_GRID_CONSTANT PipelinedParams params) {
  Attention<Kind::causal>(params).run();
}
GPU_KERNEL(Attention<Kind::nocausal>::kThreads, 1)
flash_attention_sm90_nocausal_kernel(const GPU_GRID_CONSTANT PipelinedParams params) {
  Attention<Kind::nocausal>(params).run();
}
#endif
#if GPU_DIM != 96  // see ListedProducer
GPU_KERNEL(Attention<Kind::listed_plain>::kThreads, 1)
flash_attention_sm90_listed_kernel(const GPU_GRID_CONSTANT PipelinedParams params) {
  Attention<Kind::listed_plain>(params).run();
}
#endif

}  // namespace kernels::hip
