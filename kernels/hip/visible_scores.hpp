// kernels/hip/visible_scores.hpp: which of a lane's scores are visible, a bit for each, and how the
// others are hidden
//
// For tiles whose lanes hold pairs of keys, 8 apart (wgmma). Score i of a slot, tile i / 2's
// element i % 2, is bit i % 32 of word i / 32. NVIDIA's compiler takes seven bits at once into
// predicates (R2P), so that a score costs little more than one select.
#pragma once

#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

template <class Tile>
struct VisibleScores {
  static constexpr int kCount = Tile::kScoreTiles * 2, kWords = (kCount + 31) / 32;
  static_assert(Tile::kElements == 2);
  uint32_t word[kWords];  // of one slot

  // Returns those whose keys are in [begin, end), from the lane's first one on.
  GPU_DEVICE static VisibleScores between(int32_t begin, int32_t end) {
    const int32_t from = before(begin), to = before(end);
    VisibleScores visible;
    GPU_UNROLL for (int w = 0; w < kWords; ++w) {
      visible.word[w] = ones(to - w * 32) & ~ones(from - w * 32);
    }
    return visible;
  }

  // Hides the slot's other scores.
  GPU_DEVICE void hide_others(typename Tile::Scores& s, int slot) const {
    GPU_UNROLL for (int i = 0; i < kCount; ++i) {
      if ((word[i / 32] >> i % 32 & 1) == 0) Tile::set(s, slot, i / 2, i % 2, -gpu::kInfinity);
    }
  }

 private:
  // Returns how many scores have keys before `key`.
  GPU_DEVICE static int32_t before(int32_t key) {
    static_assert(Tile::key_offset(1, 1) == 9);
    const int32_t k = key < 0 ? 0 : key, within = k % 8;
    return k / 8 * 2 + (within < 2 ? within : 2);
  }
  // Returns the word's bits below `count`.
  GPU_DEVICE static uint32_t ones(int32_t count) {
    return count <= 0 ? 0 : count >= 32 ? ~0u : (1u << count) - 1;
  }
};

// As hide_invisible() of score_modifiers.hpp.
template <class Tile, class Block>
GPU_DEVICE void hide_invisible_by_bits(const AttentionParams& p, const Tile& tile,
                                       typename Tile::Scores& s, const Block& block, int key,
                                       int64_t shift) {
  GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
    const Range range = visible_range(p, block.query(gpu::recomputed(tile.row(slot))) + shift);
    VisibleScores<Tile>::between(range.begin - key, range.end - key).hide_others(s, slot);
  }
}

}  // namespace kernels::hip
