// kernels/hip/launch/family.cpp: which tile serves an architecture and a problem
#include "kernels/hip/launch/family.hpp"

#include <algorithm>
#include <climits>
#include <string_view>
#include <utility>

#include "kernels/hip/launch/fill_params.hpp"
#include "kernels/hip/score_matrix.hpp"
#include "kernels/hip/stored_keys.hpp"

namespace kernels::hip {
namespace {

template <Family kFamily, class T, int kDim>
TileFacts facts() {
  using Tile = kernels::hip::Tile<kFamily, T, kDim>;
  uint32_t stored_shared_bytes = 0;
  if constexpr (T::kBytes == 2) stored_shared_bytes = StoredTile<Tile>::kSharedBytes;
  return {Tile::kThreads,
          Tile::kRows,
          Tile::kKeys,
          Tile::kSharedBytes,
          ScoreStage<Tile>::kEnd > Tile::kSharedBytes ? ScoreStage<Tile>::kEnd : Tile::kSharedBytes,
          stored_shared_bytes};
}
template <Family kFamily, class T>
TileFacts facts(int dim) {
  return dim == 64    ? facts<kFamily, T, 64>()
         : dim == 128 ? facts<kFamily, T, 128>()
                      : facts<kFamily, T, 256>();
}
template <Family kFamily>
TileFacts facts(DType dtype, int dim) {
  if (dtype == DType::f32) return facts<kFamily, F32>(dim);
  return dtype == DType::f16 ? facts<kFamily, F16>(dim) : facts<kFamily, BF16>(dim);
}

bool fail(std::string* reason, std::string text) {
  if (reason != nullptr) *reason = std::move(text);
  return false;
}

}  // namespace

Family family_of(const char* name) {
  const std::string_view arch = name;
  if (arch == "sm_90a") return Family::wgmma_sm90;
  if (arch.starts_with("sm_") || arch.starts_with("compute_")) return Family::mma_sm80;
  if (arch.starts_with("gfx11")) return Family::wmma_gfx11;
  if (arch.starts_with("gfx12")) return Family::wmma_gfx12;
  if (arch.starts_with("gfx90a") || arch.starts_with("gfx942")) return Family::mfma;
  return arch.starts_with("gfx9") ? Family::valu64 : Family::valu32;
}

TileFacts tile_facts(Family family, DType dtype, int dim) {
  switch (family) {
    case Family::wmma_gfx11: return facts<Family::wmma_gfx11>(dtype, dim);
    case Family::wmma_gfx12: return facts<Family::wmma_gfx12>(dtype, dim);
    case Family::mfma: return facts<Family::mfma>(dtype, dim);
    case Family::mma_sm80:
    case Family::wgmma_sm90: return facts<Family::mma_sm80>(dtype, dim);
    case Family::valu64: return facts<Family::valu64>(dtype, dim);
    case Family::valu_large: return facts<Family::valu_large>(dtype, dim);
    case Family::valu32: break;
  }
  return facts<Family::valu32>(dtype, dim);
}

bool supported(const Problem& p, int max_dim, bool lists, std::string* reason) {
  for (const auto& [name, dim] :
       {std::pair{"head_dim ", p.head_dim}, {"head_dim_v ", p.head_dim_v}}) {
    if (dim < 8 || dim > max_dim || dim % 8 != 0)
      return fail(reason, name + std::to_string(dim) + " is not a multiple of 8 from 8 to " +
                              std::to_string(max_dim));
  }
  if (!lists && (p.kv_lengths || p.varlen || p.page_size > 0))
    return fail(reason, "kv_lengths, varlen and page_size are not supported");
  if (!lists && kv_dtype(p) != p.dtype) return fail(reason, "kv_dtype is not supported");
  if (kv_dtype(p) != p.dtype && p.dtype == DType::f32)
    return fail(reason, "kv_dtype is not supported with f32");
  if (out_dtype(p) != p.dtype) return fail(reason, "out_dtype is not supported");
  const int64_t widest = std::max(p.head_dim, p.head_dim_v);
  if (p.heads_kv > kLargestRowStride / widest) {  // of a dense k or v
    return fail(reason, "heads_kv " + std::to_string(p.heads_kv) + " times head_dim " +
                            std::to_string(widest) + " is above " +
                            std::to_string(kLargestRowStride));
  }
  constexpr int64_t kLargest =
      INT32_MAX - 1024;  // rows are counted in 32 bits, rounded up to a tile
  if (p.seq_q > kLargest || p.seq_kv > kLargest)
    return fail(reason, "seq_q or seq_kv is above " + std::to_string(kLargest));
  if (p.batch > kLargest || p.heads_q > kLargest || p.batch > kLargest / p.heads_q) {
    return fail(reason, "batch * heads_q is above " + std::to_string(kLargest));
  }
  return true;
}

}  // namespace kernels::hip
