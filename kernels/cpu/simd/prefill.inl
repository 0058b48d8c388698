// kernels/cpu/simd/prefill.inl: the pack and prefill tasks of a target with float operands
//
// A prefill task computes one block of query rows: it packs q once, visits the tiles of K and V
// that some row sees, and writes out and lse.
//
//                  tiles of keys
//                | 0 | 1 | 2 | 3 |       # visited: from the first to the last key that the
//     block 0    | # | # |   |   |       block's rows see (here: causal, with a window)
//     block 1    |   | # | # |   |
#if defined(KERNELS_CPU_SIMD_PREFILL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_PREFILL_INL
#undef KERNELS_CPU_SIMD_PREFILL_INL
#else
#define KERNELS_CPU_SIMD_PREFILL_INL
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/rows.inl"
#include "kernels/cpu/simd/tile.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

void pack(const Run& run, int64_t index, int32_t worker) {
  pack_shared(run, index, worker, pack_tile);
}

void prefill(const Run& run, int64_t index, int32_t worker) {
  const Block block = block_of_task(run, index);
  if (block.rows <= 0 || is_decode(block.sequence.q_length, run.heads_per_kv)) return;
  const Scratch scratch = scratch_of(run, worker);
  start_scratch(scratch);
  pack_queries(block, scratch);
  const KeyRange seen = start_rows(block, scratch, run.problem->sinks);
  for (int64_t first = seen.begin / kTileKeys * kTileKeys; first < seen.end; first += kTileKeys) {
    prefill_tile(block, scratch, first);
  }
  finish_rows(block, scratch);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_PREFILL_INL
