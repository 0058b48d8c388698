// kernels/cpu/targets.hpp: an instruction set's tiling, and its kernels' functions
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels::cpu {

struct Merge;
struct Run;

// How a target's kernels cut a problem into blocks of rows and tiles of keys, and in what form they
// keep the operands.
struct Tiling {
  int64_t group_rows;            // rows of a row group: of one register block or pair of AMX tiles
  int64_t max_block_rows;        // most rows of a block; a multiple of group_rows
  int64_t min_block_rows;        // blocks above this are halved while there are too few tasks
  int64_t tile_keys;             // keys of one tile of K and V
  int64_t packed_element_bytes;  // bytes of one element of packed K and V
  int64_t head_dim_multiple;     // packed rows of K are padded to a multiple of this
  int64_t head_dim_v_multiple;   // packed rows of V are padded to a multiple of this
  int64_t score_rows;            // rows whose scores a worker keeps at a time
  int64_t score_keys;            // keys whose scores a worker keeps at a time
  bool share_packed;             // pack K and V once for all blocks, not in each block
  int64_t bf16_parts;            // bf16 numbers for an element of q or a weight; 0: floats instead
  bool splits_tiles;             // packed K and V are f16, and each block splits them in two parts
};

// The functions compiled for one instruction set. `index` is the task's number, `worker` the
// thread's.
struct Target {
  const char* name;
  const char* kernel;
  bool (*attainable)();  // whether this machine can run it
  Tiling (*tiling)(const Problem& problem);
  // Packs kPackKeys keys into the shared packed tiles.
  void (*pack)(const Run& run, int64_t index, int32_t worker);
  // Computes one block of rows.
  void (*prefill)(const Run& run, int64_t index, int32_t worker);
  // Computes the rows of a decode step against one split of their keys.
  void (*decode)(const Run& run, int64_t index, int32_t worker);
  // Merges the splits of one sequence and KV head into out and lse.
  void (*merge_partials)(const Run& run, int64_t pair, int32_t worker);
  // Merges rows [first, end) of results over parts of the keys.
  void (*merge_rows)(const Merge& merge, int64_t first, int64_t end);
};

}  // namespace kernels::cpu
