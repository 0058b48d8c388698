// kernels/hip/serving_attention.hip: the kernels that take their work from a list, for one dtype
// and head_dim, GPU_DTYPE and GPU_DIM of the build
#include "kernels/hip/decode_attention.hpp"
#include "kernels/hip/listed_attention.hpp"

namespace kernels::hip {

using ListedTile = Tile<kFamilyHere, GPU_DTYPE, GPU_DIM>;

GPU_KERNEL(ListedTile::kThreads, ListedTile::kResident)
listed_attention_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  listed_attention<ListedTile, Kind::listed>(p);
}
GPU_KERNEL(ListedTile::kThreads, ListedTile::kResident)
listed_attention_plain_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  listed_attention<ListedTile, Kind::listed_plain>(p);
}

GPU_KERNEL(kCombineThreads, 1)
combine_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  combine<GPU_DTYPE, OnlineSoftmax<ListedTile>>(p);
}

#if defined(GPU_NVIDIA)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
inline constexpr bool kLargeDecode = true;
#else
inline constexpr bool kLargeDecode = false;
#endif
using Decode = DecodeTile<BF16, GPU_DIM, kLargeDecode>;  // F16's is of the same shape

template <bool kModifies, bool kSmallPages>
GPU_DEVICE void decode(const ServingParams& p) {
  if constexpr (GPU_DTYPE::kBytes == 2) {
    using Tile = DecodeTile<GPU_DTYPE, GPU_DIM, kLargeDecode>;
    DecodeAttention<Tile, kModifies, kSmallPages>(p).run();
  }
}

GPU_KERNEL(Decode::kThreads, Decode::kResident)
decode_attention_kernel(const GPU_GRID_CONSTANT ServingParams p) { decode<true, false>(p); }
GPU_KERNEL(Decode::kThreads, Decode::kResident)
decode_attention_plain_kernel(const GPU_GRID_CONSTANT ServingParams p) { decode<false, false>(p); }
GPU_KERNEL(Decode::kThreads, Decode::kResident)
decode_attention_small_pages_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  decode<true, true>(p);
}
#endif

}  // namespace kernels::hip
