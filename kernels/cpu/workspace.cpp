// kernels/cpu/workspace.cpp: what a run keeps in its workspace, and where
#include "kernels/cpu/workspace.hpp"

#include <algorithm>
#include <atomic>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/schedule.hpp"

namespace kernels::cpu {
namespace {

// Bytes where sizes saturate: more than any memory, and a few of them still add up without
// overflow.
constexpr int64_t kSaturatedBytes = int64_t{1} << 60;

// a * b, or `bound` if that is less. REQUIRES: no argument is negative.
int64_t saturating_product(int64_t a, int64_t b, int64_t bound) {
  return a != 0 && b > bound / a ? bound : std::min(bound, a * b);
}

// Rows of the longest sequence that the Problem allows, or `bound` if that is less.
int64_t bounded_rows(const Problem& p, int64_t bound) {
  const int64_t heads_per_kv = p.heads_q / p.heads_kv;
  return p.seq_q >= bound / heads_per_kv + 1 ? bound : std::min(bound, p.seq_q * heads_per_kv);
}

int64_t bounded_pairs(const Problem& p) {
  return saturating_product(p.batch, p.heads_kv, kSaturatedBytes / 64);
}

// Packed K and V of every tile, at most kMaxPackedBytes; nothing if every sequence is a decode
// step.
int64_t packed_tiles_bytes(const Problem& p, const Tiling& tiling) {
  if (!tiling.share_packed || bounded_rows(p, tiling.group_rows + kDecodeRows) <= kDecodeRows)
    return 0;
  int64_t bytes = saturating_product(p.batch, p.heads_kv, kMaxPackedBytes);
  bytes = saturating_product(bytes, p.seq_kv / tiling.tile_keys + 1, kMaxPackedBytes);
  return saturating_product(bytes, packed_elements(p, tiling) * tiling.packed_element_bytes,
                            kMaxPackedBytes);
}

// Splits never outnumber kDecodeSplits plus one for each pair: see choose_split_keys, block.hpp.
// With batch_invariant that holds for the pairs of each sequence.
int64_t partials_bytes(const Problem& p) {
  const int64_t pairs = bounded_pairs(p);
  const int64_t most =
      p.batch_invariant ? saturating_product(pairs, kDecodeSplits / p.heads_kv + 1, kSaturatedBytes)
                        : kDecodeSplits + pairs;
  const int64_t splits =
      std::min(most, saturating_product(pairs, p.seq_kv / kMinSplitKeys + 1, kSaturatedBytes));
  const int64_t split_bytes =
      bounded_rows(p, kDecodeRows) * partial_floats(p) * static_cast<int64_t>(sizeof(float));
  return saturating_product(splits, split_bytes, kSaturatedBytes);
}

}  // namespace

Tiling bounded_tiling(const Problem& problem, const Target& target) {
  Tiling tiling = target.tiling(problem);
  tiling.max_block_rows = round_up(bounded_rows(problem, tiling.max_block_rows), tiling.group_rows);
  return tiling;
}

Scratch lay_out_scratch(const Problem& problem, const Tiling& tiling, void* memory) {
  Scratch s{};
  s.q_stride = round_up(problem.head_dim, std::max(tiling.head_dim_multiple, kPadFloats));
  s.v_stride = round_up(problem.head_dim_v, std::max(tiling.head_dim_v_multiple, kPadFloats));
  char* const begin = static_cast<char*>(memory);
  const auto take = [&](int64_t bytes) {
    char* taken = begin == nullptr ? nullptr : begin + s.bytes;
    s.bytes += round_up(bytes, kWorkspaceAlignment);
    return taken;
  };
  const auto floats = [&](int64_t count) {
    return reinterpret_cast<float*>(take(count * static_cast<int64_t>(sizeof(float))));
  };
  const auto halves = [&](int64_t count) { return reinterpret_cast<uint16_t*>(take(count * 2)); };
  const int64_t rows = std::max(tiling.max_block_rows, kDecodeRows);
  const int64_t tile_elements = packed_elements(problem, tiling);
  s.q = floats((tiling.bf16_parts == 0 ? rows : kDecodeRows) * s.q_stride);
  s.scores = floats(std::max(tiling.score_rows * tiling.score_keys, kDecodeRows * kDecodeTileKeys));
  s.out = floats(rows * s.v_stride);
  s.packed_tile = take(tile_elements * tiling.packed_element_bytes);
  s.q_parts = halves(tiling.bf16_parts * tiling.max_block_rows * s.q_stride);
  s.weights = halves(tiling.bf16_parts * tiling.group_rows * tiling.tile_keys);
  s.tile_parts = halves(tiling.splits_tiles ? 2 * tile_elements : 0);
  s.k_rows = floats(16 * s.q_stride);
  s.v_rows = halves(tiling.bf16_parts == 0 ? 0 : 2 * s.v_stride);
  const bool has_scales = problem.kv_scale != KvScale::none;
  s.k_scales = floats(has_scales ? tiling.tile_keys : 0);
  s.v_scales = floats(has_scales ? tiling.tile_keys : 0);
  s.zeros = floats(std::max(s.q_stride, s.v_stride));
  s.mask_bias = floats(kPadFloats);
  s.max = floats(rows);
  s.sum = floats(rows * kSumLanes);
  s.sum_before_chunk = floats(tiling.group_rows * kSumLanes);
  s.rescale = floats(rows);
  s.score_offset = floats(rows);
  s.exponent_offset = floats(rows);
  s.rescale_threshold = floats(rows);
  s.mask_rows = reinterpret_cast<const char**>(take(rows * static_cast<int64_t>(sizeof(char*))));
  s.visible = reinterpret_cast<KeyRange*>(take(rows * static_cast<int64_t>(sizeof(KeyRange))));
  return s;
}

Workspace lay_out_workspace(const Problem& problem, const Tiling& tiling, int32_t thread_count) {
  Workspace w{};
  w.scratch_bytes = lay_out_scratch(problem, tiling, nullptr).bytes;
  w.stage_counters = saturating_product(thread_count, w.scratch_bytes, kSaturatedBytes);
  w.partials = w.stage_counters + stages_bytes(kStages, thread_count);
  w.packed_tiles = w.partials + partials_bytes(problem);
  w.packed_tiles_bytes = packed_tiles_bytes(problem, tiling);
  w.pair_counters = w.packed_tiles + w.packed_tiles_bytes;
  const int64_t counter_bytes =
      2 * bounded_pairs(problem) * static_cast<int64_t>(sizeof(std::atomic<int64_t>));
  w.bytes = w.pair_counters + round_up(counter_bytes, kWorkspaceAlignment);
  return w;
}

}  // namespace kernels::cpu
