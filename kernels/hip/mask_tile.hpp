// kernels/hip/mask_tile.hpp: the mask tensor's part of one step, in workgroup memory or read from
// global memory key by key
//
// A lane of a wgmma tile holds pairs of keys, 8 apart, so it cannot read a mask in long words.
// Where tensor copies can read the mask, they bring it beside K, in panels of 64 elements of 16
// bits (32 elements if the mask is boolean and a step has 64 keys), swizzled as copy_tile says:
//
//   additive    an element is a key's bias
//   boolean     an element is two keys, a byte each; 0 hides
//
// A mask that is the same for all queries has one row.
#pragma once

#include "kernels/hip/async.hpp"
#include "kernels/hip/dtype.hpp"
#include "kernels/hip/score_modifiers.hpp"

namespace kernels::hip {

template <class Tile>
struct MaskTile {
  using Scores = typename Tile::Scores;
  static constexpr int kKeys = Tile::kKeys;
  static constexpr uint32_t kBytes = Tile::kRows * kKeys * 2;  // of an additive one
  static constexpr uint32_t kPanelBytes = Tile::kRows * 128;   // from one panel to the next
  // Elements of a row of a panel, panels of a step and bytes of a row.
  GPU_DEVICE static constexpr uint32_t columns(bool boolean) {
    static_assert(kKeys == 64 || kKeys == 128);
    return boolean ? kKeys / 2 : 64;
  }
  GPU_DEVICE static constexpr uint32_t panels(bool boolean) { return boolean ? 1 : kKeys / 64; }
  GPU_DEVICE static constexpr uint32_t row_bytes(bool boolean) { return columns(boolean) * 2; }

