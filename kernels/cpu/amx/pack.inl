// kernels/cpu/amx/pack.inl: packs rows of 16-bit q, K and V into the operand tiles of tiles.hpp
//
//   q         [parts][block rows][q_stride] bf16, rows zero-padded to whole tiles of depth
//   packed K  [panels of 16 keys][tiles of 32 elements][16 pairs of elements][16 keys][2]
//   packed V  [panels of 16 columns][tiles of 32 keys][16 pairs of keys][16 columns][2]
//
//   a tile of K: a word holds two           a tile of V: a word holds
//   elements of one key                     one column of two keys
//     elements 0,1   k0  k1  ... k15          keys 0,1   x0  x1  ... x15
//     elements 2,3   k0  k1  ... k15          keys 2,3   x0  x1  ... x15
//     ...                                     ...
//
// So a row of K is transposed in words of two elements, and two rows of V are interleaved. Tiles
// are packed with the tensor's bits, which suits bf16. f16 needs two bf16 parts: each block splits
// a packed tile again (operands_of), since tiles of two parts would take twice the memory. K and V
// of 8 bits have at most 8 significant bits, so they are packed as bf16, which is exact, whatever q
// is. Their scales multiply scores and weights.
//
// Invariant: keys past the last one up to a multiple of kTileDepth are zeros; beyond that nothing
// is multiplied.
#if defined(KERNELS_CPU_AMX_PACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_AMX_PACK_INL
#undef KERNELS_CPU_AMX_PACK_INL
#else
#define KERNELS_CPU_AMX_PACK_INL
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/common/half.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/cpu/amx/bf16.inl"
#include "kernels/cpu/amx/tiles.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/tile.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/targets.hpp"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE::amx {

// Rows of a row group: one pair of tiles.
constexpr int64_t kAmxGroupRows = kTilePairRows;
// Keys of a tile of K and V, which spans many AMX tiles. Its K and V stay in the L2 cache while the
// block's rows use them.
constexpr int64_t kAmxTileKeys = 256;
// Most rows of a block; a multiple of kAmxGroupRows. Many rows amortize reading a tile of K and V.
constexpr int64_t kAmxMaxBlockRows = 512;
// Keys of a chunk: the scores of a row group and one chunk stay in the L1 cache.
constexpr int64_t kChunkKeys = 2 * kTileColumns;
static_assert(kChunkKeys == kTileDepth);

Tiling bf16_tiling(const Problem& problem) {
  // Where each row of V has a scale, weights are rounded to 16 bits after they are multiplied by
  // it, which a wider out would show.
  const bool wide_out = out_dtype(problem) != problem.dtype;
  if (problem.dtype == DType::f32 || (wide_out && problem.kv_scale == KvScale::token))
    return float_tiling(problem);
  const bool is_f16 = problem.dtype == DType::f16;
  const bool splits_tiles = kv_dtype(problem) == DType::f16;
  Tiling tiling{};
  tiling.group_rows = kAmxGroupRows;
  tiling.max_block_rows = kAmxMaxBlockRows;
  tiling.min_block_rows =
      kAmxMaxBlockRows / (splits_tiles ? 4 : 8);  // each extra block splits again
  tiling.tile_keys = kAmxTileKeys;
  tiling.packed_element_bytes = sizeof(uint16_t);
  tiling.head_dim_multiple = kTileDepth;
  tiling.head_dim_v_multiple = kTileColumns;
  tiling.score_rows = kAmxGroupRows;
  tiling.score_keys = kChunkKeys;
  tiling.share_packed = true;
  tiling.bf16_parts = is_f16 ? 2 : 1;
  tiling.splits_tiles = splits_tiles;
  return tiling;
}

// Converts n numbers of 8 bits to bf16. Exact.
inline void load_row_bf16(DType dtype, const void* row, int64_t n, uint16_t* to) {
  int64_t x = 0;
  with_kv_dtype(dtype, [&](auto constant) HWY_ATTR {
    for (; x + kLanes <= n; x += kLanes) store_upper(widen<constant()>(row, x), to + x);
  });
  for (; x < n; ++x) to[x] = static_cast<uint16_t>(bits_of_float(load_float(dtype, row, x)) >> 16);
}

// Packs K of keys [begin, end) of the tile that begins at key `first`.
inline void pack_keys(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                      int64_t end, uint16_t* to) {
  const Tensor& k = block.run->args->k;
  const int64_t head_dim = block.run->problem->head_dim;
  const int64_t padded = round_up(head_dim, kTileDepth);
  const bool has_16_bits = element_bytes(k.dtype) == 2;
  for (int64_t j = begin; j < round_up(end, kTileDepth); j += kPackRows) {
    const float* row[kPackRows];
    for (int64_t r = 0; r < kPackRows; ++r) {
      if (j + r >= end) {
        row[r] = scratch.zeros;
        continue;
      }
      const char* from = key_data(block, k, first + j + r);
      if (has_16_bits && head_dim == padded &&
          reinterpret_cast<uintptr_t>(from) % sizeof(float) == 0) {
        row[r] = reinterpret_cast<const float*>(from);
        continue;
      }
      char* copy = reinterpret_cast<char*>(scratch.k_rows + r * scratch.q_stride);
      if (has_16_bits) {
        memcpy(copy, from, static_cast<size_t>(head_dim) * 2);
      } else {
        load_row_bf16(k.dtype, from, head_dim, reinterpret_cast<uint16_t*>(copy));
      }
      memset(copy + head_dim * 2, 0, static_cast<size_t>(padded - head_dim) * 2);
      row[r] = reinterpret_cast<const float*>(copy);
    }
    float* panel =
        reinterpret_cast<float*>(to + j / kTileColumns * kTileColumns * padded) + j % kTileColumns;
    transpose_rows<kTileColumns>(row, padded / 2, panel);
  }
}

