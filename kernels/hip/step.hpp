// kernels/hip/step.hpp: one step's scores into softmax weights: masks, bias, running maximum and sum
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

// The running maximum is only raised when a score exceeds it by more than this many powers of two: weights stay below 2^8,
// and O is almost never rescaled (FlashAttention-4's rule; the final result is exact, since O and the sum share it).
inline constexpr float kHeadroom = 8;
// From here on (in powers of two) score * factor - max * factor would lose what separates them; see weights().
inline constexpr float kHuge = 128;

template <class Tile>
struct Step {
  using Scores = typename Tile::Scores;
  static constexpr int kSlots = Tile::kSlots;

  // Hides what lies outside each query's range. key: of the lane's first score.
  GPU_DEVICE static void hide(const AttentionParams& p, const Tile& tile, Scores& s, int first_query, int key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const Range range = visible_range(p, first_query + tile.row(slot));
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
    if (p.softcap != 0) {
      each(s, [&](float x) { return p.softcap * gpu::tanh(x * p.score_scale); });
    } else {
      each(s, [&](float x) { return x * p.score_scale; });
    }
  }
  template <class F>
  GPU_DEVICE static void each(Scores& s, const F& f) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < Tile::kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < Tile::kElements; ++e) s[slot][t][e] = f(s[slot][t][e]);
      }
    }
  }

  GPU_DEVICE static void add_alibi(Scores& s, float slope, const int64_t (&diagonal)[kSlots], int64_t key) {
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

  // The mask of a step: a lane's keys side by side, read in 16-byte words where the mask's rows allow it. load() starts the
  // reads, where the tile has registers for them, so that they pass while scores are computed; apply() hides or adds.
  struct Mask {
    static constexpr int kHeld = Tile::kHoldMask ? Tile::kRun * 2 / 16 : 1;
    gpu::Bits128 bits[kSlots][kHeld];
    int64_t row[kSlots];  // of each query, in elements
  };

  GPU_DEVICE static bool reads_words(const AttentionParams& p, int key) {
    return (p.flags & kMaskVector) && key + Tile::kRun <= p.seq_kv;
  }

  GPU_DEVICE static void load(const AttentionParams& p, Mask& mask, int key) {
    if constexpr (Tile::kHoldMask) {
      if (!reads_words(p, key) || (p.flags & kMaskF32)) return;
      if (p.flags & kBooleanMask) {
        hold<1>(p, mask, key);
      } else {
        hold<2>(p, mask, key);
      }
    }
  }
  template <int kBytes>
  GPU_DEVICE static void hold(const AttentionParams& p, Mask& mask, int key) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const char* from = static_cast<const char*>(p.mask) + (mask.row[slot] + key) * kBytes;
      if constexpr (Tile::kRun * kBytes % 16 == 0) {
        GPU_UNROLL for (int i = 0; i < Tile::kRun * kBytes / 16; ++i) mask.bits[slot][i] = gpu::load128(from + i * 16);
      } else {
        GPU_UNROLL for (int i = 0; i < Tile::kRun * kBytes / 4; ++i) {
          mask.bits[slot][0].word[i] = reinterpret_cast<const uint32_t*>(from)[i];
        }
      }
    }
  }

  GPU_DEVICE static void apply(const AttentionParams& p, const Mask& mask, Scores& s, int key) {
    if (p.flags & kBooleanMask) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) apply_boolean(p, mask, s, slot, key);
    } else if (p.flags & kMaskF32) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) apply_additive<F32>(p, mask, s, slot, key);
    } else if constexpr (Tile::Element::kBytes == 2) {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        apply_additive<typename Tile::Element>(p, mask, s, slot, key);
      }
    }
  }

  GPU_DEVICE static void apply_boolean(const AttentionParams& p, const Mask& mask, Scores& s, int slot, int key) {
    const uint8_t* row = static_cast<const uint8_t*>(p.mask) + mask.row[slot];
    const auto show = [&](int at, bool visible) {
      if (!visible) s[slot][at / Tile::kElements][at % Tile::kElements] = -gpu::kInfinity;
    };
    constexpr int kBytes = Tile::kRun < 16 ? Tile::kRun : 16;  // of a read
    if (kBytes >= 4 && reads_words(p, key)) {
      GPU_UNROLL for (int from = 0; from < Tile::kRun; from += kBytes) {
        gpu::Bits128 bits{};
        if constexpr (Tile::kHoldMask) {
          bits = mask.bits[slot][from / 16];
        } else if constexpr (kBytes == 16) {
          bits = gpu::load128(row + key + from);
        } else {
          GPU_UNROLL for (int i = 0; i < kBytes / 4; ++i) {
            bits.word[i] = reinterpret_cast<const uint32_t*>(row + key + from)[i];
          }
        }
        GPU_UNROLL for (int i = 0; i < kBytes; ++i) show(from + i, (bits.word[i / 4] & (0xFFu << i % 4 * 8)) != 0);
      }
      return;
    }
    GPU_UNROLL for (int at = 0; at < Tile::kRun; ++at) {
      if (key + at < p.seq_kv) show(at, row[(key + at) * p.mask_key] != 0);
    }
  }

  template <class M>
  GPU_DEVICE static void apply_additive(const AttentionParams& p, const Mask& mask, Scores& s, int slot, int key) {
    const typename M::Storage* row = static_cast<const typename M::Storage*>(p.mask) + mask.row[slot];
    // What the mask hides is hidden whatever the score is, so that a NaN in its key stays unseen.
    const auto add = [&](int at, float bias) {
      const float sum = gpu::fma(s[slot][at / Tile::kElements][at % Tile::kElements], p.mask_scale, bias);
      s[slot][at / Tile::kElements][at % Tile::kElements] = bias == -gpu::kInfinity ? -gpu::kInfinity : sum;
    };
    constexpr int kWide = 16 / M::kBytes;
    if constexpr (Tile::kRun % kWide == 0) {
      if (reads_words(p, key)) {
        GPU_UNROLL for (int from = 0; from < Tile::kRun; from += kWide) {
          gpu::Bits128 bits;
          if constexpr (Tile::kHoldMask && M::kBytes == 2) {
            bits = mask.bits[slot][from / 8];
          } else {
            bits = gpu::load128(row + key + from);
          }
          GPU_UNROLL for (int i = 0; i < kWide; ++i) {
            if constexpr (M::kBytes == 4) {
              add(from + i, __builtin_bit_cast(float, bits.word[i]));
            } else {
              add(from + i, i % 2 == 0 ? low_half<M>(bits.word[i / 2]) : high_half<M>(bits.word[i / 2]));
            }
          }
        }
        return;
      }
    }
    GPU_UNROLL for (int at = 0; at < Tile::kRun; ++at) {
      if (key + at < p.seq_kv) add(at, to_float(M{}, row[(key + at) * p.mask_key]));
    }
  }

  // Scores into weights 2^((s - max) * factor). Raises max where it must, and scales O and sum by what that costs.
  template <class Output>
  GPU_DEVICE static void weights(const Tile& tile, float factor, Scores& s, float (&max)[kSlots], float (&sum)[kSlots],
                                 float (&exact)[kSlots], Output& o) {
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
