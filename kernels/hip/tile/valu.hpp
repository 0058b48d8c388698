// kernels/hip/tile/valu.hpp: the tile for plain multiply-adds: f32 everywhere, and every dtype on
// GPUs without matrix instructions
//
//   S = Q K^T        O = P V        by fma in f32; Q, K and V are read from workgroup memory
//
// A wave is a grid of lanes, 8 wide (x) and kLanesY high (y):
//
//                keys 0..kRun-1   kRun..2 kRun-1  ...  7 kRun..8 kRun-1
//   query 0         x 0, y 0         x 1, y 0             x 7, y 0
//   query 1         x 0, y 1         x 1, y 1             x 7, y 1
//   ...
//
// Slot s of a lane is query y + kLanesY * s, and the lane holds columns [4 x + 32 u, + 4) of O for
// every u. A lane's keys and columns differ, so weights go through workgroup memory, in f32.
//
// INVARIANT: each sum is accumulated in the order of its index. Only lanes with the same y exchange
// weights, and they belong to one wave, so a barrier of the wave is enough.
#pragma once

#include "kernels/hip/tile/widening_copy.hpp"

namespace kernels::hip {

template <class T, class Shape>
struct ValuTile : ContiguousScores<Shape::kTiles, 1, Shape::kKeys / 8> {
  static constexpr int kWave = Shape::kWave, kWaves = Shape::kWaves, kThreads = kWave * kWaves;
  static constexpr int kLanesX = 8, kLanesY = kWave / kLanesX;
  static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kSlots = Shape::kTiles;
  static constexpr int kWaveRows = kLanesY * kSlots, kRows = kWaveRows * kWaves;
  static constexpr int kElements = kKeys / kLanesX, kScoreTiles = 1, kRun = kElements;
  static constexpr int kWide = 16 / T::kBytes;
  static constexpr int kResident =
      kWave == 32 && kWaves == 4 && kDim == 64 ? 2 : 1;  // see GPU_KERNEL
  static constexpr bool kHoldMask = false;

  using Element = T;
  using Scores = typename ContiguousScores<kSlots, kScoreTiles, kElements>::Scores;
  using Output = gpu::Floats<4>[kSlots][kDim / 32];
  struct Query {};

  static constexpr uint32_t kRowBytes = kDim * T::kBytes + 16, kWeightRow = kKeys * 4 + 16;
  static constexpr bool kAliased = Shape::kAliased;
  static constexpr uint32_t kKeyAt = 0, kValueAt = kAliased ? 0 : kKeys * kRowBytes;
  static constexpr uint32_t kQueryAt = kValueAt + kKeys * kRowBytes;
  static constexpr uint32_t kWeightsAt = kQueryAt + kRows * kRowBytes;
  static constexpr uint32_t kSharedBytes = kWeightsAt + kRows * kWeightRow;

  // Key x * kRun + e is in row e * 8 + x of workgroup memory, so that lanes side by side read rows
  // side by side, which lie in different banks.
  struct KeyOrder {
    GPU_DEVICE static int of(int key) { return key % kRun * kLanesX + key / kRun; }
  };
  using Stored = T;
  using KeyCopy = RowCopy<T, kThreads, kKeys, kDim, kRowBytes, KeyOrder>;
  using ValueCopy = RowCopy<T, kThreads, kKeys, kDim, kRowBytes>;
  template <class Order>
  struct Place {
    GPU_DEVICE static uint32_t at(int row, int chunk) {
      return Order::of(row) * kRowBytes + chunk * 16;
    }
  };
  using WideningKeyCopy = WideningRowCopy<T, kThreads, kKeys, kDim, Place<KeyOrder>>;
  using WideningValueCopy = WideningRowCopy<T, kThreads, kKeys, kDim, Place<InOrder>>;

  int wave, x, y;

  GPU_DEVICE ValuTile() {
    const int lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
    x = lane % kLanesX;
    y = lane / kLanesX;
  }

  GPU_DEVICE int row(int slot) const { return wave * kWaveRows + y + kLanesY * slot; }
  GPU_DEVICE int first_key() const { return x * kRun; }

  GPU_DEVICE float max_of_row(float value) const {
    GPU_UNROLL for (int bit = 1; bit < kLanesX; bit *= 2) value =
        gpu::max(value, gpu::exchange<kWave>(value, bit));
    return value;
  }
  GPU_DEVICE float sum_of_row(float value) const {
    GPU_UNROLL for (int bit = 1; bit < kLanesX; bit *= 2) value += gpu::exchange<kWave>(value, bit);
    return value;
  }

  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows, Query&) const {
    constexpr int kChunks = kDim / kWide;
    const uint32_t sign =
        p.flags & kNegativeScale ? (T::kBytes == 4 ? 0x80000000u : 0x80008000u) : 0;
    for (int i = static_cast<int>(gpu::thread()); i < kRows * kChunks; i += kThreads) {
      const int r = i / kChunks, d = i % kChunks * kWide;
      gpu::Bits128 bits{};
      if (r < rows && d < p.head_dim) bits = gpu::load128(q(r) + d);
      GPU_UNROLL for (int w = 0; w < 4; ++w) bits.word[w] ^= sign;
      gpu::shared_store(kQueryAt + r * kRowBytes + d * T::kBytes, bits);
    }
  }

