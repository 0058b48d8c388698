// kernels/cpu/simd/pack.inl: packs query rows, and tiles of K and V, as floats in the order in
// which register blocks read them
//
// A packed tile of tile_keys keys, W = kPanel:
//
//   K, transposed in panels of W keys          V, row by row, v_stride floats apart
//     panel 0              panel 1
//     x=0  k0 k1 ... kW-1  x=0  kW kW+1 ...      key 0   v[0] v[1] ... v[head_dim_v - 1] 0 ...
//     x=1  k0 k1 ... kW-1  x=1  kW kW+1 ...      key 1   v[0] v[1] ...
//     ...                  ...                   ...
//
// So kVectors aligned loads give one element x of W keys, and the inner product runs over x without
// any sum across lanes. V is copied even if it is f32: at the strides of a whole tensor its rows
// would fall into few sets of the cache. If V has scales, its rows are multiplied by them here; K
// is packed as it is stored, and its scales multiply the scores (mask.inl).
//
// Invariant: the last panel is filled up with zeros, so no byte of a key that does not exist is
// ever read. (What V has there is never multiplied.) Pieces of kPackKeys keys begin at a panel, so
// several workers pack one tile.
#if defined(KERNELS_CPU_SIMD_PACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_PACK_INL
#undef KERNELS_CPU_SIMD_PACK_INL
#else
#define KERNELS_CPU_SIMD_PACK_INL
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Where a tensor's element lies.
inline const char* element(const Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * element_bytes(tensor.dtype);
}

inline const char* key_data(const Block& block, const Tensor& k_or_v, int64_t key) {
  const Run& run = *block.run;
  return element(k_or_v, key_row(*run.problem, *run.args, k_or_v, block.sequence, block.batch, key,
                                 block.head_kv));
}

// Loads the scales of keys [begin, end) of the tile that begins at key `first`, to the same places
// of `to`.
inline void load_scales(const Block& block, const Tensor& scale, int64_t first, int64_t begin,
                        int64_t end, float* to) {
  const Run& run = *block.run;
  const float* from = static_cast<const float*>(scale.data);
  for (int64_t j = begin; j < end; ++j) {
    to[j] = from[scale_element(*run.problem, *run.args, scale, block.sequence, block.batch,
                               first + j, block.head_kv)];
  }
}

// The scale of one row of V.
inline float scale_of_value(const Block& block, int64_t key) {
  float scale = 1;
  const Run& run = *block.run;
  if (run.problem->kv_scale != KvScale::none)
    load_scales(block, value_scale(*run.problem, *run.args), key, 0, 1, &scale);
  return scale;
}

// Loads the scales of K of the tile's keys [begin, end) into scratch.k_scales; those of the keys
// around them that whole panels contain become 0. RETURNS them, or null if there are none.
inline const float* load_key_scales(const Block& block, const Scratch& scratch, int64_t first,
                                    int64_t begin, int64_t end) {
  const Run& run = *block.run;
  if (run.problem->kv_scale == KvScale::none) return nullptr;
  std::fill(scratch.k_scales, scratch.k_scales + run.tiling.tile_keys, 0.0f);
  load_scales(block, run.args->k_scale, first, begin, end, scratch.k_scales);
  return scratch.k_scales;
}

// The same for V.
inline const float* load_value_scales(const Block& block, const Scratch& scratch, int64_t first,
                                      int64_t begin, int64_t end) {
  const Run& run = *block.run;
  if (run.problem->kv_scale == KvScale::none) return nullptr;
  if (run.problem->v_in_k) return scratch.k_scales;
  std::fill(scratch.v_scales, scratch.v_scales + run.tiling.tile_keys, 0.0f);
  load_scales(block, run.args->v_scale, first, begin, end, scratch.v_scales);
  return scratch.v_scales;
}

// Loads a row of q as floats, negated if the scale is negative.
inline void load_query(const Block& block, int64_t row, float* to) {
  const Run& run = *block.run;
  const Floats d;
  const int64_t offset = query_row(*run.problem, run.args->q, block.sequence, block.batch,
                                   block.query(row), block.head(row));
  load_row(run.problem->dtype, element(run.args->q, offset), run.problem->head_dim, to);
  if (!run.negate_q) return;
  for (int64_t x = 0; x < run.problem->head_dim; x += kLanes)
    hn::Store(hn::Neg(hn::Load(d, to + x)), d, to + x);
}

inline void pack_queries(const Block& block, const Scratch& scratch) {
  for (int64_t r = 0; r < block.rows; ++r) load_query(block, r, scratch.q + r * scratch.q_stride);
}

// Rows of K that are transposed at a time.
constexpr int64_t kPackRows = std::max(kLanes, int64_t{4});

#if HWY_TARGET != HWY_SCALAR  // which has no vectors of 4
// Loads a vector of blocks of 4: elements [at, at + 4) of rows 0, 4, 8, ...
template <int64_t kRows>
inline auto load_fours(const float* const* row, int64_t at) {
  const hn::FixedTag<float, kRows> d;
  if constexpr (kRows == 4) {
    return hn::LoadU(d, row[0] + at);
  } else {
    return hn::Combine(d, load_fours<kRows / 2>(row + kRows / 2, at),
                       load_fours<kRows / 2>(row, at));
  }
}
#endif

