// kernels/hip/score_matrix.hpp: the score matrix of the unfused kernels into what each workgroup takes of it
//
// Rows of the matrix are [batch, heads_q, seq_q]; all kernels agree through columns_of_block on which of a row's columns
// exist: what lies outside is never written, and never read.
#pragma once

#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

inline constexpr int kScoreThreads = 256;  // of the kernels between the two products
inline constexpr int kRowLanes = 32;       // that share a row in softmax, where they can hold it
inline constexpr int kHeld = 8;            // 16-byte pieces of a row that a lane of softmax holds
inline constexpr int kChunkSteps =
    8;  // steps of keys that one workgroup of the first product takes
inline constexpr uint32_t kMostGroups = 4096;  // along x: beyond it a workgroup takes several turns

// Whole steps of keys that any of a block's queries sees.
struct Steps {
  int32_t begin, end;
};
template <class Tile>
GPU_DEVICE Steps steps_of_block(const AttentionParams& p, int32_t first_query) {
  const int32_t rows = p.seq_q - first_query < Tile::kRows ? p.seq_q - first_query : Tile::kRows;
  const Range first = visible_range(p, first_query),
              last = visible_range(p, first_query + rows - 1);
  return {first.begin / Tile::kKeys, (last.end + Tile::kKeys - 1) / Tile::kKeys};
}

// The columns that are kept of a query's row: those of its block.
template <class Tile>
GPU_DEVICE Range columns_of_row(const AttentionParams& p, int32_t query) {
  const Steps steps = steps_of_block<Tile>(p, query / Tile::kRows * Tile::kRows);
  return {steps.begin * Tile::kKeys, steps.end * Tile::kKeys};
}

// Which head of which sequence a workgroup serves.
struct ScoreHead {
  int32_t index, batch, head;
  GPU_DEVICE explicit ScoreHead(const AttentionParams& p) {
    index = static_cast<int32_t>(gpu::block_y() + gpu::block_z() * kGridY);
    batch = index / p.heads_q;
    head = index % p.heads_q;
  }
  GPU_DEVICE bool exists(const AttentionParams& p) const { return index < p.batch * p.heads_q; }
  GPU_DEVICE float* row(const AttentionParams& p, int32_t query) const {
    return p.scores + (int64_t{index} * p.seq_q + query) * p.scores_row;
  }
};

// One head's scores into pieces for workgroups of kScoreThreads threads, each 4 columns: `rows` rows of `lanes` threads.
struct Pieces {
  int lanes, rows;
  uint32_t chunks;  // pieces side by side
  uint32_t count;
};
GPU_DEVICE Pieces pieces_of_head(const AttentionParams& p) {
  const int64_t quads = p.scores_row / 4;
  Pieces pieces;
  pieces.lanes = kScoreThreads;
  while (pieces.lanes > 4 && pieces.lanes / 2 >= quads) pieces.lanes /= 2;
  pieces.rows = kScoreThreads / pieces.lanes;
  pieces.chunks = static_cast<uint32_t>((quads + pieces.lanes - 1) / pieces.lanes);
  pieces.count = (static_cast<uint32_t>(p.seq_q) + pieces.rows - 1) / pieces.rows * pieces.chunks;
  return pieces;
}

// Softmax: rows that a workgroup takes in one turn. A row that kRowLanes lanes cannot hold has a workgroup of its own.
GPU_DEVICE int rows_in_turn(const AttentionParams& p) {
  return p.scores_row <= kRowLanes * kHeld * 4 ? kScoreThreads / kRowLanes : 1;
}
GPU_DEVICE uint32_t turns_of_head(const AttentionParams& p) {
  const uint32_t rows = static_cast<uint32_t>(rows_in_turn(p));
  return (static_cast<uint32_t>(p.seq_q) + rows - 1) / rows;
}

// Workgroups along x that share so many turns.
GPU_DEVICE uint32_t groups_for(uint32_t turns) { return turns < kMostGroups ? turns : kMostGroups; }

GPU_DEVICE uint32_t chunks_of_head(const AttentionParams& p, int keys) {
  return static_cast<uint32_t>((p.scores_row / keys + kChunkSteps - 1) / kChunkSteps);
}

// Where each wave of the first product turns the runs of its lanes into whole rows, one slot at a time: in V's place where
// nothing lies behind that.
template <class Tile>
struct ScoreStage {
  static constexpr int kSlotRows = Tile::kWaveRows / Tile::kSlots;
  static constexpr uint32_t kRowBytes = Tile::kKeys * 4 + 16, kWaveBytes = kSlotRows * kRowBytes;
  static constexpr bool kInPlaceOfV = Tile::kQueryAt == Tile::kSharedBytes && !Tile::kAliased;
  static constexpr uint32_t kAt = kInPlaceOfV ? Tile::kValueAt : Tile::kSharedBytes;
  static constexpr uint32_t kEnd =
      kAt + Tile::kWaves * kWaveBytes;  // workgroup memory of the first product
};

}  // namespace kernels::hip
