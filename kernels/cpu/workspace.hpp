// kernels/cpu/workspace.hpp: what a run keeps in its workspace, and where
//
// The caller's workspace, from its beginning (offsets in bytes, each a multiple of
// kWorkspaceAlignment):
//
//   0               Scratch of worker 0, of worker 1, ...    each scratch_bytes
//   stage_counters  the counters of run_stages               a cache line for each stage and thread
//   partials        partial results of decode                [pairs][splits][rows]: see block.hpp
//   packed_tiles    packed K and V that all blocks read      [pairs][tiles_per_pair]
//   pair_counters   pieces packed, splits done               two counters for each pair
//   bytes           the end
//
// A pair is one sequence and one KV head. All sizes follow from the Problem's bounds, so that a
// plan can ask for them before any tensor exists. Sizes beyond any memory saturate instead of
// overflowing: the allocation fails then, not the arithmetic.
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/targets.hpp"

namespace kernels::cpu {

// Stages of a run: pack, prefill, decode.
inline constexpr int64_t kStages = 3;
// Most rows (queries times query heads of one KV head) of a sequence that counts as a decode step.
// Packing pays only if more rows than these use what was packed.
inline constexpr int64_t kDecodeRows = 16;
// Keys of a decode tile. Its V is prefetched while its scores are computed, and must stay in the L2
// cache until it is used.
inline constexpr int64_t kDecodeTileKeys = 128;
// Fewest keys of a split of a decode step: less work is not worth a task.
inline constexpr int64_t kMinSplitKeys = 256;
// Splits of a whole decode step, approximately: enough for several per thread on large machines.
inline constexpr int64_t kDecodeSplits = 256;
// Keys that one task packs: fewer than a tile's, so that more threads share the packing.
inline constexpr int64_t kPackKeys = 64;
// Rows are padded to a multiple of this many floats, the lanes of the widest vector, so that
// kernels need no loops for a row's tail.
inline constexpr int64_t kPadFloats = 16;
// Lanes of a row's sum of weights: they are added up once, at the end.
inline constexpr int64_t kSumLanes = kPadFloats;
// Most bytes of packed K and V that a plan keeps. In larger runs each block packs for itself.
inline constexpr int64_t kMaxPackedBytes = int64_t{64} << 20;

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t ceil_div(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }

// One worker's arrays, each aligned to a cache line. Arrays that a tiling does not use are empty.
struct Scratch {
  float* q;                  // [block rows][q_stride], floats
  float* scores;             // [score_rows][score_keys]; softmax turns them into weights in place
  float* out;                // [block rows][v_stride], not yet divided by the sum of weights
  char* packed_tile;         // one tile of K and V, if each block packs its own
  uint16_t* q_parts;         // AMX: [parts][block rows][q_stride]
  uint16_t* weights;         // AMX: [parts][group_rows][tile_keys]
  uint16_t* tile_parts;      // AMX, splits_tiles: [2][elements of a packed tile]
  float* k_rows;             // [16][q_stride]: rows of K that are converted before they are packed
  uint16_t* v_rows;          // AMX: [2][v_stride]: rows of V that are converted before, bf16
  float* k_scales;           // [keys of a tile]: what the scores of a key are multiplied by
  float* v_scales;           // [keys of a tile]: what the weights of a key are multiplied by
  float* zeros;              // [q_stride or v_stride]: read in place of rows that do not exist
  float* mask_bias;          // [kPadFloats]: a mask's values that are loaded one by one
  float* max;                // [block rows]: the softmax reference of the weights
  float* sum;                // [block rows][kSumLanes]
  float* sum_before_chunk;   // AMX: [group_rows][kSumLanes]
  float* rescale;            // [block rows]: what the current tile multiplies out by
  float* score_offset;       // AMX: [block rows]; for this and the next two see amx/softmax.inl
  float* exponent_offset;    // AMX: [block rows]
  float* rescale_threshold;  // AMX: [block rows]
  const char** mask_rows;    // [block rows]: where the row's mask begins, at key 0
  KeyRange* visible;         // [block rows]: the keys that the row sees, but for the mask
  int64_t q_stride;
  int64_t v_stride;
  int64_t bytes;  // of all arrays
};

// Lays out the arrays of one worker from `memory` on. `memory` may be null if only the sizes
// matter.
Scratch lay_out_scratch(const Problem& problem, const Tiling& tiling, void* memory);

// Offsets and sizes in bytes; see the top of this file.
struct Workspace {
  int64_t scratch_bytes;  // of one worker
  int64_t stage_counters;
  int64_t partials;
  int64_t packed_tiles;
  int64_t packed_tiles_bytes;
  int64_t pair_counters;
  int64_t bytes;
};

Workspace lay_out_workspace(const Problem& problem, const Tiling& tiling, int32_t thread_count);

// The target's tiling, with blocks no larger than any that the Problem's bounds allow.
Tiling bounded_tiling(const Problem& problem, const Target& target);

// Elements of a packed tile's K; its V follows.
inline int64_t packed_key_elements(const Problem& p, const Tiling& tiling) {
  return tiling.tile_keys * round_up(p.head_dim, tiling.head_dim_multiple);
}

inline int64_t packed_elements(const Problem& p, const Tiling& tiling) {
  return packed_key_elements(p, tiling) +
         tiling.tile_keys * round_up(p.head_dim_v, tiling.head_dim_v_multiple);
}

// Floats of one row's partial result: [max, sum, padding to kPadFloats][out, padded to whole
// vectors].
inline int64_t partial_floats(const Problem& p) {
  return kPadFloats + round_up(p.head_dim_v, kPadFloats);
}

}  // namespace kernels::cpu
