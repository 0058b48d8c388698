// kernels/cpu/block.hpp: a run into blocks of query rows, tiles of keys and chunks of a decode step, and a workspace into
// their arrays
//
// A block is a number of rows that share K and V: the queries of one sequence with all the query heads of one KV head
// (row r is query r / group, head r % group of the group). Rows are worked on in groups. Group borders depend on nothing
// but the row's number, and every decision (which keys to skip) is made for a group: that is why the bits of a row do not
// depend on the size of the block that it lies in, nor on the number of threads. The few rows of a decode step are cut by
// keys instead, into chunks whose size follows from the run's tensors alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

inline constexpr int64_t kDecodeRows = 16;       // so few rows read K and V where they lie
inline constexpr int64_t kDecodeTileKeys = 128;  // V of so many keys waits in L2 for their weights
inline constexpr int64_t kLeastChunkKeys = 256;  // of a decode step: enough work to be worth a task
inline constexpr int64_t kChunks =
    256;  // of a whole decode step, about: some for each of many threads
inline constexpr int64_t kPackKeys = 64;          // of a tile, packed as one task
inline constexpr int64_t kPadFloats = 16;         // rows are padded to the widest vector
inline constexpr int64_t kSumLanes = kPadFloats;  // a row's sum is kept by lane until the end
inline constexpr int64_t kMostShared = int64_t{64}
                                       << 20;  // bytes of packed K and V that a plan keeps

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t ceil_div(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }

// How one way of multiplying cuts a problem, and what it keeps of it.
struct Cut {
  int64_t row_group;   // rows of one register block or of one pair of matrix tiles
  int64_t block_rows;  // the most rows of a block; a multiple of row_group
  int64_t least_rows;  // about the fewest, for the sake of many blocks
  int64_t tile_keys;   // keys of one tile
  int64_t element;     // bytes of an element of packed K and V
  int64_t head_pad;    // head_dim is padded to a multiple of this
  int64_t head_v_pad;  // head_dim_v, too
  int64_t score_rows;  // rows whose scores are kept at a time
  int64_t score_keys;  // of so many keys
  bool share;          // K and V are packed once for all blocks
  int64_t parts;       // 16-bit numbers that a number is split into; 0: operands are floats
};

// One instruction set, and the functions compiled for it.
struct Run;
struct Target {
  const char* name;
  const char* kernel;
  bool (*attainable)();
  Cut (*cut)(const Problem& problem);
  void (*pack)(const Run& run, int64_t index,
               int32_t worker);  // kPackKeys keys into the shared workspace
  void (*attend)(const Run& run, int64_t index, int32_t worker);  // one block of rows
  void (*decode)(const Run& run, int64_t index,
                 int32_t worker);  // one chunk of keys of a decode step
  void (*join)(const Run& run, int64_t index,
               int32_t worker);  // the chunks of one sequence and KV head into its rows
};

// What is the same for every block of a run.
struct Run {
  const Problem* problem;
  const Args* args;
  const Target* target;
  Cut cut;
  bool plain;      // scores need no adjusting but for keys that are hidden
  float scale;     // |scale|: a negative one turns q's sign
  float exponent;  // what a difference of scores is multiplied by, to be a power of 2
  bool negative;   // scale is
  int64_t group;   // query heads of one KV head
  int64_t pairs;   // of a sequence and a KV head
  int64_t block_rows;
  int64_t blocks_per_pair;  // of the longest sequence
  int64_t tiles_per_pair;   // likewise
  int64_t pieces_per_pair;  // of kPackKeys keys
  int64_t tile_bytes;
  char* shared;  // [pairs][tiles_per_pair] packed tiles; null: each block packs its own
  int64_t chunk_keys;
  int64_t chunks_per_pair;
  float* parts;  // [pairs][chunks_per_pair][kDecodeRows or fewer]: a row's max, its sum, its out
  int64_t part_rows;
  std::atomic<int64_t>* packed;   // [pairs]: pieces
  std::atomic<int64_t>* decoded;  // [pairs]: chunks
  char* worker_memory;
  int64_t worker_bytes;
};

// One worker's arrays, each aligned to a cache line.
struct Scratch {
  float* q;           // [block_rows][q_stride]
  float* scores;      // [score_rows][score_keys]
  float* out;         // [block_rows][v_stride], not yet divided by the sum
  char* packed;       // one tile of K and V
  uint16_t* q16;      // [parts][block_rows][q_stride]: q of matrix tiles
  uint16_t* weights;  // [parts][row_group][tile_keys] of matrix tiles
  uint16_t* split;    // a packed tile of f16, as [2][elements of the tile]
  float* rows;        // [16][q_stride]: rows of K on their way into a tile
  float* zeros;       // [q_stride or v_stride]: stands in for keys and values that do not exist
  float* bias;        // [kPadFloats]: what a mask adds, where it does not lie as a vector
  float* max;         // [block_rows]
  float* sum;         // [block_rows][kSumLanes]
  float* before;      // [row_group][kSumLanes]: the sums before the last chunk of matrix tiles
  float* rescale;     // [block_rows]: what a tile does to out
  float* less;        // [block_rows]; less, shift and limit: see matrix_weights.inl
  float* shift;       // [block_rows]
  float* limit;       // [block_rows]
  const char** mask;  // [block_rows]: each row's mask at key 0
  KeyRange* seen;     // [block_rows]
  int64_t q_stride;
  int64_t v_stride;
  int64_t bytes;  // of all of these
};

