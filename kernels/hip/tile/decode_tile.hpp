// kernels/hip/tile/decode_tile.hpp: the tile of decode_attention: 16 packed rows and 16 keys of one
// wave, by mma.sync, f16 and bf16
#pragma once

#include "kernels/hip/tile/mma_sm80.hpp"
#include "kernels/hip/tile/quad_rows.hpp"
#include "kernels/hip/tile/tile.hpp"

namespace kernels::hip {

// What the tiles of decode share. Lane 4 r + c holds rows r and r + 8 (slots 0 and 1), and of each
// the keys 2 c, 2 c + 1, 2 c + 8 and 2 c + 9.
// kLarge: for GPUs with 227 KiB of workgroup memory; the others have 99 KiB or more.
// kKeyBytes: of a row of K or V in workgroup memory; kScaleBytes: of the scales of a step.
template <int kDimension, uint32_t kKeyBytes, uint32_t kScaleBytes, bool kLarge>
struct DecodeLayout {
  static constexpr int kWave = 32, kWaveRows = 16, kRows = 16, kKeys = 16;
  static constexpr int kSlots = 2, kScoreTiles = 2, kElements = 2;
  static constexpr int kDim = kDimension, kDimSteps = kDim / 16;
  static constexpr int kWaves = (kDim == 256 ? 2 : 4) * (kLarge ? 2 : 1), kThreads = kWave * kWaves;
  static constexpr uint32_t kRowBytes = kKeyBytes, kStepBytes = kKeys * kRowBytes,
                            kStageBytes = 2 * kStepBytes + kScaleBytes;
  static constexpr int kChunks = kRowBytes / 16;  // of 16 bytes in a row
  static constexpr int kStages =
      static_cast<int>((kLarge ? 192 : 80) * 1024 / (kWaves * kStageBytes));
  static constexpr int kResident = 1;

  using Scores = gpu::Floats<2>[kSlots][kScoreTiles];
  using Query = uint32_t[kDimSteps][4];
  using Weights = uint32_t[kSlots][kScoreTiles];
  using Output = gpu::Floats<2>[kSlots][kDim / 8];
  static constexpr bool kSumIsOfRounded = false;

  GPU_DEVICE static float at(const Scores& s, int slot, int t, int e) { return s[slot][t][e]; }
  GPU_DEVICE static void set(Scores& s, int slot, int t, int e, float value) {
    s[slot][t][e] = value;
  }
  GPU_DEVICE static void leave_undefined(Scores&) {}
  GPU_DEVICE static constexpr int key_offset(int t, int e) { return t * 8 + e; }

  int lane, wave;
  GPU_DEVICE DecodeLayout() {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
  }
  GPU_DEVICE int row(int slot) const { return slot * 8 + lane / 4; }
  GPU_DEVICE int first_key() const { return lane % 4 * 2; }
  GPU_DEVICE float max_of_row(float x) const { return max_of_quad(x); }
  GPU_DEVICE float sum_of_row(float x) const { return sum_of_quad(x); }

