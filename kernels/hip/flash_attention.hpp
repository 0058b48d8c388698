// kernels/hip/flash_attention.hpp: fused attention: out and lse of a block of queries in one pass
// over the keys
//
// A workgroup takes kRows queries of one head and walks the keys in steps of kKeys. Scores stay in
// registers, and so do weights (but see valu.hpp). Online softmax keeps a reference and a sum for
// each query (FlashAttention, arXiv 2205.14135; the order of the loops is FlashAttention-2's,
// 2307.08691). One step:
//
//   start the copy of V             -> workgroup memory
//   S = Q K^T                       K of this step is there already
//   complete the copy of V, start the copy of the next K
//   softcap, ALiBi, mask, window; online softmax: S -> weights P; O is scaled if a reference rose
//   O += P V
//   complete the copy of K
//
// so that each copy overlaps with a product. Steps that no query of the workgroup sees are skipped.
// Where all queries of a wave see every key of a step, the wave skips the arithmetic of causal and
// window.
#pragma once

#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/query_block.hpp"
#include "kernels/hip/step_mask.hpp"
#include "kernels/hip/stored_keys.hpp"
#include "kernels/hip/tile_shapes.hpp"

namespace kernels::hip {

// One head's first element of a tensor.
template <class Storage>
GPU_DEVICE Storage* head_of(Storage* tensor, const Strides& stride, int32_t batch, int32_t head) {
  return tensor + batch * stride.batch + head * stride.head;
}

// Scales scores and adds to them what only the generic kernel can. key: of the lane's first score.
// shift: the sequence's diagonal_offset.
template <class Tile, class Block, class Mask>
GPU_DEVICE void modify_scores(const AttentionParams& p, const Tile& tile, const Block& block,
                              const Mask& mask, typename Tile::Scores& s, int32_t key,
                              bool all_exist, int64_t shift) {
  if (p.flags & kScaledScores) scale_and_cap<Tile>(p, s);
  if (p.slopes != nullptr) {
    int64_t diagonal[Tile::kSlots];
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      diagonal[slot] = block.query(tile.row(slot)) + p.diagonal + shift;
    }
    const float* slopes = p.slopes + block.batch * p.slope_batch;
    add_alibi<Tile>(
        s, [&](int slot) { return slopes[block.head(tile.row(slot)) * p.slope_head]; }, diagonal,
        key);
  }
  if (p.mask != nullptr) mask.apply(p, tile, s, key, all_exist);
}

// Stores each of a lane's rows of out, and their lse.
template <class Tile, class Block>
GPU_DEVICE void store_rows(const AttentionParams& p, const Tile& tile, const Block& block,
                           const typename Tile::Output& o, const OnlineSoftmax<Tile>& softmax) {
  using Storage = typename Tile::Element::Storage;
  Storage* const out = static_cast<Storage*>(p.out);
  const auto out_row = block.offsets(p.out_stride), lse_row = block.offsets(lse_strides(p));
  // Read here: of a pointer that may be null, AMD's compiler no longer knows that it is global.
  const bool has_sink = p.sinks != nullptr;
  const bool wants_lse = p.lse != nullptr;
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const int r = tile.row(slot);
    const bool exists = r < block.rows;
    float sink = 0;
    if (has_sink) sink = p.sinks[block.head(exists ? r : 0) * p.sink_stride];
    const auto result = softmax.result(tile, slot, p.exp_scale, has_sink, sink, wants_lse);
    tile.store(p, o, slot, result.output_factor, out + out_row(r), exists);
    if (wants_lse && exists && tile.first_key() == 0) p.lse[lse_row(r)] = result.lse;
  }
}

// K and V of a dense problem.
template <class Tile>
struct DenseKeys {
  using Storage = typename Tile::Element::Storage;
  const AttentionParams& p;
  const Storage* k;  // key 0's rows
  const Storage* v;
  static constexpr bool kStored = false;

  // Start the copies of a step of keys from `key` on.
  GPU_DEVICE void issue_keys(typename Tile::KeyCopy& copy, int32_t key) const {
    copy.issue(Tile::kKeyAt, k + key * p.k_stride.row, p.k_stride.row, p.seq_kv - key, p.head_dim);
  }
  GPU_DEVICE void issue_values(typename Tile::ValueCopy& copy, int32_t key) const {
    copy.issue(Tile::kValueAt, v + key * p.v_stride.row, p.v_stride.row, p.seq_kv - key,
               p.head_dim_v);
  }
};

