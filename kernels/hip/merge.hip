// kernels/hip/merge.hip: the kernels of attnrt.merge/1, one for each dtype of out
#include "kernels/hip/merge.hpp"

namespace kernels::hip {

GPU_KERNEL(kMergeThreads, 2)
merge_f32_kernel(const MergeParams p) { merge<F32>(p); }
GPU_KERNEL(kMergeThreads, 2)
merge_f16_kernel(const MergeParams p) { merge<F16>(p); }
GPU_KERNEL(kMergeThreads, 2)
merge_bf16_kernel(const MergeParams p) { merge<BF16>(p); }

}  // namespace kernels::hip
