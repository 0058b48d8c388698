// kernels/cpu/attention.cpp: a run into tiles to pack, blocks of rows and chunks of keys, handed to the caller's threads
#include "kernels/cpu/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "kernels/cpu/block.hpp"
#include "kernels/cpu/check.hpp"
#include "kernels/cpu/schedule.hpp"

namespace kernels::cpu {
namespace {

// Rows of the longest sequence that the Problem allows, or `most` where there are more; no product overflows.
int64_t rows_within(const Problem& p, int64_t most) {
  const int64_t group = p.heads_q / p.heads_kv;
  return p.seq_q >= most / group + 1 ? most : std::min(most, p.seq_q * group);
}

int64_t multiply_within(int64_t a, int64_t b, int64_t most) {
  return a != 0 && b > most / a ? most : std::min(most, a * b);
}

// The target's cut, with no more rows than the Problem's blocks can have.
Cut cut_of(const Problem& p, const Target& target) {
  Cut cut = target.cut(p);
  cut.block_rows = round_up(rows_within(p, cut.block_rows), cut.row_group);
  return cut;
}

// Packed K and V of every tile within the Problem's bounds, as far as they are kept at all.
int64_t shared_bytes(const Problem& p, const Cut& cut) {
  if (!cut.share || rows_within(p, cut.row_group + kDecodeRows) <= kDecodeRows) return 0;
  int64_t bytes = multiply_within(p.batch, p.heads_kv, kMostShared);
  bytes = multiply_within(bytes, p.seq_kv / cut.tile_keys + 1, kMostShared);
  return multiply_within(bytes, packed_elements(p, cut) * cut.element, kMostShared);
}

// Keys of one chunk of a decode step; a multiple of the decode path's tile.
int64_t chunk_keys(int64_t pairs, int64_t longest) {
  const int64_t even =
      static_cast<int64_t>(static_cast<double>(pairs) * static_cast<double>(longest) / kChunks);
  return round_up(std::clamp(even, kLeastChunkKeys, std::max(longest, kLeastChunkKeys)),
                  kDecodeTileKeys);
}

constexpr int64_t kMost = int64_t{1} << 60;  // bytes, more than any memory; the allocation says so
constexpr int64_t kStages = 3;
// Of each thread, if there can be so many, since some finish late; fewer where each block packs K and V anew.
constexpr int64_t kTasks = 8, kPackingTasks = 4;

int64_t pairs_within(const Problem& p) { return multiply_within(p.batch, p.heads_kv, kMost / 64); }

// Chunks never outnumber kChunks plus one for each pair of a sequence and a KV head.
int64_t parts_bytes(const Problem& p) {
  const int64_t pairs = pairs_within(p);
  const int64_t chunks =
      std::min(kChunks + pairs, multiply_within(pairs, p.seq_kv / kLeastChunkKeys + 1, kMost));
  const int64_t bytes =
      rows_within(p, kDecodeRows) * part_floats(p) * static_cast<int64_t>(sizeof(float));
  return multiply_within(chunks, bytes, kMost);
}

// Of run_stages, and two for each pair.
int64_t counters_bytes(const Problem& p, int32_t thread_count) {
  const int64_t of_pairs = 2 * pairs_within(p) * static_cast<int64_t>(sizeof(std::atomic<int64_t>));
  return stages_bytes(kStages, thread_count) + round_up(of_pairs, kWorkspaceAlignment);
}

// Large blocks read K and V less often, small ones keep every thread busy; of some counts of blocks the one whose shares are
// most even.
int64_t choose_block_rows(const Cut& cut, int64_t rows, int64_t pairs, int32_t thread_count) {
  int64_t block_rows = std::min(cut.block_rows, round_up(rows, cut.row_group));
  if (thread_count == 1) return block_rows;
  const int64_t tasks = (cut.share ? kTasks : kPackingTasks) * thread_count;
  while (block_rows > cut.least_rows && pairs * ceil_div(rows, block_rows) < tasks) {
    block_rows = round_up(block_rows / 2, cut.row_group);
  }
  const int64_t most = ceil_div(rows, block_rows);
  if (pairs * most >= 2 * tasks) return block_rows;
  int64_t least_work = INT64_MAX;
  for (int64_t blocks = most; 4 * blocks > 3 * most; --blocks) {
    const int64_t size = round_up(ceil_div(rows, blocks), cut.row_group);
    if (size > cut.block_rows) break;
    const int64_t work = ceil_div(pairs * blocks, thread_count) * size;
    if (work < least_work) least_work = work, block_rows = size;
  }
  return block_rows;
}

// The steps of a run, in this order. What a pair's blocks wait for is counted in run.packed, and what is to be joined in
// run.decoded.
void pack_step(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  run.target->pack(run, index, worker);
  run.packed[index / run.pieces_per_pair].fetch_add(1, std::memory_order_release);
}

void attend_step(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  if (run.shared != nullptr) wait_for(run.packed[index / run.blocks_per_pair], run.pieces_per_pair);
  run.target->attend(run, index, worker);
}

void decode_step(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  run.target->decode(run, index, worker);
  if (run.chunks_per_pair == 1) return;
  const int64_t pair = index / run.chunks_per_pair;
  const int64_t done = run.decoded[pair].fetch_add(1, std::memory_order_acq_rel) + 1;
  if (done == run.chunks_per_pair) run.target->join(run, pair, worker);
}

// Where scores go from the products of q and k to powers of 2.
void set_scale(Run* run) {
  const Problem& p = *run->problem;
  const double scale =
      p.scale != 0 ? double{p.scale} : 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  constexpr double kLog2e = 1.4426950408889634;
  run->negative = scale < 0;
  run->scale = static_cast<float>(std::abs(scale));
  run->plain = p.mask != Mask::additive && p.softcap == 0 && !p.alibi && !p.sinks;
  constexpr double kLargest =
      std::numeric_limits<float>::max();  // infinity times a distance of 0 would be NaN
  run->exponent =
      static_cast<float>(run->plain ? std::min(std::abs(scale) * kLog2e, kLargest) : kLog2e);
}

}  // namespace

int64_t workspace_bytes(const Problem& problem, const Target& target, int32_t thread_count) {
  const Cut cut = cut_of(problem, target);
  return multiply_within(thread_count, carve(problem, cut, cut.block_rows, nullptr).bytes, kMost) +
         shared_bytes(problem, cut) + parts_bytes(problem) + counters_bytes(problem, thread_count);
}

Status run(const Problem& problem, const Args& args, const Target& target, const Workers& workers,
           void* workspace, int64_t bytes, Error* error) {
  const Status status = check_args(problem, args, error);
  if (status != Status::ok) return status;
  const int32_t thread_count = workers.parallel_for == nullptr ? 1 : workers.thread_count;
  if (bytes < workspace_bytes(problem, target, thread_count) || workspace == nullptr ||
      reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    return fail(error, "workspace: found %jd bytes at %p, expected %jd aligned to %jd", bytes,
                workspace, workspace_bytes(problem, target, thread_count), kWorkspaceAlignment);
  }

  Run run{};
  run.problem = &problem;
  run.args = &args;
  run.target = &target;
  run.cut = cut_of(problem, target);
  run.group = problem.heads_q / problem.heads_kv;
  set_scale(&run);

  // The longest sequences of either kind, and the longest cache of a decode step.
  const int64_t batch = real_batch(problem, args);
  int64_t block_q = 0, block_kv = 0, decode_q = 0, decode_kv = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const Sequence s = sequence(problem, args, b);
    const bool decode = is_decode(s.q_length, run.group);
    int64_t& q = decode ? decode_q : block_q;
    int64_t& kv = decode ? decode_kv : block_kv;
    q = std::max(q, s.q_length);
    kv = std::max(kv, s.kv_length);
  }
  run.pairs = batch * problem.heads_kv;