// Packs V of the same keys: two rows at a time, 16 columns at a time.
inline void pack_values(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                        int64_t end, uint16_t* to) {
  const Tensor& v = value_tensor(*block.run->problem, *block.run->args);
  const bool has_16_bits = element_bytes(v.dtype) == 2;
  const int64_t columns = block.run->problem->head_dim_v;
  const int64_t panel = kAmxTileKeys * kTileColumns;
  const uint16_t* zeros = reinterpret_cast<const uint16_t*>(scratch.zeros);
  for (int64_t j = begin; j < round_up(end, kTileDepth); j += 2) {
    const uint16_t* row[2] = {zeros, zeros};
    for (int64_t r = 0; r < 2 && j + r < end; ++r) {
      const char* from = key_data(block, v, first + j + r);
      row[r] = reinterpret_cast<const uint16_t*>(from);
      if (has_16_bits) continue;
      uint16_t* converted = scratch.v_rows + r * scratch.v_stride;
      load_row_bf16(v.dtype, from, columns, converted);
      row[r] = converted;
    }
    uint16_t* at = to + j * kTileColumns;
    int64_t x = 0;
    for (; x + kTileColumns <= columns; x += kTileColumns, at += panel) {
      for (int64_t n = 0; n < kTileColumns; n += kLanes) {
        const hn::Rebind<uint16_t, Floats> d16;
        const hn::Rebind<uint32_t, Floats> d32;
        const auto even = hn::PromoteTo(d32, hn::LoadU(d16, row[0] + x + n));
        const auto odd = hn::PromoteTo(d32, hn::LoadU(d16, row[1] + x + n));
        hn::StoreU(hn::Or(even, hn::ShiftLeft<16>(odd)), d32, reinterpret_cast<uint32_t*>(at) + n);
      }
    }
    if (x < columns) {
      memset(at, 0, 2 * kTileColumns * sizeof(uint16_t));
      for (int64_t n = 0; x + n < columns; ++n)
        at[2 * n] = row[0][x + n], at[2 * n + 1] = row[1][x + n];
    }
  }
}

inline void pack_tile(const Block& block, const Scratch& scratch, int64_t first, int64_t begin,
                      int64_t end, char* to) {
  uint16_t* keys = reinterpret_cast<uint16_t*>(to);
  amx::pack_keys(block, scratch, first, begin, end, keys);
  amx::pack_values(block, scratch, first, begin, end,
                   keys + packed_key_elements(*block.run->problem, block.run->tiling));
}

// Splits n elements of f16 into two bf16 parts each. `high` may be `from`.
template <class Rounder>
inline void split_f16(const uint16_t* from, int64_t n, uint16_t* high, uint16_t* low) {
  for (int64_t x = 0; x < n; x += 2 * kLanes) {
    split_bf16<Rounder>(widen<DType::f16>(from, x), widen<DType::f16>(from, x + kLanes), high + x,
                        low + x);
  }
}

// Packs the block's q, negated if the scale is negative; rows that fill up the last row group are
// zeros.
template <class Rounder>
inline void pack_queries(const Block& block, const Scratch& scratch) {
  const Run& run = *block.run;
  const int64_t head_dim = run.problem->head_dim;
  const int64_t rows = round_up(block.rows, kAmxGroupRows);
  const int64_t part = run.tiling.max_block_rows * scratch.q_stride;
  const size_t row_bytes = static_cast<size_t>(scratch.q_stride) * 2;
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t* to = scratch.q_parts + r * scratch.q_stride;
    memset(to, 0, row_bytes);
    if (r < block.rows) {
      const int64_t offset = query_row(*run.problem, run.args->q, block.sequence, block.batch,
                                       block.query(r), block.head(r));
      memcpy(to, element(run.args->q, offset), static_cast<size_t>(head_dim) * 2);
      if (run.negate_q) {
        for (int64_t x = 0; x < head_dim; ++x) to[x] = static_cast<uint16_t>(to[x] ^ 0x8000);
      }
    }
    if (run.tiling.bf16_parts == 2) split_f16<Rounder>(to, scratch.q_stride, to, to + part);
  }
}

// A tile's K and V as bf16: [0] the high or only part, [1] the low part or null.
struct Operands {
  const uint16_t* keys[2];
  const uint16_t* values[2];
};

// Returns the operands of the tile that begins at key `first`, packed and split if need be.
template <class Rounder>
inline Operands operands_of(const Block& block, const Scratch& scratch, int64_t first) {
  const Run& run = *block.run;
  const uint16_t* packed =
      reinterpret_cast<const uint16_t*>(packed_tile(block, scratch, first, amx::pack_tile));
  const int64_t keys = packed_key_elements(*run.problem, run.tiling);
  if (!run.tiling.splits_tiles) return {{packed, nullptr}, {packed + keys, nullptr}};
  const int64_t all = packed_elements(*run.problem, run.tiling);
  // Keys of whole tiles of depth. What lies past them is neither split nor multiplied.
  const int64_t count =
      round_up(std::min(kAmxTileKeys, block.sequence.kv_length - first), kTileDepth);
  uint16_t* const parts = scratch.tile_parts;
  split_f16<Rounder>(packed, keys / kAmxTileKeys * count, parts, parts + all);
  for (int64_t at = keys; at < all; at += kAmxTileKeys * kTileColumns) {
    split_f16<Rounder>(packed + at, count * kTileColumns, parts + at, parts + all + at);
  }
  return {{parts, parts + all}, {parts + keys, parts + all + keys}};
}

}  // namespace kernels::cpu::HWY_NAMESPACE::amx
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_AMX_PACK_INL
