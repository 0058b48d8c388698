// kernels/hip/mask_bits.hpp: a boolean mask's part of one step, as bits in workgroup memory
//
// A lane of a wgmma tile holds pairs of keys, 8 apart, so it cannot read a mask in long words. So
// other threads read the mask ahead of it, in runs of 32 keys, and keep one bit for each key:
//
//   row 0   word 0: keys 0-31 of the step, lowest bit first | word 1: keys 32-63 | ...
//   row 1   ...
#pragma once

#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

// REQUIRES: the mask is boolean.
template <class Tile>
struct MaskBits {
  static constexpr int kWords = (Tile::kKeys + 31) / 32;  // of a row
  static constexpr uint32_t kBytes = Tile::kRows * kWords * 4;

  // Writes the bits of the step that begins at `key`. row_0: the mask's element at the block's
  // first query and key 0. rows: how many of the block's queries exist; the others repeat the last
  // one. thread, threads: the calling thread's number among those that share the work.
  GPU_DEVICE static void fill(const AttentionParams& p, uint32_t to, int64_t row_0, int32_t rows,
                              int32_t key, int thread, int threads) {
    const uint8_t* mask = static_cast<const uint8_t*>(p.mask) + row_0;
    for (int i = thread; i < Tile::kRows * kWords; i += threads) {
      const int r = i / kWords, first = key + i % kWords * 32;
      const uint8_t* row = mask + (r < rows ? r : rows - 1) * p.mask_row;
      gpu::shared_store(to + static_cast<uint32_t>(i) * 4, read(p, row, first));
    }
  }

  // Hides the scores of the lane's rows whose bits are 0.
  GPU_DEVICE static void apply(const Tile& tile, uint32_t from, typename Tile::Scores& s) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const uint32_t row = from + static_cast<uint32_t>(tile.row(slot) * kWords) * 4;
      GPU_UNROLL for (int w = 0; w < kWords; ++w) {
        const uint32_t bits = gpu::shared_load<uint32_t>(row + w * 4) >> tile.first_key();
        GPU_UNROLL for (int t = w * 4; t < w * 4 + 4 && t < Tile::kScoreTiles; ++t) {
          GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
            if (!(bits >> (Tile::key_offset(t, e) - w * 32) & 1))
              Tile::set(s, slot, t, e, -gpu::kInfinity);
          }
        }
      }
    }
  }

 private:
  // RETURNS the bits of keys [first, first + 32) of a row; keys that do not exist are 0.
  GPU_DEVICE static uint32_t read(const AttentionParams& p, const uint8_t* row, int32_t first) {
    uint32_t bits = 0;
    if ((p.flags & kMaskVector) && first + 32 <= p.seq_kv) {
      GPU_UNROLL for (int half = 0; half < 2; ++half) {
        const gpu::Bits128 bytes = gpu::load128(row + first + half * 16);
        GPU_UNROLL for (int w = 0; w < 4; ++w) bits |= low_bits(bytes.word[w])
                                                       << (half * 16 + w * 4);
      }
      return bits;
    }
    for (int n = 0; n < 32 && first + n < p.seq_kv; ++n) {
      if (row[(first + n) * p.mask_key] != 0) bits |= 1u << n;
    }
    return bits;
  }
  // RETURNS bit i set if byte i of the word is not 0.
  GPU_DEVICE static uint32_t low_bits(uint32_t word) {
    const uint32_t high = ((word & 0x7F7F7F7Fu) + 0x7F7F7F7Fu) | word;  // bit 7 of each byte
    return (high >> 7 & 0x01010101u) * 0x01020408u >> 24 & 0xF;
  }
};

}  // namespace kernels::hip
