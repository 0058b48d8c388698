// kernels/cpu/amx/prefill.inl: the pack and prefill tasks for f16 and bf16, with AMX tiles
//
//   for every tile of 256 keys, for every row group of 32 rows:
//     for every chunk of 32 keys:
//       scores  = q k       qk_chunk       [32][32] floats; the next chunk overwrites them
//       adjust              adjust_chunk   softcap, mask, ALiBi, interval of keys
//       weights = softmax   softmax_chunk  bf16, kept until the tile is done
//     out += p v            pv_chunks      all of the tile's chunks; sooner if a reference rises
//
// Each chunk's scores overwrite the previous chunk's, so that they stay in the L1 cache.
//
// f16 is two bf16 parts, high and low (bf16.inl). q k adds all four products of parts and is exact:
// without the fourth, large logits were too far off. Weights times v adds three; the product of
// both low parts is below 2^-14 of a weight and left out. K and V of 8 bits are one part.
//
// Invariant: weights and out refer to the same softmax references when pv_chunks adds them. Before
// a reference rises, the products of earlier chunks are added to out; then raise_reference scales
// out.
//
// Packed tiles of K and V are not prefetched, since the processor fetches them without help.
// Measured with 16 threads, bf16, 2048 x 2048: q k, softmax and p v take 250, 300 and 236 ns for 32
// rows and 32 keys at head_dim 64 (625, 352 and 488 at 128), and hardly overlap: their sum is
// nearly the whole.
#if defined(KERNELS_CPU_AMX_PREFILL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_AMX_PREFILL_INL
#undef KERNELS_CPU_AMX_PREFILL_INL
#else
#define KERNELS_CPU_AMX_PREFILL_INL
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/amx/pack.inl"
#include "kernels/cpu/amx/softmax.inl"
#include "kernels/cpu/amx/tiles.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/mask.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/prefill.inl"
#include "kernels/cpu/simd/rows.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE::amx {

// Multiplies the group's rows of q by the chunk of keys that begins at key `key` of the tile.
template <class Tiles>
inline void qk_chunk(const Run& run, const Scratch& scratch, const GroupTile& at,
                     const Operands& operands, int64_t key) {
  const int64_t padded = round_up(run.problem->head_dim, kTileDepth);
  const TileShape shape{.a_stride = scratch.q_stride,
                        .a_second_tile = kTileRows * scratch.q_stride,
                        .a_step = kTileDepth,
                        .steps = padded / kTileDepth,
                        .b_second_tile = kTileColumns * padded,
                        .sums_stride = kChunkKeys};
  const uint16_t* q[2] = {
      scratch.q_parts + at.row * scratch.q_stride,
      scratch.q_parts + (run.tiling.max_block_rows + at.row) * scratch.q_stride};
  const uint16_t* q_low = run.tiling.bf16_parts == 2 ? q[1] : nullptr;
  const bool low_keys = operands.keys[1] != nullptr;
  const Term terms[2] = {{q[0], q_low, operands.keys[0] + key * padded},
                         {q[0], q_low, low_keys ? operands.keys[1] + key * padded : nullptr}};
  Tiles::template multiply<true, false>(terms, low_keys ? 2 : 1, shape, scratch.scores);
}

// Adds the weights of the tile's keys [begin, end) times their V to out.
template <class Tiles>
inline void pv_chunks(const Run& run, const Scratch& scratch, const GroupTile& at,
                      const Operands& operands, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const bool two_parts = run.tiling.bf16_parts == 2, low_values = operands.values[1] != nullptr;
  const TileShape shape{.a_stride = kChunkKeys,
                        .a_second_tile = kTileRows * kAmxTileKeys,
                        .a_step = kTileRows * kChunkKeys,
                        .steps = (end - begin) / kTileDepth,
                        .b_second_tile = kAmxTileKeys * kTileColumns,
                        .sums_stride = scratch.v_stride};
  const uint16_t* weights = scratch.weights + begin * kTileRows;
  const uint16_t* low = weights + kAmxGroupRows * kAmxTileKeys;
  float* out = scratch.out + at.row * scratch.v_stride;
  for (int64_t column = 0; column < scratch.v_stride; column += 2 * kTileColumns) {
    const int64_t from = column * kAmxTileKeys + begin * kTileColumns;
    const Term terms[2] = {{weights, two_parts ? low : nullptr, operands.values[0] + from},
                           {weights, nullptr, low_values ? operands.values[1] + from : nullptr}};
    if (column + kTileColumns < scratch.v_stride) {
      Tiles::template multiply<true, true>(terms, low_values ? 2 : 1, shape, out + column);
    } else {
      Tiles::template multiply<false, true>(terms, low_values ? 2 : 1, shape, out + column);
    }
  }
}