// Transposes kPackRows rows of 32-bit elements into kPackRows columns of a panel of kWidth columns.
// Four vectors at a time: interleaving them by 32 and then by 64 bits transposes each block of 4 x
// 4.
template <int64_t kWidth>
inline void transpose_rows(const float* const* row, int64_t length, float* to) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, kPackRows> d;
  const hn::RepartitionToWide<decltype(d)> d64;
  const auto store = [&](auto v, int64_t at)
                         HWY_ATTR { hn::StoreU(hn::BitCast(d, v), d, to + at * kWidth); };
  for (; x + 4 <= length; x += 4) {
    const auto a = load_fours<kPackRows>(row, x), b = load_fours<kPackRows>(row + 1, x);
    const auto c = load_fours<kPackRows>(row + 2, x), e = load_fours<kPackRows>(row + 3, x);
    const auto ab_lower = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
    const auto ab_upper = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
    const auto ce_lower = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
    const auto ce_upper = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
    store(hn::InterleaveLower(d64, ab_lower, ce_lower), x);
    store(hn::InterleaveUpper(d64, ab_lower, ce_lower), x + 1);
    store(hn::InterleaveLower(d64, ab_upper, ce_upper), x + 2);
    store(hn::InterleaveUpper(d64, ab_upper, ce_upper), x + 3);
  }
#endif
  for (; x < length; ++x) {
    for (int64_t r = 0; r < kPackRows; ++r) to[x * kWidth + r] = row[r][x];
  }
}

// Packs K of keys [begin, end) of the tile that begins at key `first`. REQUIRES: begin is a
// multiple of kPanel.
inline void pack_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                      int64_t end, float* to) {
  const Tensor& k = block.run->args->k;
  const int64_t head_dim = block.run->problem->head_dim;
  for (int64_t j = begin; j < round_up(end, kPanel); j += kPackRows) {
    const float* row[kPackRows];
    for (int64_t r = 0; r < kPackRows; ++r) {
      if (j + r >= end) {
        row[r] = scratch.zeros;
        continue;
      }
      const char* from = key_data(block, k, first + j + r);
      if (k.dtype == DType::f32) {
        row[r] = reinterpret_cast<const float*>(from);
      } else {
        float* converted = scratch.k_rows + r * scratch.q_stride;
        load_row(k.dtype, from, head_dim, converted);
        row[r] = converted;
      }
    }
    transpose_rows<kPanel>(row, head_dim, to + j / kPanel * kPanel * head_dim + j % kPanel);
  }
}

// Packs V of the same keys, multiplied by its scale.
inline void pack_values(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                        int64_t end, float* to) {
  const Problem& p = *block.run->problem;
  const Tensor& v = value_tensor(p, *block.run->args);
  const Floats d;
  for (int64_t j = begin; j < end; ++j) {
    float* row = to + j * scratch.v_stride;
    load_row(v.dtype, key_data(block, v, first + j), p.head_dim_v, row);
    if (p.kv_scale == KvScale::none) continue;
    const Vector scale = hn::Set(d, scale_of_value(block, first + j));
    for (int64_t x = 0; x < p.head_dim_v; x += kLanes)
      hn::Store(hn::Mul(scale, hn::Load(d, row + x)), d, row + x);
  }
}

// Clears the arrays that every task expects to be zeros.
inline void start_scratch(const Scratch& scratch) {
  std::fill(scratch.zeros, scratch.zeros + std::max(scratch.q_stride, scratch.v_stride), 0.0f);
  std::fill(scratch.mask_bias, scratch.mask_bias + kPadFloats, 0.0f);
}

// The keys that some query of the sequence sees, but for the mask.
inline KeyRange keys_of_sequence(const Problem& p, const Sequence& s) {
  const KeyRange first = visible_keys(p, 0, s);
  const KeyRange last = visible_keys(p, s.q_length - 1, s);
  return {first.begin, last.end};
}

// Packs piece `index` of all tiles of the run into the shared packed tiles, unless no row will read
// it. PackTile is pack_tile of the target's tiling: pack_tile(block, scratch, first, begin, end,
// to).
template <typename PackTile>
inline void pack_shared(const Run& run, int64_t index, int32_t worker, const PackTile& pack_tile) {
  const int64_t pieces = run.tiling.tile_keys / kPackKeys;
  const int64_t tile = index / pieces;
  const int64_t first = tile % run.tiles_per_pair * run.tiling.tile_keys;
  const int64_t begin = index % pieces * kPackKeys;
  const Block block = block_of_pair(run, tile / run.tiles_per_pair, 0, run.block_rows);
  if (block.sequence.q_length == 0 || is_decode(block.sequence.q_length, run.heads_per_kv)) return;
  const KeyRange keys = keys_of_sequence(*run.problem, block.sequence);
  if (first >= keys.end || first + run.tiling.tile_keys <= keys.begin) return;
  const int64_t end = std::min(begin + kPackKeys, block.sequence.kv_length - first);
  if (begin >= end) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_tile(block, scratch, first, begin, end, run.packed_tiles + tile * run.tile_bytes);
}

// Returns the packed tile that begins at key `first`: the shared one, or else one packed here and
// now.
template <typename PackTile>
inline const char* packed_tile(const Block& block, const Scratch& scratch, int64_t first,
                               const PackTile& pack_tile) {
  const Run& run = *block.run;
  const int64_t number = first / run.tiling.tile_keys;
  if (run.packed_tiles != nullptr)
    return run.packed_tiles + (block.pair * run.tiles_per_pair + number) * run.tile_bytes;
  pack_tile(block, scratch, first, 0,
            std::min(run.tiling.tile_keys, block.sequence.kv_length - first), scratch.packed_tile);
  return scratch.packed_tile;
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_PACK_INL
