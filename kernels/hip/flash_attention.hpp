// kernels/hip/flash_attention.hpp: Q, K and V into out (and lse) in one pass over the keys: fused attention
//
// A workgroup takes kRows queries of one head and walks the keys in steps of kKeys: scores, weights and the product with V
// stay in registers, with a running maximum and sum (FlashAttention, arXiv 2205.14135; 2307.08691 for the loop order). K and V of the
// next step are fetched while this one is computed. Steps that no query of the workgroup sees are not walked; steps that all
// see whole carry no mask arithmetic.
#pragma once

#include "kernels/hip/online_softmax.hpp"
#include "kernels/hip/tile_shapes.hpp"

namespace kernels::hip {

// Which instantiation: generic takes masks and ALiBi (and causal); the others have no code for them.
enum class Kind { generic, causal, nocausal };

// Where a block of queries stands.
struct Place {
  int32_t batch, head, first_query;
};

// One head's out row and lse of each of a lane's queries, from O, maximum and sum.
template <class Tile, class Output>
GPU_DEVICE void finish(const AttentionParams& p, const Tile& tile, const Place& at, int rows,
                       const Output& o, const float (&max)[Tile::kSlots],
                       const float (&sum)[Tile::kSlots], const float (&exact)[Tile::kSlots]) {
  typename Tile::Element::Storage* out =
      static_cast<typename Tile::Element::Storage*>(p.out) + at.batch * p.out_stride.batch +
      at.head * p.out_stride.head + at.first_query * p.out_stride.row;
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const float total = tile.sum_of_row(sum[slot]);
    const float shift = max[slot] == -gpu::kInfinity ? -gpu::kInfinity
                                                     : max[slot] * p.exp_scale;  // in powers of two
    float kept = 1, sink = 0, top = shift;
    if (p.sinks !=
        nullptr) {  // a key of value zero: joins the denominator, under the larger of the two maxima
      const float power = p.sinks[at.head * p.sink_stride] * 1.4426950408889634F;
      top = gpu::max(shift, power);
      if (top != -gpu::kInfinity) kept = gpu::exp2(shift - top), sink = gpu::exp2(power - top);
    }
    const float denominator = total * kept + sink;
    const int r = tile.row(slot);
    const bool real = r < rows;
    tile.store(p, o, slot, denominator > 0 || denominator != denominator ? kept / denominator : 0,
               out + r * p.out_stride.row, real);
    if (p.lse != nullptr) {
      const float whole =
          Tile::kSumIsOfRounded ? tile.sum_of_row(exact[slot]) * kept + sink : denominator;
      // top is rounded from max * exp_scale, or beyond all numbers; so take max itself.
      const float natural = top == shift && max[slot] != -gpu::kInfinity
                                ? max[slot] * (p.exp_scale * 0.6931471805599453F)
                                : top * 0.6931471805599453F;
      const float lse = whole > 0 || whole != whole
                            ? natural + gpu::log2(whole) * 0.6931471805599453F
                            : -gpu::kInfinity;
      if (real && tile.first_key() == 0) {
        p.lse[at.batch * p.lse_batch + at.head * p.lse_head + (at.first_query + r) * p.lse_row] =
            lse;
      }
    }
  }
}