// Applies softcap, mask and ALiBi to the chunk's scores, and sets to -inf what is outside a row's
// interval.
inline void adjust_chunk(const Block& block, const Scratch& scratch, const GroupTile& at,
                         int64_t key) {
  adjust_scores(block, scratch,
                {at.row, at.rows, at.first + key, kChunkKeys, scratch.scores, kChunkKeys,
                 at.k_scales == nullptr ? nullptr : at.k_scales + key},
                at.keys.mask);
  if (key >= at.inside.begin && key + kChunkKeys <= at.inside.end) return;
  for (int64_t r = 0; r < at.rows; ++r) {
    hide_outside(scratch.visible[at.row + r], at.first + key, kChunkKeys,
                 scratch.scores + r * kChunkKeys);
  }
}

// Computes one row group against one tile.
template <class Tiles, class Rounder>
inline void prefill_group(const Block& block, const Scratch& scratch, const GroupTile& at,
                          const Operands& operands) {
  const Run& run = *block.run;
  GroupReferences references = group_references(scratch, at);
  // Whether references rose in the last chunk. Maxima that rise tend to go on rising: then it is
  // cheaper to look for the maximum first than to compute weights that may have to be thrown away.
  bool rising = false;
  const KeyRange panels = whole_panels(at.keys, kChunkKeys);
  int64_t added = panels.begin;  // weights of keys below this are in out
  for (int64_t key = panels.begin; key < panels.end; key += kChunkKeys) {
    qk_chunk<Tiles>(run, scratch, at, operands, key);
    adjust_chunk(block, scratch, at, key);
    if (references.all_set && !rising) {
      if (softmax_chunk<Rounder>(run, scratch, at, key, references.has_score_offset)) continue;
      restore_sums(scratch, at);
    }
    rising = exceeds_threshold(scratch, at);
    if (rising) {
      pv_chunks<Tiles>(run, scratch, at, operands, added, key);
      added = key;
      raise_references(run, scratch, at);
      references = group_references(scratch, at);
    }
    softmax_chunk<Rounder>(run, scratch, at, key, references.has_score_offset);
  }
  pv_chunks<Tiles>(run, scratch, at, operands, added, panels.end);
}

template <class Tiles, class Rounder>
void prefill(const Run& run, int64_t index, int32_t worker) {
  if (run.tiling.bf16_parts == 0) return HWY_NAMESPACE::prefill(run, index, worker);
  const Block block = block_of_task(run, index);
  if (block.rows <= 0 || is_decode(block.sequence.q_length, run.heads_per_kv)) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  amx::pack_queries<Rounder>(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks);
  start_references(block, scratch);
  // Rows that fill up the last group have arbitrary weights. What they add up here is never read.
  std::fill(scratch.out + block.rows * scratch.v_stride,
            scratch.out + round_up(block.rows, kAmxGroupRows) * scratch.v_stride, 0.0f);
  Tiles::start();
  for (int64_t first = seen.begin / kAmxTileKeys * kAmxTileKeys; first < seen.end;
       first += kAmxTileKeys) {
    const int64_t count = std::min(kAmxTileKeys, block.sequence.kv_length - first);
    const Operands operands = operands_of<Rounder>(block, scratch, first);
    const float* k_scales = load_key_scales(block, scratch, first, 0, count);
    const float* v_scales = run.problem->kv_scale == KvScale::token
                                ? load_value_scales(block, scratch, first, 0, count)
                                : nullptr;
    for (int64_t row = 0; row < block.rows; row += kAmxGroupRows) {
      const int64_t rows = std::min(kAmxGroupRows, block.rows - row);
      const GroupKeys keys = group_keys(block, scratch, row, rows, first, count);
      if (keys.begin >= keys.end) continue;
      // From the last row's first key to the first row's last key: neither end decreases from row
      // to row.
      const KeyRange inside{scratch.visible[row + rows - 1].begin - first,
                            scratch.visible[row].end - first};
      prefill_group<Tiles, Rounder>(block, scratch,
                                    {row, rows, first, keys, inside, k_scales, v_scales}, operands);
    }
  }
  Tiles::stop();
  // One scale for all keys of V multiplies out, which no weight's rounding then hides.
  const bool one_scale = run.problem->kv_scale != KvScale::token && seen.begin < seen.end;
  finish_rows(
      block, scratch, [&](int64_t row) { return weight_of_max(run, scratch, row); },
      one_scale ? scale_of_value(block, seen.begin) : 1.0f);
}

void pack(const Run& run, int64_t index, int32_t worker) {
  if (run.tiling.bf16_parts == 0) return HWY_NAMESPACE::pack(run, index, worker);
  pack_shared(run, index, worker, amx::pack_tile);
}

}  // namespace kernels::cpu::HWY_NAMESPACE::amx
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_AMX_PREFILL_INL