  char* memory = static_cast<char*>(workspace);
  run.worker_memory = memory;
  run.worker_bytes = carve(problem, run.cut, run.cut.block_rows, nullptr).bytes;
  memory += thread_count * run.worker_bytes;
  void* const counters = memory;
  memory += stages_bytes(kStages, thread_count);
  run.parts = reinterpret_cast<float*>(memory);
  memory += parts_bytes(problem);
  char* const shared = memory;
  memory += shared_bytes(problem, run.cut);
  run.packed = new (memory) std::atomic<int64_t>[static_cast<size_t>(run.pairs)]();
  memory += run.pairs * static_cast<int64_t>(sizeof(std::atomic<int64_t>));
  run.decoded = new (memory) std::atomic<int64_t>[static_cast<size_t>(run.pairs)]();

  Stage stages[kStages] = {{0, pack_step}, {0, attend_step}, {0, decode_step}};
  if (block_q > 0) {
    const int64_t rows = block_q * run.group;
    run.block_rows = choose_block_rows(run.cut, rows, run.pairs, thread_count);
    run.blocks_per_pair = ceil_div(rows, run.block_rows);
    run.tiles_per_pair = ceil_div(block_kv, run.cut.tile_keys);
    run.pieces_per_pair = run.tiles_per_pair * (run.cut.tile_keys / kPackKeys);
    run.tile_bytes = packed_elements(problem, run.cut) * run.cut.element;
    const int64_t tiles = run.pairs * run.tiles_per_pair;
    if (run.cut.share && run.blocks_per_pair > 1 &&
        tiles <= shared_bytes(problem, run.cut) / run.tile_bytes) {
      run.shared = shared;
      stages[0].count = run.pairs * run.pieces_per_pair;
    }
    stages[1].count = run.pairs * run.blocks_per_pair;
  }
  if (decode_q > 0) {
    run.chunk_keys = chunk_keys(run.pairs, decode_kv);
    run.chunks_per_pair = std::max(int64_t{1}, ceil_div(decode_kv, run.chunk_keys));
    run.part_rows = decode_q * run.group;
    stages[2].count = run.pairs * run.chunks_per_pair;
  }
  run_stages(workers, stages, &run, counters);
  return Status::ok;
}

}  // namespace kernels::cpu