  // ---- Workgroup memory: rows of K and V, swizzled by 16-byte chunks, and their scales ----
  // Eight rows side by side have a chunk in eight different places of 128 bytes, the banks.
  GPU_DEVICE static uint32_t place(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (kRowBytes >= 128 ? row & 7 : row / 2 & 3)) << 4);
  }
  GPU_DEVICE uint32_t keys_at(int stage) const {
    return static_cast<uint32_t>(wave * kStages + stage) * kStageBytes;
  }
  GPU_DEVICE uint32_t values_at(int stage) const { return keys_at(stage) + kStepBytes; }
  GPU_DEVICE uint32_t scales_at(int stage) const { return keys_at(stage) + 2 * kStepBytes; }
  // Behind the rings, where waves merge their results, one slot's rows at a time: rows of O in
  // float, and sums, of each wave. Rows are padded so that a wave's lanes spread over the banks.
  static constexpr int kMergeRows = 8;
  static constexpr uint32_t kRingBytes = kWaves * kStages * kStageBytes;
  static constexpr uint32_t kOutputRow = (kDim + 8) * 4, kOutputBytes = kMergeRows * kOutputRow;
  GPU_DEVICE static uint32_t output_at(int of_wave, int row) {
    return kRingBytes + static_cast<uint32_t>(of_wave) * kOutputBytes +
           static_cast<uint32_t>(row) * kOutputRow;
  }
  GPU_DEVICE static uint32_t sums_at(int of_wave, int row) {
    return kRingBytes + kWaves * kOutputBytes +
           static_cast<uint32_t>(of_wave * kMergeRows + row) * 8;
  }
  static constexpr uint32_t kSharedBytes = kRingBytes + kWaves * (kOutputBytes + kMergeRows * 8);

  // Packs weights for the second product as P.
  template <class P>
  GPU_DEVICE static void pack_as(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
        weights[slot][t] = pack2(P{}, p[slot][t][0], p[slot][t][1]);
        sum[slot] += p[slot][t][0] + p[slot][t][1];
      }
    }
  }
  GPU_DEVICE static void clear_scores(Scores& s) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) s[slot][t][0] = s[slot][t][1] = 0;
    }
  }
  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] = o[slot][u][1] = 0;
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] *= factor, o[slot][u][1] *= factor;
  }
};

// K and V of T.
template <class T, int kDimension, bool kLarge>
struct DecodeTile : DecodeLayout<kDimension, kDimension * 2, 0, kLarge> {
  using Layout = DecodeLayout<kDimension, kDimension * 2, 0, kLarge>;
  using Element = T;
  using Stored = T;
  using Layout::kDim;
  using Layout::kDimSteps;
  using Layout::kSlots;
  using Layout::lane;
  using typename Layout::Output;
  using typename Layout::Query;
  using typename Layout::Scores;
  using typename Layout::Weights;

  // ---- Products ----
  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows,
                             Query& query) const {
    GPU_UNROLL for (int half = 0; half < 2; ++half) {
      const int r = this->row(half);
      const typename T::Storage* from = q(r < rows ? r : 0);
      GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
        GPU_UNROLL for (int i = 0; i < 2; ++i) {
          const int d = step * 16 + lane % 4 * 2 + i * 8;
          uint32_t word = 0;
          if (r < rows && d < p.head_dim) word = *reinterpret_cast<const uint32_t*>(from + d);
          query[step][half + 2 * i] = word;
        }
      }
    }
  }

  GPU_DEVICE void scores(const Query& query, int stage, Scores& s) const {
    Layout::clear_scores(s);
    const int key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
    GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
      uint32_t b[4];
      MmaSm80::load_matrices<false>(this->keys_at(stage) + Layout::place(key, step * 2 + half), b);
      MmaSm80::multiply<T>(query[step], b[0], b[1], s[0][0], s[1][0]);
      MmaSm80::multiply<T>(query[step], b[2], b[3], s[0][1], s[1][1]);
    }
  }

  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    Layout::template pack_as<T>(p, weights, sum);
  }

  GPU_DEVICE void accumulate(const Weights& weights, int stage, Output& o) const {
    const uint32_t a[4] = {weights[0][0], weights[1][0], weights[0][1], weights[1][1]};
    GPU_UNROLL for (int u = 0; u < kDim / 8; u += 2) {
      uint32_t b[4];
      MmaSm80::load_matrices<true>(this->values_at(stage) + Layout::place(lane % 16, u + lane / 16),
                                   b);
      MmaSm80::multiply<T>(a, b[0], b[1], o[0][u], o[1][u]);
      MmaSm80::multiply<T>(a, b[2], b[3], o[0][u + 1], o[1][u + 1]);
    }
  }

  // Stores a slot's rows of O * factor to this wave's place for merging.
  GPU_DEVICE void store_for_merge(const Output& o, int slot, float factor) const {
    const uint32_t to = Layout::output_at(this->wave, lane / 4) + lane % 4 * 8;
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) {
      gpu::Bits64 pair;
      GPU_UNROLL for (int e = 0; e < 2; ++e) {
        pair.word[e] = __builtin_bit_cast(uint32_t, o[slot][u][e] * factor);
      }
      gpu::shared_store(to + u * 32, pair);
    }
  }
};

}  // namespace kernels::hip
