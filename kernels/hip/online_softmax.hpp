// kernels/hip/online_softmax.hpp: one step's scores into softmax weights: masks, bias, running maximum and sum
//
// Every tile gives each lane kSlots queries and, of each, kRun keys side by side; what follows is written once for all.
#pragma once

#include "kernels/hip/dtype.hpp"
#include "kernels/hip/params.hpp"

namespace kernels::hip {

// The keys that exist and that causal and window leave to a query: [begin, end).
struct Range {
  int32_t begin, end;
};

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

// The running maximum is only raised when a score exceeds it by more than this many powers of two: weights stay below
// 2^8, and O is almost never rescaled (FlashAttention-4's rule; the final result is exact, since O and the sum share
// it).
inline constexpr float kHeadroom = 8;
// From here on (in powers of two) score * factor - max * factor would lose what separates them; see weights().
inline constexpr float kHuge = 128;

template <class Tile>
struct Step {
  using Scores = typename Tile::Scores;
  static constexpr int kSlots = Tile::kSlots;

  GPU_DEVICE static void forget(Scores& s) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) gpu::forget<Tile::kElements>(s[slot][t]);
    }
  }

  // Hides what lies outside each query's range. key: of the lane's first score.
  GPU_DEVICE static void hide(const AttentionParams& p, const Tile& tile, Scores& s,
                              int first_query, int key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const Range range = visible_range(p, first_query + gpu::recomputed(tile.row(slot)));
      const int begin = range.begin - key, end = range.end - key;
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          const int i = t * Tile::kElements + e;
          if (i < begin || i >= end) s[slot][t][e] = -gpu::kInfinity;
        }
      }
    }
  }

  // Scale, and softcap where there is one, in place: scores become what a bias is added to.
  GPU_DEVICE static void cap(const AttentionParams& p, Scores& s) {
    each(s, [&](float x) { return x * p.score_scale; });
    if (p.softcap != 0) each(s, [&](float x) { return p.softcap * gpu::tanh(x); });
  }
  template <class F>
  GPU_DEVICE static void each(Scores& s, const F& f) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) s[slot][t][e] = f(s[slot][t][e]);
      }
    }
  }

  GPU_DEVICE static void add_alibi(Scores& s, float slope, const int64_t (&diagonal)[kSlots],
                                   int64_t key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const int32_t from = static_cast<int32_t>(diagonal[slot] - key);
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          const int32_t distance = from - (t * Tile::kElements + e);
          s[slot][t][e] -= slope * static_cast<float>(distance < 0 ? -distance : distance);
        }
      }
    }
  }

  // The mask of a step: a lane's keys side by side, read in 16-byte words where the mask's rows allow it. load() starts
  // the reads, where the tile has registers for them, so that they pass while scores are computed; apply() hides or
  // adds.
  struct Mask {
    static constexpr int kHeld = Tile::kHoldMask ? Tile::kRun * 2 / 16 : 1;
    gpu::Bits128 bits[kSlots][kHeld];
    int64_t row[kSlots];  // each query's first element, kept where there are registers for it
    int64_t first;        // element of the workgroup's first query
    int32_t rows;         // of the workgroup's queries, how many exist
  };
  GPU_DEVICE static void start(const AttentionParams& p, const Tile& tile, int64_t first,
                               int32_t rows, Mask& mask) {
    mask.first = first, mask.rows = rows;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) mask.row[slot] =
        row_at(p, mask, tile.row(slot));
  }
  GPU_DEVICE static int64_t row_of(const AttentionParams& p, const Tile& tile, const Mask& mask,
                                   int slot) {
    return Tile::kHoldMask ? mask.row[slot] : row_at(p, mask, gpu::recomputed(tile.row(slot)));
  }
  GPU_DEVICE static int64_t row_at(const AttentionParams& p, const Mask& mask, int32_t r) {
    return mask.first + (r < mask.rows ? r : mask.rows - 1) * p.mask_row;
  }

  // whole: all keys of the step exist. (The same in all lanes: else both ways of reading would be walked.)
  GPU_DEVICE static bool reads_words(const AttentionParams& p, bool whole) {
    return (p.flags & kMaskVector) && whole;
  }

  GPU_DEVICE static void load(const AttentionParams& p, const Tile& tile, Mask& mask, int key,
                              bool whole) {
    if constexpr (Tile::kHoldMask) {
      if (!reads_words(p, whole) || (p.flags & kMaskF32)) return;
      if (p.flags & kBooleanMask) {
        hold<1>(p, tile, mask, key);
      } else {
        hold<2>(p, tile, mask, key);
      }
    }
  }
  template <int kBytes>
  GPU_DEVICE static void hold(const AttentionParams& p, const Tile& tile, Mask& mask, int key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const char* from =
          static_cast<const char*>(p.mask) + (row_of(p, tile, mask, slot) + key) * kBytes;
      GPU_UNROLL for (int i = 0; i * 16 < Tile::kRun * kBytes; ++i) mask.bits[slot][i] =
          piece<kBytes>(from, i);
    }
  }
  // The i-th piece of a lane's keys in one row of the mask: 16 bytes, or all there are.
  template <int kBytes>
  GPU_DEVICE static gpu::Bits128 piece(const char* from, int i) {
    constexpr int kAll = Tile::kRun * kBytes;
    static_assert(kAll % 16 == 0 || kAll == 8 || kAll == 4 || kAll == 2);
    if constexpr (kAll % 16 == 0) {
      return gpu::load128(from + i * 16);
    } else if constexpr (kAll == 2) {
      return {{*reinterpret_cast<const uint16_t*>(from)}};
    } else {
      gpu::Bits128 bits{};
      GPU_UNROLL for (int w = 0; w < kAll / 4; ++w) bits.word[w] =
          reinterpret_cast<const uint32_t*>(from)[w];
      return bits;
    }
  }

  // One after another and none else: AMD's compiler would keep the scores before and after of every if that has an
  // else.
  GPU_DEVICE static void apply(const AttentionParams& p, const Tile& tile, const Mask& mask,
                               Scores& s, int key, bool whole) {
    const uint32_t kind = p.flags & (kBooleanMask | kMaskF32),
                   flags = reads_words(p, whole) ? kind | kMaskVector : kind;
    const auto words = [&](uint32_t of) { return gpu::scalar(flags) == (of | kMaskVector); };
    const auto keys = [&](uint32_t of) { return gpu::scalar(flags) == of; };
    const auto slots = [&](const auto& f) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) f(slot, row_of(p, tile, mask, slot));
    };
    if (words(kBooleanMask))
      slots([&](int slot, int64_t row) { hide_words(p, mask, s, slot, row + key); });
    if (keys(kBooleanMask)) slots([&](int slot, int64_t row) { hide_each(p, s, slot, row, key); });
    if (words(kMaskF32))
      slots([&](int slot, int64_t row) { add_words<F32>(p, mask, s, slot, row + key); });
    if (keys(kMaskF32)) slots([&](int slot, int64_t row) { add_each<F32>(p, s, slot, row, key); });
    if constexpr (Tile::Element::kBytes == 2) {
      using M = typename Tile::Element;
      if (words(0))
        slots([&](int slot, int64_t row) { add_words<M>(p, mask, s, slot, row + key); });
      if (keys(0)) slots([&](int slot, int64_t row) { add_each<M>(p, s, slot, row, key); });
    }
  }

  GPU_DEVICE static void show(Scores& s, int slot, int at, bool visible) {
    if (!visible) s[slot][at / Tile::kElements][at % Tile::kElements] = -gpu::kInfinity;
  }
  // What the mask hides is hidden whatever the score is, so that a NaN in its key stays unseen.
  GPU_DEVICE static void add(const AttentionParams& p, Scores& s, int slot, int at, float bias) {
    const float sum =
        gpu::fma(s[slot][at / Tile::kElements][at % Tile::kElements], p.mask_scale, bias);
    s[slot][at / Tile::kElements][at % Tile::kElements] =
        bias == -gpu::kInfinity ? -gpu::kInfinity : sum;
  }

  template <int kBytes>
  GPU_DEVICE static gpu::Bits128 held(const Mask& mask, int slot, const char* from, int i) {
    if constexpr (Tile::kHoldMask && kBytes <= 2) {
      return mask.bits[slot][i];
    } else {
      return piece<kBytes>(from, i);
    }
  }
  GPU_DEVICE static void hide_words(const AttentionParams& p, const Mask& mask, Scores& s, int slot,
                                    int64_t first) {
    const char* from = static_cast<const char*>(p.mask) + first;
    gpu::Bits128 bits;
    GPU_UNROLL for (int at = 0; at < Tile::kRun; ++at) {
      if (at % 16 == 0) bits = held<1>(mask, slot, from, at / 16);
      show(s, slot, at, (bits.word[at % 16 / 4] & (0xFFu << at % 4 * 8)) != 0);
    }
  }
  template <class M>
  GPU_DEVICE static void add_words(const AttentionParams& p, const Mask& mask, Scores& s, int slot,
                                   int64_t first) {
    constexpr int kWide = 16 / M::kBytes;
    const char* from = static_cast<const char*>(p.mask) + first * M::kBytes;
    gpu::Bits128 bits;
    GPU_UNROLL for (int at = 0; at < Tile::kRun; ++at) {
      if (at % kWide == 0) bits = held<M::kBytes>(mask, slot, from, at / kWide);
      const int i = at % kWide;
      if constexpr (M::kBytes == 4) {
        add(p, s, slot, at, __builtin_bit_cast(float, bits.word[i]));
      } else {
        add(p, s, slot, at,
            i % 2 == 0 ? low_half<M>(bits.word[i / 2]) : high_half<M>(bits.word[i / 2]));
      }
    }
  }

  // A key at a time. Where registers are short, no lane goes its own way: instead of a key past the last one, whose score
  // hide() overwrites, the last one is read.
  static constexpr int kReads = 4;  // under way at once
  template <class F>
  GPU_DEVICE static void each_key(const AttentionParams& p, int key, const F& f) {
    GPU_UNROLL for (int at = 0; at < Tile::kRun; ++at) {
      if constexpr (Tile::kHoldMask) {
        if (key + at < p.seq_kv) f(at, (key + at) * p.mask_key);
      } else {
        if (at % kReads == 0) gpu::schedule_fence();
        f(at, (key + at < p.seq_kv ? key + at : p.seq_kv - 1) * p.mask_key);
      }
    }
  }
  GPU_DEVICE static void hide_each(const AttentionParams& p, Scores& s, int slot, int64_t row,
                                   int key) {
    const uint8_t* from = static_cast<const uint8_t*>(p.mask) + row;
    each_key(p, key, [&](int at, int64_t element) { show(s, slot, at, from[element] != 0); });
  }
  template <class M>
  GPU_DEVICE static void add_each(const AttentionParams& p, Scores& s, int slot, int64_t row,
                                  int key) {
    const typename M::Storage* from = static_cast<const typename M::Storage*>(p.mask) + row;
    each_key(p, key,
             [&](int at, int64_t element) { add(p, s, slot, at, to_float(M{}, from[element])); });
  }

  // Scores into weights 2^((s - max) * factor). Raises max where it must, and scales O and sum by what that costs.
  template <class Output>
  GPU_DEVICE static void weights(const Tile& tile, float factor, Scores& s, float (&max)[kSlots],
                                 float (&sum)[kSlots], float (&exact)[kSlots], Output& o) {
    float top[kSlots];
    bool raise = false, huge = false;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      float m = s[slot][0][0];
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) m = gpu::max(m, s[slot][t][e]);
      }
      top[slot] = tile.max_of_row(m);
      raise |= (top[slot] - max[slot]) * factor > kHeadroom;
    }
    if (gpu::any<Tile::kWave>(raise)) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const float raised = gpu::max(max[slot], top[slot]);
        const float kept = raised == -gpu::kInfinity ? 1 : gpu::exp2((max[slot] - raised) * factor);
        max[slot] = raised;
        sum[slot] *= kept, exact[slot] *= kept;
        Tile::scale(o, slot, kept);
      }
    }
    float shift[kSlots];
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      shift[slot] = max[slot] == -gpu::kInfinity ? 0 : max[slot] * factor;
      huge |= !(gpu::absolute(shift[slot]) <= kHuge);
    }
    if (gpu::any<Tile::kWave>(huge)) {
      // s * factor - shift would be off by half an ulp of shift, for every key of the row: subtract first.
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const float m = max[slot] == -gpu::kInfinity ? 0 : max[slot];
        GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
          GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) s[slot][t][e] -= m;
        }
        shift[slot] = 0;
      }
    }
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) {
          s[slot][t][e] = gpu::exp2(gpu::fma(s[slot][t][e], factor, -shift[slot]));
        }
      }
    }
  }
};

}  // namespace kernels::hip
