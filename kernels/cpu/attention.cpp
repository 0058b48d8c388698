// kernels/cpu/attention.cpp: cuts a run into tasks and hands them to the caller's threads
//
//   stage 0  pack     one piece of kPackKeys keys of K and V, if blocks share packed tiles
//   stage 1  prefill  one block of rows; waits until its pair's pieces are packed
//   stage 2  decode   one split of a decode step; the task that finishes a pair's last split
//                     merges them all
//
// A run may hold sequences of both kinds (varlen); each stage skips what is not its own.
#include "kernels/cpu/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "kernels/cpu/block.hpp"
#include "kernels/cpu/check.hpp"
#include "kernels/cpu/schedule.hpp"
#include "kernels/cpu/targets.hpp"
#include "kernels/cpu/workspace.hpp"

namespace kernels::cpu {
namespace {

// Prefill tasks per thread, if the problem can be cut that finely: more than one, so that early
// finishers take over work. Fewer if every block packs K and V for itself, since each additional
// block packs them again.
constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kTasksPerThreadIfPacking = 4;

// Chooses the rows of a block. Large blocks read K and V less often; small ones keep every thread
// busy. Among several numbers of blocks it takes the one that leaves the busiest thread the fewest
// rows.
int64_t choose_block_rows(const Tiling& tiling, int64_t rows, int64_t pairs, int32_t thread_count) {
  int64_t block_rows = std::min(tiling.max_block_rows, round_up(rows, tiling.group_rows));
  if (thread_count == 1) return block_rows;
  const int64_t wanted_tasks =
      (tiling.share_packed ? kTasksPerThread : kTasksPerThreadIfPacking) * thread_count;
  while (block_rows > tiling.min_block_rows && pairs * ceil_div(rows, block_rows) < wanted_tasks) {
    block_rows = round_up(block_rows / 2, tiling.group_rows);
  }
  const int64_t max_blocks = ceil_div(rows, block_rows);
  if (pairs * max_blocks >= 2 * wanted_tasks) return block_rows;
  int64_t least_work = INT64_MAX;  // rows of the busiest thread
  for (int64_t blocks = max_blocks; 4 * blocks > 3 * max_blocks; --blocks) {
    const int64_t size = round_up(ceil_div(rows, blocks), tiling.group_rows);
    if (size > tiling.max_block_rows) break;
    const int64_t work = ceil_div(pairs * blocks, thread_count) * size;
    if (work < least_work) least_work = work, block_rows = size;
  }
  return block_rows;
}

void pack_task(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  run.target->pack(run, index, worker);
  run.pieces_packed[index / run.pieces_per_pair].fetch_add(1, std::memory_order_release);
}

void prefill_task(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  if (run.packed_tiles != nullptr)
    wait_for(run.pieces_packed[index / run.blocks_per_pair], run.pieces_per_pair);
  run.target->prefill(run, index, worker);
}

void decode_task(const void* arg, int64_t index, int32_t worker) {
  const Run& run = *static_cast<const Run*>(arg);
  run.target->decode(run, index, worker);
  if (run.splits_per_pair == 1) return;
  const int64_t pair = index / run.splits_per_pair;
  const int64_t done = run.splits_done[pair].fetch_add(1, std::memory_order_acq_rel) + 1;
  if (done == run.splits_per_pair) run.target->merge_partials(run, pair, worker);
}

// Sets the factors that turn scores into exponents of 2.
void set_scale(Run* run) {
  const Problem& p = *run->problem;
  const double scale =
      p.scale != 0 ? double{p.scale} : 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  constexpr double kLog2e = 1.4426950408889634;
  run->negate_q = scale < 0;
  run->score_scale = static_cast<float>(std::abs(scale));
  run->plain_scores = p.mask != Mask::additive && p.softcap == 0 && !p.alibi && !p.sinks;
  // Kept finite: the maximum's own exponent is this times 0, and infinity times 0 is NaN.
  constexpr double kLargest = std::numeric_limits<float>::max();
  run->exponent_scale =
      static_cast<float>(run->plain_scores ? std::min(std::abs(scale) * kLog2e, kLargest) : kLog2e);
}

void place(Run* run, const Workspace& layout, void* workspace) {
  char* const memory = static_cast<char*>(workspace);
  run->scratch = memory;
  run->scratch_bytes = layout.scratch_bytes;
  run->partials = reinterpret_cast<float*>(memory + layout.partials);
  using PairCounter = std::atomic<int64_t>;
  const size_t pairs = static_cast<size_t>(run->pairs);
  char* const counters = memory + layout.pair_counters;
  run->pieces_packed = new (counters) PairCounter[pairs]();
  run->splits_done = new (counters + pairs * sizeof(PairCounter)) PairCounter[pairs]();
}

// The longest query sequence, and the longest K and V, of all sequences that prefill or decode
// computes.
struct Longest {
  int64_t q = 0;
  int64_t kv = 0;
};

void cut_prefill(Run* run, const Longest& longest, const Workspace& layout, char* packed_tiles,
                 int32_t thread_count, Stage* pack, Stage* prefill) {
  if (longest.q == 0) return;
  const Tiling& tiling = run->tiling;
  const int64_t rows = longest.q * run->heads_per_kv;
  run->block_rows = choose_block_rows(tiling, rows, run->pairs, thread_count);
  run->blocks_per_pair = ceil_div(rows, run->block_rows);
  run->tiles_per_pair = ceil_div(longest.kv, tiling.tile_keys);
  run->pieces_per_pair = run->tiles_per_pair * (tiling.tile_keys / kPackKeys);
  run->tile_bytes = packed_elements(*run->problem, tiling) * tiling.packed_element_bytes;
  const int64_t tiles = run->pairs * run->tiles_per_pair;
  if (tiling.share_packed && run->blocks_per_pair > 1 &&
      tiles <= layout.packed_tiles_bytes / run->tile_bytes) {
    run->packed_tiles = packed_tiles;
    pack->count = run->pairs * run->pieces_per_pair;
  }
  prefill->count = run->pairs * run->blocks_per_pair;
}

void cut_decode(Run* run, const Longest& longest, Stage* decode) {
  if (longest.q == 0) return;
  run->split_keys = choose_split_keys(run->pairs, longest.kv);
  run->splits_per_pair = 1;
  for (int64_t b = 0; b < run->pairs / run->problem->heads_kv; ++b) {
    const Sequence s = sequence(*run->problem, *run->args, b);
    if (is_decode(s.q_length, run->heads_per_kv))
      run->splits_per_pair = std::max(run->splits_per_pair, splits_of(*run, s));
  }
  run->partial_rows = longest.q * run->heads_per_kv;
  decode->count = run->pairs * run->splits_per_pair;
}

}  // namespace

int64_t workspace_bytes(const Problem& problem, const Target& target, int32_t thread_count) {
  return lay_out_workspace(problem, bounded_tiling(problem, target), thread_count).bytes;
}

Status run(const Problem& problem, const Args& args, const Target& target, const Workers& workers,
           void* workspace, int64_t bytes, Error* error) {
  const Status status = check_args(problem, args, error);
  if (status != Status::ok) return status;
  const int32_t thread_count = workers.parallel_for == nullptr ? 1 : workers.thread_count;
  const Tiling tiling = bounded_tiling(problem, target);
  const Workspace layout = lay_out_workspace(problem, tiling, thread_count);
  if (bytes < layout.bytes || workspace == nullptr ||
      reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    return fail(error,
                "workspace: found %jd bytes at %p, expected at least %jd bytes, aligned to %jd",
                bytes, workspace, layout.bytes, kWorkspaceAlignment);
  }

  Run run{};
  run.problem = &problem;
  run.args = &args;
  run.target = &target;
  run.tiling = tiling;
  run.heads_per_kv = problem.heads_q / problem.heads_kv;
  set_scale(&run);

  const int64_t batch = real_batch(problem, args);
  run.pairs = batch * problem.heads_kv;
  Longest prefill, decode;
  for (int64_t b = 0; b < batch; ++b) {
    const Sequence s = sequence(problem, args, b);
    Longest& longest = is_decode(s.q_length, run.heads_per_kv) ? decode : prefill;
    longest.q = std::max(longest.q, s.q_length);
    longest.kv = std::max(longest.kv, s.kv_length);
  }

  char* const memory = static_cast<char*>(workspace);
  place(&run, layout, memory);
  Stage stages[kStages] = {{0, pack_task}, {0, prefill_task}, {0, decode_task}};
  cut_prefill(&run, prefill, layout, memory + layout.packed_tiles, thread_count, &stages[0],
              &stages[1]);
  cut_decode(&run, decode, &stages[2]);
  run_stages(workers, stages, &run, memory + layout.stage_counters);
  return Status::ok;
}

}  // namespace kernels::cpu
