// kernels/hip/serving_attention_kv8.hip: the kernels that take their work from a list, for K and V
// of 8 bits, for one dtype and head_dim, GPU_DTYPE and GPU_DIM of the build
#include "kernels/hip/decode_attention.hpp"
#include "kernels/hip/listed_attention.hpp"

namespace kernels::hip {

using ListedTile = StoredTile<Tile<kFamilyHere, GPU_DTYPE, GPU_DIM>>;

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

// decode_attention_kernel is left out: the one for small pages takes its place.
#if defined(GPU_NVIDIA)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
using Decode = StoredDecodeTile<GPU_DTYPE, GPU_DIM, true>;
#else
using Decode = StoredDecodeTile<GPU_DTYPE, GPU_DIM, false>;
#endif

GPU_KERNEL(Decode::kThreads, Decode::kResident)
decode_attention_plain_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  DecodeAttention<Decode, false, false>(p).run();
}
GPU_KERNEL(Decode::kThreads, Decode::kResident)
decode_attention_small_pages_kernel(const GPU_GRID_CONSTANT ServingParams p) {
  DecodeAttention<Decode, true, true>(p).run();
}
#endif

}  // namespace kernels::hip