inline int64_t packed_key_elements(const Problem& p, const Cut& cut) {
  return cut.tile_keys * round_up(p.head_dim, cut.head_pad);
}

inline int64_t packed_elements(const Problem& p, const Cut& cut) {
  return packed_key_elements(p, cut) + cut.tile_keys * round_up(p.head_dim_v, cut.head_v_pad);
}

inline Scratch carve(const Problem& problem, const Cut& cut, int64_t block_rows, void* memory) {
  Scratch s{};
  s.q_stride = round_up(problem.head_dim, std::max(cut.head_pad, kPadFloats));
  s.v_stride = round_up(problem.head_dim_v, std::max(cut.head_v_pad, kPadFloats));
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
  const auto halves = [&](int64_t count) { return reinterpret_cast<uint16_t*>(take(count * 2)); };
  const int64_t rows = std::max(block_rows, kDecodeRows);
  s.q = floats((cut.parts == 0 ? rows : kDecodeRows) * s.q_stride);
  s.scores = floats(std::max(cut.score_rows * cut.score_keys, kDecodeRows * kDecodeTileKeys));
  s.out = floats(rows * s.v_stride);
  s.packed = take(packed_elements(problem, cut) * cut.element);
  s.q16 = halves(cut.parts * block_rows * s.q_stride);
  s.weights = halves(cut.parts * cut.row_group * cut.tile_keys);
  s.split = halves(cut.parts == 2 ? 2 * packed_elements(problem, cut) : 0);
  s.rows = floats(16 * s.q_stride);
  s.zeros = floats(std::max(s.q_stride, s.v_stride));
  s.bias = floats(kPadFloats);
  s.max = floats(rows);
  s.sum = floats(rows * kSumLanes);
  s.before = floats(cut.row_group * kSumLanes);
  s.rescale = floats(rows);
  s.less = floats(rows);
  s.shift = floats(rows);
  s.limit = floats(rows);
  s.mask = reinterpret_cast<const char**>(take(rows * static_cast<int64_t>(sizeof(char*))));
  s.seen = reinterpret_cast<KeyRange*>(take(rows * static_cast<int64_t>(sizeof(KeyRange))));
  s.bytes = used;
  return s;
}

inline Scratch scratch_of(const Run& run, int32_t worker) {
  return carve(*run.problem, run.cut, run.cut.block_rows,
               run.worker_memory + worker * run.worker_bytes);
}

// The rows of one block.
struct Block {
  const Run* run;
  Sequence sequence;
  int64_t pair;
  int64_t batch;
  int64_t head_kv;
  int64_t first_row;  // among the sequence's q_length * group rows
  int64_t rows;       // <= 0: nothing to do

  int64_t query(int64_t row) const { return (first_row + row) / run->group; }
  int64_t head(int64_t row) const { return head_kv * run->group + (first_row + row) % run->group; }
};

// Decided by the sequence alone, so that a row's bits do not depend on blocks or threads.
inline bool is_decode(int64_t q_length, int64_t group) { return q_length * group <= kDecodeRows; }

inline Block block_of_pair(const Run& run, int64_t pair, int64_t first_row, int64_t most_rows) {
  const Problem& p = *run.problem;
  Block block{&run, {}, pair, pair / p.heads_kv, pair % p.heads_kv, first_row, 0};
  block.sequence = sequence(p, *run.args, block.batch);
  block.rows = std::min(most_rows, block.sequence.q_length * run.group - first_row);
  return block;
}

// Neighbours share K and V. From both ends of a sequence in turn: under causal, which lets the last rows see the most keys,
// any share of neighbours is about as much work as any other.
inline Block block_at(const Run& run, int64_t index) {
  const int64_t n = index % run.blocks_per_pair;
  const int64_t number = n % 2 == 0 ? run.blocks_per_pair - 1 - n / 2 : n / 2;
  return block_of_pair(run, index / run.blocks_per_pair, number * run.block_rows, run.block_rows);
}

// One row of one chunk: max, sum, and out padded to whole vectors.
inline int64_t part_floats(const Problem& p) {
  return kPadFloats + round_up(p.head_dim_v, kPadFloats);
}

inline float* part_of(const Run& run, int64_t pair, int64_t chunk, int64_t row) {
  return run.parts +
         ((pair * run.chunks_per_pair + chunk) * run.part_rows + row) * part_floats(*run.problem);
}

}  // namespace kernels::cpu