// The main loop over the steps [begin, end) of a block's keys: leaves O and its sums. shift: the
// sequence's diagonal_offset. Keys::kStored: K and V are of 8 bits: see stored_keys.hpp.
template <AttentionTile Tile, Kind kKind, class Block, class Keys>
GPU_DEVICE void attend(const AttentionParams& p, const Tile& tile, const Block& block,
                       const Keys& keys, Range steps, int64_t shift, typename Tile::Output& o,
                       OnlineSoftmax<Tile>& softmax) {
  using Storage = typename Tile::Element::Storage;
  constexpr bool kModifies = kKind == Kind::generic || kKind == Kind::listed;
  constexpr bool kListed = kKind == Kind::listed || kKind == Kind::listed_plain;
  const int32_t wave_row = tile.wave * Tile::kWaveRows;
  const Range wave_first = visible_range(p, block.query(wave_row) + shift),
              wave_last = visible_range(p, block.query(wave_row + Tile::kWaveRows - 1) + shift);
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) Tile::clear(o, slot);
  StepMask<Tile, typename Block::Where> mask;
  if constexpr (kModifies) mask.start(tile, block.offsets(mask_strides(p)), block.rows);

  [[maybe_unused]] ValueScales<Tile> value_scales;  // of kStored
  typename Tile::Query query;
  if (steps.begin < steps.end) {
    typename Tile::KeyCopy key_copy;
    keys.issue_keys(key_copy, steps.begin * Tile::kKeys);
    const RowsOf<Storage, typename Block::Where> q{static_cast<const Storage*>(p.q),
                                                   block.offsets(p.q_stride)};
    tile.load_query(p, q, block.rows, query);
    key_copy.commit(Tile::kKeyAt);
    gpu::barrier();
  }
  for (int32_t step = steps.begin; step < steps.end; ++step) {
    const int32_t key = step * Tile::kKeys, next = key + Tile::kKeys;
    const int32_t lane_key = key + tile.first_key();
    const bool all_exist = next <= p.seq_kv, last_step = step + 1 == steps.end;
    // A wave whose queries see nothing of this step only helps to copy.
    const bool sees = next > wave_first.begin && key < wave_last.end;
    typename Tile::KeyCopy key_copy;
    typename Tile::ValueCopy value_copy;
    typename Tile::Scores s;
    keys.issue_values(value_copy, key);
    if (kModifies && sees && p.mask != nullptr) mask.load(p, tile, lane_key, all_exist);
    if (sees) {
      tile.scores(query, s);
      if constexpr (Keys::kStored) keys.scale_scores(tile, s);  // the next K brings other scales
    } else {
      Tile::leave_undefined(s);
    }
    if constexpr (Tile::kAliased) gpu::barrier();
    value_copy.commit(Tile::kValueAt);
    gpu::barrier();
    if (!last_step) {
      keys.issue_keys(key_copy, next);
    } else {
      key_copy.leave_undefined();
    }
    if (sees) {
      if constexpr (kModifies) modify_scores(p, tile, block, mask, s, lane_key, all_exist, shift);
      if (key < wave_last.begin || next > wave_first.end)
        hide_invisible(p, tile, s, block, lane_key, shift);
      typename Tile::Weights weights;
      if constexpr (Keys::kStored) {
        keys.weigh(tile, s, softmax, value_scales, o, weights);
      } else {
        float row_max[Tile::kSlots];
        if (softmax.exceeds_threshold(tile, p.exp_scale, s, row_max)) {
          GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
            Tile::scale(o, slot, softmax.raise_reference(slot, p.exp_scale, row_max[slot]));
          }
        }
        softmax.weigh(p.exp_scale, s);
        softmax.pack(s, p.lse != nullptr || kListed, weights);
      }
      tile.accumulate(weights, o);
    }
    if (!last_step) {
      if constexpr (Tile::kAliased) gpu::barrier();
      key_copy.commit(Tile::kKeyAt);
      gpu::barrier();
    }
  }
  if constexpr (Keys::kStored) keys.scale_output(value_scales, o);
}

// The block of this workgroup. index: of its head, over all sequences.
template <class Tile, Kind kKind>
GPU_DEVICE QueryBlock query_block(const AttentionParams& p, int32_t index) {
  // Causal: the last queries see most keys, so they come first.
  const int32_t blocks = (p.seq_q + Tile::kRows - 1) / Tile::kRows;
  const int32_t x = static_cast<int32_t>(gpu::block_x());
  const int32_t first_query = (kKind == Kind::nocausal ? x : blocks - 1 - x) * Tile::kRows;
  return {index / p.heads_q, index % p.heads_q, first_query, rows_of_block<Tile>(p, first_query)};
}

template <AttentionTile Tile, Kind kKind>
GPU_DEVICE void flash_attention(const AttentionParams& p) {
  using Storage = typename Tile::Element::Storage;
  const int32_t index = static_cast<int32_t>(gpu::block_y() + gpu::block_z() * kGridY);
  if (index >= p.batch * p.heads_q) return;  // the grid is rounded up
  const QueryBlock block = query_block<Tile, kKind>(p, index);
  const Tile tile;
  const int32_t head_kv = block.head_ / p.heads_per_kv;
  const DenseKeys<Tile> keys{
      p, head_of(static_cast<const Storage*>(p.k), p.k_stride, block.batch, head_kv),
      head_of(static_cast<const Storage*>(p.v), p.v_stride, block.batch, head_kv)};
  // A constant 0 in the other two kernels.
  const int64_t shift = kKind == Kind::generic ? diagonal_offset(p, block.batch) : 0;
  typename Tile::Output o;
  OnlineSoftmax<Tile> softmax;
  attend<Tile, kKind>(p, tile, block, keys, steps_of_block<Tile>(p, block.first_query, shift),
                      shift, o, softmax);
  store_rows(p, tile, block, o, softmax);
}

}  // namespace kernels::hip