template <class Tile, Kind kKind>
GPU_DEVICE void flash_attention(const AttentionParams& p) {
  using T = typename Tile::Element;
  const int32_t index = static_cast<int32_t>(gpu::block_y() + gpu::block_z() * kGridY);
  if (index >= p.batch * p.heads_q) return;
  Place at;
  at.batch = index / p.heads_q;
  at.head = index % p.heads_q;
  // Causal: the last queries see most, so they come first.
  const int32_t blocks = (p.seq_q + Tile::kRows - 1) / Tile::kRows;
  const int32_t block = static_cast<int32_t>(gpu::block_x());
  at.first_query = (kKind == Kind::nocausal ? block : blocks - 1 - block) * Tile::kRows;
  const int32_t rows =
      p.seq_q - at.first_query < Tile::kRows ? p.seq_q - at.first_query : Tile::kRows;

  const Tile tile;
  const int32_t head_kv = at.head / p.heads_per_kv;
  const typename T::Storage* q = static_cast<const typename T::Storage*>(p.q) +
                                 at.batch * p.q_stride.batch + at.head * p.q_stride.head +
                                 at.first_query * p.q_stride.row;
  const typename T::Storage* k = static_cast<const typename T::Storage*>(p.k) +
                                 at.batch * p.k_stride.batch + head_kv * p.k_stride.head;
  const typename T::Storage* v = static_cast<const typename T::Storage*>(p.v) +
                                 at.batch * p.v_stride.batch + head_kv * p.v_stride.head;

  // Ranges only move forward with the query: the first and last row bound the block's steps, and those it sees whole.
  const Range first = visible_range(p, at.first_query),
              last = visible_range(p, at.first_query + rows - 1);
  const int32_t step_begin = first.begin / Tile::kKeys;
  const int32_t step_end = (last.end + Tile::kKeys - 1) / Tile::kKeys;
  const int32_t wave_row = at.first_query + tile.wave * Tile::kWaveRows;
  const Range wave_first = visible_range(p, wave_row),
              wave_last = visible_range(p, wave_row + Tile::kWaveRows - 1);
  typename Tile::Output o;
  float max[Tile::kSlots], sum[Tile::kSlots], exact[Tile::kSlots];
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    max[slot] = -gpu::kInfinity, sum[slot] = 0, exact[slot] = 0;
    Tile::clear(o, slot);
  }

  typename Step<Tile>::Mask mask;
  if constexpr (kKind == Kind::generic) {
    Step<Tile>::start(p, tile,
                      at.batch * p.mask_batch + at.head * p.mask_head + at.first_query * p.mask_row,
                      rows, mask);
  }

  typename Tile::Query query;
  if (step_begin < step_end) {
    const int32_t key = step_begin * Tile::kKeys;
    typename Tile::KeyCopy key_copy;
    key_copy.issue(Tile::kKeyAt, k + key * p.k_stride.row, p.k_stride.row, p.seq_kv - key,
                   p.head_dim);
    tile.load_query(p, q, rows, query);
    key_copy.commit(Tile::kKeyAt);
    gpu::barrier();
  }
  for (int32_t step = step_begin; step < step_end; ++step) {
    const int32_t key = step * Tile::kKeys, next = key + Tile::kKeys;
    typename Tile::KeyCopy key_copy;
    typename Tile::ValueCopy value_copy;
    typename Tile::Scores s;
    value_copy.issue(Tile::kValueAt, v + key * p.v_stride.row, p.v_stride.row, p.seq_kv - key,
                     p.head_dim);
    // A wave whose queries see nothing of this step only helps to copy.
    const bool sees = next > wave_first.begin && key < wave_last.end;
    const int32_t mine = key + tile.first_key();
    const bool whole = next <= p.seq_kv;
    if (kKind == Kind::generic && sees && p.mask != nullptr)
      Step<Tile>::load(p, tile, mask, mine, whole);
    if (sees) {
      tile.scores(query, s);
    } else {
      Step<Tile>::forget(s);
    }
    if constexpr (Tile::kAliased) gpu::barrier();
    value_copy.commit(Tile::kValueAt);
    gpu::barrier();
    if (step + 1 < step_end) {
      key_copy.issue(Tile::kKeyAt, k + next * p.k_stride.row, p.k_stride.row, p.seq_kv - next,
                     p.head_dim);
    } else {
      key_copy.forget();
    }
    if (sees) {
      if (p.flags & kScaledScores) Step<Tile>::cap(p, s);
      if constexpr (kKind == Kind::generic) {
        if (p.slopes != nullptr) {
          int64_t diagonal[Tile::kSlots];
          GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
            diagonal[slot] = at.first_query + tile.row(slot) + p.diagonal;
          }
          Step<Tile>::add_alibi(s, p.slopes[at.head * p.slope_stride], diagonal, mine);
        }
        if (p.mask != nullptr) Step<Tile>::apply(p, tile, mask, s, mine, whole);
      }
      if (key < wave_last.begin || next > wave_first.end)
        Step<Tile>::hide(p, tile, s, at.first_query, mine);
      Step<Tile>::weights(tile, p.exp_scale, s, max, sum, exact, o);
      if (Tile::kSumIsOfRounded && p.lse != nullptr) {
        GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
          GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
            GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) exact[slot] += s[slot][t][e];
          }
        }
      }
      typename Tile::Weights weights;
      Tile::pack(s, weights, sum);
      tile.accumulate(weights, o);
    }
    if (step + 1 < step_end) {
      if constexpr (Tile::kAliased) gpu::barrier();
      key_copy.commit(Tile::kKeyAt);
      gpu::barrier();
    }
  }
  finish(p, tile, at, rows, o, max, sum, exact);
}

}  // namespace kernels::hip