  // Reads four elements of a row in workgroup memory.
  GPU_DEVICE static gpu::Floats<4> read4(uint32_t at) {
    gpu::Floats<4> value;
    if constexpr (T::kBytes == 4) {
      const gpu::Bits128 bits = gpu::shared_load<gpu::Bits128>(at);
      GPU_UNROLL for (int i = 0; i < 4; ++i) value[i] = __builtin_bit_cast(float, bits.word[i]);
    } else {
      const gpu::Bits64 bits = gpu::shared_load<gpu::Bits64>(at);
      value[0] = low_half<T>(bits.word[0]), value[1] = high_half<T>(bits.word[0]);
      value[2] = low_half<T>(bits.word[1]), value[3] = high_half<T>(bits.word[1]);
    }
    return value;
  }

  GPU_DEVICE void scores(const Query&, Scores& s) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int e = 0; e < kElements; ++e) s[slot][0][e] = 0;
    }
    const uint32_t q_at = kQueryAt + row(0) * kRowBytes, k_at = kKeyAt + x * kRowBytes;
    GPU_UNROLL_BY(2)
    for (int d = 0; d < kDim; d += 4) {
      gpu::Floats<4> k[kElements];
      GPU_UNROLL for (int e = 0; e < kElements; ++e) k[e] =
          read4(k_at + e * kLanesX * kRowBytes + d * T::kBytes);
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const gpu::Floats<4> q = read4(q_at + slot * kLanesY * kRowBytes + d * T::kBytes);
        GPU_UNROLL for (int e = 0; e < kElements; ++e) {
          GPU_UNROLL for (int i = 0; i < 4; ++i) s[slot][0][e] =
              gpu::fma(q[i], k[e][i], s[slot][0][e]);
        }
      }
    }
  }

  struct Weights {
    gpu::Floats<kElements> value[kSlots];
  };
  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      weights.value[slot] = p[slot][0];
      GPU_UNROLL for (int e = 0; e < kElements; ++e) sum[slot] += p[slot][0][e];
    }
  }
  static constexpr bool kSumIsOfRounded = false;

  GPU_DEVICE void accumulate(const Weights& weights, Output& o) const {
    const uint32_t w_at = kWeightsAt + row(0) * kWeightRow;
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int e = 0; e < kElements; ++e) {
        gpu::shared_store(w_at + slot * kLanesY * kWeightRow + (first_key() + e) * 4,
                          weights.value[slot][e]);
      }
    }
    gpu::wave_barrier(kWave);
    GPU_UNROLL_BY(1)
    for (int key = 0; key < kKeys; key += 4) {
      gpu::Floats<4> w[kSlots];
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const gpu::Bits128 bits =
            gpu::shared_load<gpu::Bits128>(w_at + slot * kLanesY * kWeightRow + key * 4);
        GPU_UNROLL for (int i = 0; i < 4; ++i) w[slot][i] = __builtin_bit_cast(float, bits.word[i]);
      }
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        GPU_UNROLL for (int u = 0; u < kDim / 32; ++u) {
          const gpu::Floats<4> v =
              read4(kValueAt + (key + i) * kRowBytes + (u * 32 + x * 4) * T::kBytes);
          GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
            GPU_UNROLL for (int c = 0; c < 4; ++c) o[slot][u][c] =
                gpu::fma(w[slot][i], v[c], o[slot][u][c]);
          }
        }
      }
    }
  }

  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kDim / 32; ++u) {
      GPU_UNROLL for (int c = 0; c < 4; ++c) o[slot][u][c] = 0;
    }
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kDim / 32; ++u) {
      GPU_UNROLL for (int c = 0; c < 4; ++c) o[slot][u][c] *= factor;
    }
  }

  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool exists) const {
    store_as(T{}, p, o, slot, factor, out, exists);
  }
  GPU_DEVICE void store_float(const AttentionParams& p, const Output& o, int slot, float factor,
                              float* out, bool exists) const {
    store_as(F32{}, p, o, slot, factor, out, exists);
  }
  template <class As>
  GPU_DEVICE void store_as(As as, const AttentionParams& p, const Output& o, int slot, float factor,
                           typename As::Storage* out, bool exists) const {
    GPU_UNROLL for (int u = 0; u < kDim / 32; ++u) {
      const int d = u * 32 + x * 4;
      if (!exists || d >= p.head_dim_v) continue;
      const gpu::Floats<4>& f = o[slot][u];
      store4(as, out + d, f[0] * factor, f[1] * factor, f[2] * factor, f[3] * factor);
    }
  }
};

}  // namespace kernels::hip
