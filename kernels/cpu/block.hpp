// kernels/cpu/block.hpp: a run into blocks of query rows, and a worker's workspace into the arrays of one block
//
// A block is up to kBlockRows rows that share K and V: the queries of one sequence with all the query heads of one KV head
// (row r is query r / group, head r % group of the group). Rows are worked on in groups of kRowGroup. Group borders
// depend on nothing but the row's number, and every decision (which keys to skip) is made for a group: that is why the
// bits of a row do not depend on the size of the block that it lies in, nor on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"

namespace kernels::cpu {

inline constexpr int64_t kRowGroup = 6;           // rows of one register block: 6 x 4 vectors of the 32 of AVX-512
inline constexpr int64_t kBlockRows = 192;        // a multiple of kRowGroup; amortizes packing a tile of K and V
inline constexpr int64_t kTileKeys = 128;         // keys of one tile: K, V and scores of a block stay in L2
inline constexpr int64_t kPadFloats = 16;         // rows are padded to the widest vector
inline constexpr int64_t kSumLanes = kPadFloats;  // a row's sum is kept by lane until the end

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What is the same for every block of a run.
struct Run {
  const Problem* problem;
  const Args* args;
  float scale;
  int64_t group;               // query heads of one KV head
  int64_t block_rows;          // a multiple of kRowGroup
  int64_t blocks_per_kv_head;  // of the longest sequence
  void* workspace;
  int64_t worker_bytes;
};

// One worker's arrays, each aligned to a cache line.
struct Scratch {
  float* q;        // [kBlockRows][q_stride], scaled
  float* scores;   // [kBlockRows][kTileKeys]
  float* out;      // [kBlockRows][v_stride], not yet divided by the sum
  float* keys;     // [kTileKeys / panel][head_dim][panel]: K transposed by panels of some vectors of keys
  float* values;   // [kTileKeys][v_stride]
  float* rows;     // [4][q_stride]: rows of K in float on their way into keys
  float* zeros;    // [q_stride]: stands in for keys that do not exist
  float* bias;     // [kTileKeys + kPadFloats]: a row of the mask in float, padded
  float* max;      // [kBlockRows]
  float* sum;      // [kBlockRows][kSumLanes]
  float* rescale;  // [kBlockRows]: what a tile does to out
  KeyRange* seen;  // [kBlockRows]
  int64_t q_stride;
  int64_t v_stride;
  int64_t bytes;  // of all of these
};

inline Scratch carve(const Problem& problem, int64_t block_rows, void* memory) {
  Scratch s{};
  s.q_stride = round_up(problem.head_dim, kPadFloats);
  s.v_stride = round_up(problem.head_dim_v, kPadFloats);
  char* at = static_cast<char*>(memory);
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    char* taken = at == nullptr ? nullptr : at + used;
    used += round_up(bytes, 64);
    return taken;
  };
  const auto floats = [&](int64_t count) {
    return reinterpret_cast<float*>(take(count * static_cast<int64_t>(sizeof(float))));
  };
  s.q = floats(block_rows * s.q_stride);
  s.scores = floats(block_rows * kTileKeys);
  s.out = floats(block_rows * s.v_stride);
  s.keys = floats(kTileKeys * problem.head_dim);
  s.values = floats(kTileKeys * s.v_stride);
  s.rows = floats(4 * s.q_stride);
  s.zeros = floats(s.q_stride);
  s.bias = floats(kTileKeys + kPadFloats);
  s.max = floats(block_rows);
  s.sum = floats(block_rows * kSumLanes);
  s.rescale = floats(block_rows);
  s.seen = reinterpret_cast<KeyRange*>(take(block_rows * static_cast<int64_t>(sizeof(KeyRange))));
  s.bytes = used;
  return s;
}

// The rows of one block.
struct Block {
  const Run* run;
  Sequence sequence;
  int64_t batch;
  int64_t head_kv;
  int64_t first_row;  // among the sequence's q_length * group rows
  int64_t rows;       // <= 0: nothing to do

  int64_t query(int64_t row) const { return (first_row + row) / run->group; }
  int64_t head(int64_t row) const { return head_kv * run->group + (first_row + row) % run->group; }
};

// Blocks are numbered so that the last rows, which see the most keys under causal, come first.
inline Block block_at(const Run& run, int64_t index) {
  const Problem& p = *run.problem;
  const int64_t batch = real_batch(p, *run.args);
  const int64_t pair = index % (batch * p.heads_kv);
  const int64_t number = run.blocks_per_kv_head - 1 - index / (batch * p.heads_kv);
  Block block{&run, {}, pair / p.heads_kv, pair % p.heads_kv, number * run.block_rows, 0};
  block.sequence = sequence(p, *run.args, block.batch);
  block.rows = std::min(run.block_rows, block.sequence.q_length * run.group - block.first_row);
  return block;
}

}  // namespace kernels::cpu
