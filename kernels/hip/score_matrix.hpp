// kernels/hip/score_matrix.hpp: how the unfused kernels divide the score matrix among workgroups
//
// The matrix has a row of scores_row floats for each query of [batch, heads_q, seq_q]. Of a row,
// only the columns exist that some query of the same block of kRows queries sees, rounded to whole
// steps:
//
//                 keys ->
//   block 0   |xxxxxx                  |    x: exists, and every kernel reads and writes it
//   block 1   |xxxxxxxxxxxx            |    blank: never written, and never read
//   block 2   |xxxxxxxxxxxxxxxxxx      |    (a causal problem)
//
// INVARIANT: all five kernels ask columns_of_row or steps_of_block, so they agree on what exists.
// The launches on the host use the functions of this file for the sizes of their grids.
#pragma once

#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

// Threads of a workgroup of scale, mask and softmax.
inline constexpr int kScoreThreads = 256;
inline constexpr int kRowLanes = 32;   // lanes that share a row in softmax, if they can hold it
inline constexpr int kHeld = 8;        // 16-byte words of a row that a lane of softmax holds
inline constexpr int kChunkSteps = 8;  // steps of keys that a workgroup of the first product takes
// Workgroups along x at most; beyond that, a workgroup takes several pieces or rows in turn.
inline constexpr uint32_t kMostGroups = 4096;

// The columns of a query's row that exist: those of its block's steps.
template <class Tile>
GPU_DEVICE Range columns_of_row(const AttentionParams& p, int32_t query) {
  const Range steps = steps_of_block<Tile>(p, query / Tile::kRows * Tile::kRows);
  return {steps.begin * Tile::kKeys, steps.end * Tile::kKeys};
}

// The head of a sequence that a workgroup serves.
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

// How one head's scores are cut into pieces. A workgroup of kScoreThreads threads takes one piece:
// `rows` rows of `lanes` threads side by side, each with 4 columns.
struct Pieces {
  int lanes, rows;
  uint32_t chunks;  // pieces that make up a row
  uint32_t count;   // pieces of the head
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

// Rows that a workgroup of softmax takes at once. If kRowLanes lanes cannot hold a row, a whole
// workgroup takes it.
GPU_DEVICE int rows_in_turn(const AttentionParams& p) {
  return p.scores_row <= kRowLanes * kHeld * 4 ? kScoreThreads / kRowLanes : 1;
}
GPU_DEVICE uint32_t turns_of_head(const AttentionParams& p) {
  const uint32_t rows = static_cast<uint32_t>(rows_in_turn(p));
  return (static_cast<uint32_t>(p.seq_q) + rows - 1) / rows;
}

// Workgroups along x for that many pieces or rows.
GPU_DEVICE uint32_t groups_for(uint32_t turns) { return turns < kMostGroups ? turns : kMostGroups; }

// Workgroups of the first product for one block of queries. keys: of one step.
GPU_DEVICE uint32_t chunks_of_head(const AttentionParams& p, int keys) {
  return static_cast<uint32_t>((p.scores_row / keys + kChunkSteps - 1) / kChunkSteps);
}

// Workgroup memory in which each wave of the first product turns its lanes' runs of keys into whole
// rows, one slot at a time. It takes V's place, which that product does not use, unless that is
// smaller and Q lies behind it.
template <class Tile>
struct ScoreStage {
  static constexpr int kSlotRows = Tile::kWaveRows / Tile::kSlots;
  static constexpr uint32_t kRowBytes = Tile::kKeys * 4 + 16, kWaveBytes = kSlotRows * kRowBytes;
  static constexpr bool kInPlaceOfV =
      !Tile::kAliased && (Tile::kQueryAt == Tile::kSharedBytes ||
                          Tile::kWaves * kWaveBytes <= Tile::kQueryAt - Tile::kValueAt);
  static constexpr uint32_t kAt = kInPlaceOfV ? Tile::kValueAt : Tile::kSharedBytes;
  // Bytes of workgroup memory that the first product needs.
  static constexpr uint32_t kEnd = kAt + Tile::kWaves * kWaveBytes;
};

// Reads and writes 4 neighbouring scores. Not by load128: on NVIDIA it is for memory that no
// running kernel writes, and these kernels write what they read.
GPU_DEVICE gpu::Floats<4> read_scores(const float* at) {
  const gpu::Bits128 bits = *reinterpret_cast<const gpu::Bits128*>(at);
  gpu::Floats<4> s;
  GPU_UNROLL for (int i = 0; i < 4; ++i) s[i] = __builtin_bit_cast(float, bits.word[i]);
  return s;
}
GPU_DEVICE void write_scores(float* at, const gpu::Floats<4>& s) {
  store4(F32{}, at, s[0], s[1], s[2], s[3]);
}

}  // namespace kernels::hip
