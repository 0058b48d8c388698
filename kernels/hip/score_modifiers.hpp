// kernels/hip/score_modifiers.hpp: scale, softcap, ALiBi, mask, causal and window, applied to one
// step's scores
//
// In the order in which the GPU kernels apply them. (kernels/reference adds the mask before ALiBi,
// which makes a difference only in rounding.)
//
//   s = q.k * scale                            (left to the softmax where it can be)
//   s = softcap * tanh(s / softcap)
//   s = s - slope * |diagonal - key|           diagonal: the key opposite the query
//   s = s + mask                               -inf: hidden; a boolean mask: false is hidden
//   s = -inf                                   where causal, the window or the end of K hides it
//
// A hidden score becomes -inf whatever it was, so that NaN in a hidden key of K reaches no result.
#pragma once

#include "kernels/hip/tile/tile.hpp"

namespace kernels::hip {

// Keys [begin, end).
struct Range {
  int32_t begin, end;
};

// The keys that exist and that causal and window leave to a query. Neither end decreases with the
// query.
GPU_DEVICE Range visible_range(const AttentionParams& p, int64_t query) {
  const int64_t diagonal = query + p.diagonal;
  const int64_t begin = diagonal - p.window_left, last = diagonal + p.window_right;
  return {static_cast<int32_t>(begin < 0          ? 0
                               : begin > p.seq_kv ? p.seq_kv
                                                  : begin),
          static_cast<int32_t>(last < 0           ? 0
                               : last >= p.seq_kv ? p.seq_kv
                                                  : last + 1)};
}

// How many of a block's kRows queries exist.
template <class Tile>
GPU_DEVICE int32_t rows_of_block(const AttentionParams& p, int32_t first_query) {
  return p.seq_q - first_query < Tile::kRows ? p.seq_q - first_query : Tile::kRows;
}

// Returns what a sequence's diagonal_offset adds to its diagonal. An offset beyond 2^30 counts as
// 2^30, so that distances from the diagonal fit 32 bits.
GPU_DEVICE int64_t diagonal_offset(const AttentionParams& p, int32_t batch) {
  if (p.diagonal_offsets == nullptr) return 0;
  constexpr int32_t kLargest = 1 << 30;
  const int32_t offset = gpu::global(p.diagonal_offsets)[batch];
  return offset < -kLargest ? -kLargest : offset > kLargest ? kLargest : offset;
}

// The steps of keys, [begin, end), that some query of a block sees. The block's first and last
// query give the two ends, since a visible range only moves forward from query to query. shift: the
// sequence's diagonal_offset.
template <class Tile>
GPU_DEVICE Range steps_of_block(const AttentionParams& p, int32_t first_query, int64_t shift = 0) {
  const int32_t rows = rows_of_block<Tile>(p, first_query);
  const Range first = visible_range(p, first_query + shift),
              last = visible_range(p, first_query + rows - 1 + shift);
  return {first.begin / Tile::kKeys, (last.end + Tile::kKeys - 1) / Tile::kKeys};
}

// Replaces each of a lane's scores by f(score).
template <ScoreLayout Tile, class F>
GPU_DEVICE void transform_scores(typename Tile::Scores& s, const F& f) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
        Tile::set(s, slot, t, e, f(Tile::at(s, slot, t, e)));
      }
    }
  }
}

// Scales scores, and caps them if there is a softcap. REQUIRES: kScaledScores.
template <ScoreLayout Tile>
GPU_DEVICE void scale_and_cap(const AttentionParams& p, typename Tile::Scores& s) {
  transform_scores<Tile>(s, [&](float x) { return x * p.score_scale; });
  if (p.softcap != 0) transform_scores<Tile>(s, [&](float x) { return p.softcap * gpu::tanh(x); });
}

// Subtracts slope * distance from the diagonal. slope(slot): of the slot's head; key: of the lane's
// first score.
template <ScoreLayout Tile, class Slope>
GPU_DEVICE void add_alibi(typename Tile::Scores& s, const Slope& slope,
                          const int64_t (&diagonal)[Tile::kSlots], int64_t key) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const int32_t from = static_cast<int32_t>(diagonal[slot] - key);
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
        const int32_t distance = from - Tile::key_offset(t, e);
        Tile::set(s, slot, t, e,
                  Tile::at(s, slot, t, e) -
                      slope(slot) * static_cast<float>(distance < 0 ? -distance : distance));
      }
    }
  }
}

// Hides the keys outside each query's visible range. block.query(r): the query of row r; key: of
// the lane's first score; shift: the sequence's diagonal_offset.
template <ScoreLayout Tile, class Block>
GPU_DEVICE void hide_invisible(const AttentionParams& p, const Tile& tile, typename Tile::Scores& s,
                               const Block& block, int key, int64_t shift) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const Range range = visible_range(p, block.query(gpu::recomputed(tile.row(slot))) + shift);
    const int begin = range.begin - key, end = range.end - key;
    GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
      GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
        const int i = Tile::key_offset(t, e);
        if (i < begin || i >= end) Tile::set(s, slot, t, e, -gpu::kInfinity);
      }
    }
  }
}

}  // namespace kernels::hip
