// kernels/cpu/block.hpp: one run as its tasks see it, and its blocks of query rows
//
// A row is one query of one query head. All rows of a pair (one sequence, one KV head) share its K
// and V, and are numbered
//
//   row:    0       1       ...  heads_per_kv - 1  heads_per_kv  ...
//   query:  0       0            0                 1
//   head:   first   second       last              first           query head of the KV head
//
// A block is a range of these rows; its kernel works on row groups of tiling.group_rows. Where a
// row group begins depends on the row numbers alone, and every decision (which keys to skip) is
// made for a whole row group. That is why a row's bits depend neither on the size of its block nor
// on the number of threads. A decode step has too few rows to cut: its keys are cut instead, into
// splits whose size follows from the run's tensors alone, or from the sequence alone if the Problem
// is batch_invariant.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/cpu/targets.hpp"
#include "kernels/cpu/workspace.hpp"

namespace kernels::cpu {

// What all tasks of a run share.
struct Run {
  const Problem* problem;
  const Args* args;
  const Target* target;
  Tiling tiling;

  // Scores are plain if the Problem has no additive mask, softcap, ALiBi or sinks. Plain scores are
  // bare products of q and k, which are never multiplied by the scale: exponent_scale contains it.
  bool plain_scores;
  bool negate_q;         // the scale is negative, so q is negated
  float score_scale;     // |scale|
  float exponent_scale;  // a weight is 2^(exponent_scale * (score - max))

  int64_t heads_per_kv;  // query heads of one KV head
  int64_t pairs;         // sequences times KV heads

  // Prefill. Counts are those of the longest sequence.
  int64_t block_rows;
  int64_t blocks_per_pair;
  int64_t tiles_per_pair;
  int64_t pieces_per_pair;  // pieces of kPackKeys keys
  int64_t tile_bytes;
  char* packed_tiles;  // [pairs][tiles_per_pair]; null: each block packs its own

  // Decode.
  int64_t split_keys;       // see split_keys_of
  int64_t splits_per_pair;  // of the sequence that has most
  int64_t partial_rows;
  float* partials;  // [pairs][splits_per_pair][partial_rows][partial_floats]

  std::atomic<int64_t>* pieces_packed;  // [pairs]
  std::atomic<int64_t>* splits_done;    // [pairs]
  char* scratch;                        // [workers]
  int64_t scratch_bytes;                // of one worker
};

inline Scratch scratch_of(const Run& run, int32_t worker) {
  return lay_out_scratch(*run.problem, run.tiling, run.scratch + worker * run.scratch_bytes);
}

// The rows of one block.
struct Block {
  const Run* run;
  Sequence sequence;
  int64_t pair;
  int64_t batch;
  int64_t head_kv;
  int64_t first_row;
  int64_t rows;  // 0 or less: nothing to do

  int64_t query(int64_t row) const { return (first_row + row) / run->heads_per_kv; }
  int64_t head(int64_t row) const {
    return head_kv * run->heads_per_kv + (first_row + row) % run->heads_per_kv;
  }
};

// Whether the sequence is computed by decode instead of prefill. The sequence alone decides, so
// that a row's bits depend on neither blocks nor threads.
inline bool is_decode(int64_t q_length, int64_t heads_per_kv) {
  return q_length * heads_per_kv <= kDecodeRows;
}

// Chooses the keys of a split of a decode step, a multiple of kDecodeTileKeys, so that there are
// about kDecodeSplits in all. The number of threads plays no part, because the bits of the result
// depend on the splits.
inline int64_t choose_split_keys(int64_t pairs, int64_t longest) {
  const int64_t even = static_cast<int64_t>(static_cast<double>(pairs) *
                                            static_cast<double>(longest) / kDecodeSplits);
  return round_up(std::clamp(even, kMinSplitKeys, std::max(longest, kMinSplitKeys)),
                  kDecodeTileKeys);
}

// The keys of a split of this sequence. With batch_invariant it is cut as if it were alone.
inline int64_t split_keys_of(const Run& run, const Sequence& s) {
  const Problem& p = *run.problem;
  return p.batch_invariant ? choose_split_keys(p.heads_kv, s.kv_length) : run.split_keys;
}

inline int64_t splits_of(const Run& run, const Sequence& s) {
  return std::max(int64_t{1}, ceil_div(s.kv_length, split_keys_of(run, s)));
}

inline Block block_of_pair(const Run& run, int64_t pair, int64_t first_row, int64_t max_rows) {
  const Problem& p = *run.problem;
  Block block{&run, {}, pair, pair / p.heads_kv, pair % p.heads_kv, first_row, 0};
  block.sequence = sequence(p, *run.args, block.batch);
  block.rows = std::min(max_rows, block.sequence.q_length * run.heads_per_kv - first_row);
  return block;
}

// The block of task `index`. A pair's blocks are neighbours, since they share K and V, and
// alternate between the sequence's end and its beginning: with causal, later rows see more keys,
// and this order gives every range of tasks about equal work.
inline Block block_of_task(const Run& run, int64_t index) {
  const int64_t n = index % run.blocks_per_pair;
  const int64_t number = n % 2 == 0 ? run.blocks_per_pair - 1 - n / 2 : n / 2;
  return block_of_pair(run, index / run.blocks_per_pair, number * run.block_rows, run.block_rows);
}

// The partial result of one row and one split.
inline float* partial_of(const Run& run, int64_t pair, int64_t split, int64_t row) {
  return run.partials + ((pair * run.splits_per_pair + split) * run.partial_rows + row) *
                            partial_floats(*run.problem);
}

}  // namespace kernels::cpu