  // Hides the scores whose bytes are 0. from: where the step's mask begins. rows: kRows, or 1.
  GPU_DEVICE static void hide(const Tile& tile, uint32_t from, uint32_t rows, Scores& s) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const uint32_t row = rows == 1 ? 0 : static_cast<uint32_t>(tile.row(slot));
      const uint32_t at = start<row_bytes(true)>(from, row) + tile.first_key();
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        const uint32_t two =
            gpu::shared_load<uint16_t>((at ^ static_cast<uint32_t>(t / 2 * 16)) + t % 2 * 8);
        if ((two & 0xFF) == 0) Tile::set(s, slot, t, 0, -gpu::kInfinity);
        if ((two & 0xFF00) == 0) Tile::set(s, slot, t, 1, -gpu::kInfinity);
      }
    }
  }
  // Scales scores and adds the biases. A bias of -inf hides the score whatever it is. For finite
  // scores the sum does so; only where one is not finite is each bias compared.
  GPU_DEVICE static void add(const Tile& tile, uint32_t from, uint32_t rows, float scale,
                             Scores& s) {
    const auto add_two = [&](int slot, int t, uint32_t two) {
      const float low = low_half<typename Tile::Element>(two),
                  high = high_half<typename Tile::Element>(two);
      Tile::set(s, slot, t, 0, gpu::fma(Tile::at(s, slot, t, 0), scale, low));
      Tile::set(s, slot, t, 1, gpu::fma(Tile::at(s, slot, t, 1), scale, high));
    };
    if (!are_finite(s)) hide_infinite(tile, from, rows, s);
    each_pair(
        tile, from, rows, [](uint32_t at) { return gpu::shared_load<uint32_t>(at); }, add_two);
  }

  // As hide() and add(), from global memory. row_0: the mask's element at the block's first query
  // and key 0. rows: how many of the block's queries exist; the others read the last one's row.
  // key: of the lane's first score.
  template <class M>
  GPU_DEVICE static void read(const AttentionParams& p, const Tile& tile, int64_t row_0,
                              int32_t rows, int32_t key, Scores& s) {
    const auto* mask = static_cast<const typename M::Storage*>(p.mask) + row_0;
    each_key(p, tile, rows, key, [&](int slot, int t, int e, int64_t at) {
      add_bias(s, slot, t, e, p.mask_scale, to_float(M{}, mask[at]));
    });
  }
  GPU_DEVICE static void read_boolean(const AttentionParams& p, const Tile& tile, int64_t row_0,
                                      int32_t rows, int32_t key, Scores& s) {
    const auto* mask = static_cast<const uint8_t*>(p.mask) + row_0;
    each_key(p, tile, rows, key, [&](int slot, int t, int e, int64_t at) {
      if (mask[at] == 0) Tile::set(s, slot, t, e, -gpu::kInfinity);
    });
  }

 private:
  // Returns where the first 16-byte chunk of a row lies in a swizzled panel. xor with 16 n gives
  // chunk n.
  template <uint32_t kRowBytes>
  GPU_DEVICE static uint32_t start(uint32_t panel, uint32_t row) {
    const uint32_t at = row * kRowBytes;
    return panel + (at ^ (at / 128 % (kRowBytes / 16)) * 16);
  }
  // Hides the scores whose biases are -inf.
  GPU_DEVICE static void hide_infinite(const Tile& tile, uint32_t from, uint32_t rows, Scores& s) {
    each_pair(tile, from, rows, gpu::shared_load_again, [&](int slot, int t, uint32_t two) {
      if (low_half<typename Tile::Element>(two) == -gpu::kInfinity)
        Tile::set(s, slot, t, 0, -gpu::kInfinity);
      if (high_half<typename Tile::Element>(two) == -gpu::kInfinity)
        Tile::set(s, slot, t, 1, -gpu::kInfinity);
    });
  }
  // Calls f(slot, t, two biases) for each pair of scores of an additive mask's step, by load(where
  // they are).
  template <class Load, class F>
  GPU_DEVICE static void each_pair(const Tile& tile, uint32_t from, uint32_t rows, const Load& load,
                                   const F& f) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const uint32_t row = rows == 1 ? 0 : static_cast<uint32_t>(tile.row(slot));
      const uint32_t at = start<row_bytes(false)>(from, row) + tile.first_key() * 2;
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        const uint32_t panel = static_cast<uint32_t>(t / 8) * kPanelBytes;
        f(slot, t, load((at ^ static_cast<uint32_t>(t % 8 * 16)) + panel));
      }
    }
  }
  // Whether all scores of the wave are finite, by sums of products of two of them. Where these
  // overflow, the answer is false, too.
  GPU_DEVICE static bool are_finite(const Scores& s) {
    float sum[4] = {};
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        float& part = sum[(t * Tile::kSlots + slot) % 4];
        part = gpu::fma(Tile::at(s, slot, t, 0), Tile::at(s, slot, t, 1), part);
      }
    }
    const float all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    return !gpu::any<Tile::kWave>(!(gpu::absolute(all) < gpu::kInfinity));
  }
  // A bias of -inf hides the score whatever it is, so that NaN in its key stays unseen.
  GPU_DEVICE static void add_bias(Scores& s, int slot, int t, int e, float scale, float bias) {
    const float sum = gpu::fma(Tile::at(s, slot, t, e), scale, bias);
    Tile::set(s, slot, t, e, bias == -gpu::kInfinity ? -gpu::kInfinity : sum);
  }
  // Calls f(slot, t, e, the mask's element from row_0 on) for each score whose key exists.
  template <class F>
  GPU_DEVICE static void each_key(const AttentionParams& p, const Tile& tile, int32_t rows,
                                  int32_t key, const F& f) {
    GPU_UNROLL for (int slot = 0; slot < Tile::kSlots; ++slot) {
      const int r = tile.row(slot);
      const int64_t row = (r < rows ? r : rows - 1) * p.mask_row;
      GPU_UNROLL for (int t = 0; t < Tile::kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          const int32_t k = key + Tile::key_offset(t, e);
          if (k < p.seq_kv) f(slot, t, e, row + k * p.mask_key);
        }
      }
    }
  }
};

}  // namespace kernels::hip
