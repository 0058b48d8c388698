// kernels/cpu/simd/tile.inl: one tile of keys against all rows of a block, with float operands
//
//   for every kGroupsAtOnce row groups:
//     scores  = q k                  for each panel of keys, for each group
//     weights = softmax(scores)      for each group, in place
//     out     = out * rescale + p v  for each panel of columns, for each group
//
// Groups are the inner loop, so that a panel of K or of V stays in the L1 cache.
//
//                   keys of the tile, by panels
//                 |  0  |  1  |  2  |  ...
//       group g   |  #  |  #  |     |          # computed; a panel that no row sees is skipped
//       group g+1 |  #  |  #  |  #  |
//
// Invariant: which panels a group computes depends on its own rows only, never on its neighbours:
// see block.hpp.
#if defined(KERNELS_CPU_SIMD_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_TILE_INL
#undef KERNELS_CPU_SIMD_TILE_INL
#else
#define KERNELS_CPU_SIMD_TILE_INL
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/mask.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/pv.inl"
#include "kernels/cpu/simd/qk.inl"
#include "kernels/cpu/simd/softmax.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/targets.hpp"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Row groups whose scores are kept between the two products: 96 KiB, which stay in the L2 cache.
constexpr int64_t kGroupsAtOnce = 16;

Tiling float_tiling(const Problem& problem) {
  Tiling tiling{};
  tiling.group_rows = kGroupRows;
  tiling.max_block_rows = kMaxBlockRows;
  tiling.min_block_rows = kMaxBlockRows / 8;
  tiling.tile_keys = kTileKeys;
  tiling.packed_element_bytes = sizeof(float);
  tiling.head_dim_multiple = 1;
  tiling.head_dim_v_multiple = kPadFloats;
  tiling.score_rows = kGroupsAtOnce * kGroupRows;
  tiling.score_keys = kTileKeys;
  // Packed as floats, f16 and bf16 would take twice the memory of the tensors.
  tiling.share_packed = problem.dtype == DType::f32;
  return tiling;
}

// Packs keys [begin, end) of the tile that begins at key `first`: K, then V.
inline void pack_tile(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                      int64_t end, char* to) {
  float* keys = reinterpret_cast<float*>(to);
  pack_keys(block, scratch, first, begin, end, keys);
  pack_values(block, scratch, first, begin, end,
              keys + packed_key_elements(*block.run->problem, block.run->tiling));
}

// Computes row groups [begin, end) of the block against `count` keys of the packed tile that begins
// at key `first`. k_scales: of the tile's keys; null: none.
inline void prefill_groups(const Block& block, const Scratch& scratch, int64_t first, int64_t count,
                           const float* keys, const float* values, const float* k_scales,
                           int64_t begin, int64_t end) {
  const int64_t head_dim = block.run->problem->head_dim;
  const auto rows_of = [&](int64_t group) {
    return std::min(kGroupRows, block.rows - group * kGroupRows);
  };
  GroupKeys seen[kGroupsAtOnce];
  for (int64_t g = begin; g < end; ++g) {
    seen[g - begin] = group_keys(block, scratch, g * kGroupRows, rows_of(g), first, count);
  }
  for (int64_t panel = 0; panel < count; panel += kPanel) {
    for (int64_t g = begin; g < end; ++g) {
      const GroupKeys& k = seen[g - begin];
      if (k.begin >= k.end || k.end <= panel || k.begin >= panel + kPanel) continue;
      qk_rows(rows_of(g), scratch.q + g * kGroupRows * scratch.q_stride, scratch.q_stride,
              keys + panel * head_dim, head_dim,
              scratch.scores + (g - begin) * kGroupRows * kTileKeys + panel);
    }
  }
  for (int64_t g = begin; g < end; ++g) {
    const GroupKeys& k = seen[g - begin];
    if (k.begin >= k.end) continue;
    const KeyRange panels = whole_panels(k, kPanel);
    float* scores = scratch.scores + (g - begin) * kGroupRows * kTileKeys;
    adjust_scores(
        block, scratch,
        {g * kGroupRows, rows_of(g), first + panels.begin, panels.end - panels.begin,
         scores + panels.begin, kTileKeys, k_scales == nullptr ? nullptr : k_scales + panels.begin},
        k.mask);
    for (int64_t r = 0; r < rows_of(g); ++r) {
      softmax_row(block, scratch, g * kGroupRows + r, first, panels, scores + r * kTileKeys);
    }
  }
  for (int64_t column = 0; column < scratch.v_stride; column += kPanel) {
    const int64_t vectors = std::min(int64_t{kVectors}, (scratch.v_stride - column) / kLanes);
    for (int64_t g = begin; g < end; ++g) {
      const GroupKeys& k = seen[g - begin];
      if (k.begin >= k.end) continue;
      const int64_t row = g * kGroupRows;
      pv_columns(vectors, rows_of(g), scratch.scores + (g - begin) * kGroupRows * kTileKeys,
                 values + column, scratch.v_stride, k.begin, k.end, scratch.rescale + row,
                 scratch.out + row * scratch.v_stride + column, scratch.v_stride);
    }
  }
}

// Computes the block against the tile that begins at key `first`.
inline void prefill_tile(const Block& block, const Scratch& scratch, int64_t first) {
  const Run& run = *block.run;
  const int64_t count = std::min(kTileKeys, block.sequence.kv_length - first);
  const char* packed = packed_tile(block, scratch, first, pack_tile);
  const float* keys = reinterpret_cast<const float*>(packed);
  const float* values = keys + packed_key_elements(*run.problem, run.tiling);
  const float* k_scales = load_key_scales(block, scratch, first, 0, count);
  const int64_t groups = ceil_div(block.rows, kGroupRows);
  for (int64_t g = 0; g < groups; g += kGroupsAtOnce) {
    prefill_groups(block, scratch, first, count, keys, values, k_scales, g,
                   std::min(g + kGroupsAtOnce, groups));
  }
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_TILE_INL
