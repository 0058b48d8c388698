// kernels/hip/tile/wgmma_tile.hpp: the tile for NVIDIA's wgmma (sm_90a), f16 and bf16
//
//   S = Q K^T   one wgmma multiplies 64 queries by kKeys keys, over 16 columns of head_dim
//   O += P V    64 queries by kColumns columns of V, over 16 keys
//
// A warpgroup is four waves. Wave w owns queries [16 w, 16 w + 16) of its warpgroup's 64, and its
// lanes hold scores as mma.sync's do, tile after tile of 8 keys (PTX ISA, wgmma.m64nNk16, D):
//
//                 keys 0 1   2 3   4 5   6 7    8 9   ...
//   query 0        lane 0  lane 1  lane 2  lane 3   lane 0      tile 0 | tile 1
//   query 1        lane 4  lane 5  lane 6  lane 7   lane 4
//   ...
//   query 7        lane 28 lane 29 lane 30 lane 31  lane 28
//
// Queries 8 to 15 are the same lanes' second slot. Two neighbouring tiles are operand A of the
// second product as they are. Scores, O and weights are flat arrays, since an instruction names
// each of its registers.
//
// Q, K and V lie in workgroup memory as panels of kPanel columns. A panel's rows, kPanelRowBytes
// each, follow one another. They are swizzled as the copies (cp.async.bulk.tensor) write them and
// wgmma reads them:
//
//   panel 0: row 0 | row 1 | ... | row n      panel 1: row 0 | row 1 | ...
//
// K's panels are K-major operands B (PTX ISA): 8 rows are one block of the layout. V's are
// MN-major: a row is one key, wgmma's k, and holds kPanel columns of V, wgmma's n.
#pragma once

#include "kernels/hip/tile/quad_rows.hpp"
#include "kernels/hip/tile/tile.hpp"
#include "kernels/hip/tile/wgmma.hpp"

namespace kernels::hip {

// kGroups warpgroups of consumers with 64 queries each; kKeys of a step; kStages places for steps
// of K and of V, kQueryStages for blocks of Q; kDim, kDimV: head_dim and head_dim_v, padded.
// kSharesRows: both warpgroups have the same 64 queries, and each half of O's columns. They compute
// the scores of steps in turn, and hand each other the weights through workgroup memory.
// kValuesInKeys: V is the first head_dim_v columns of K, and is read in K's place.
template <int kGroupCount, int kKeyCount, int kStageCount, int kQueryStageCount, int kDimension,
          int kDimensionV, bool kSharedRows = false, bool kSharedKeys = false>
struct PipelineShape {
  static constexpr bool kSharesRows = kSharedRows, kValuesInKeys = kSharedKeys;
  static constexpr int kGroups = kGroupCount, kKeys = kKeyCount, kStages = kStageCount,
                       kQueryStages = kQueryStageCount, kDim = kDimension, kDimV = kDimensionV;
};

inline constexpr int kWgmmaRows = 64;  // of a product, so of a warpgroup

template <class T, class Shape>
struct WgmmaTile {
  using Element = T;
  static constexpr int kWave = 32, kWaveRows = 16, kGroupThreads = 128, kGroupRows = kWgmmaRows;
  static constexpr bool kSharesRows = Shape::kSharesRows, kValuesInKeys = Shape::kValuesInKeys;
  static constexpr int kGroups = Shape::kGroups,
                       kRows = kSharesRows ? kGroupRows : kGroups * kGroupRows;
  static constexpr int kKeys = Shape::kKeys, kStages = Shape::kStages;
  static constexpr int kQueryStages = Shape::kQueryStages;
  static constexpr int kDim = Shape::kDim, kDimV = Shape::kDimV;
  static constexpr int kSlots = 2, kElements = 2, kScoreTiles = kKeys / 8;
  static_assert(kKeys % 16 == 0 && kDim % 16 == 0);

  using Scores = float[kKeys / 2];
  static constexpr int kColumns = kSharesRows ? kDimV / kGroups : kDimV;  // of a warpgroup's O
  using Output = float[kColumns / 2];
  using Weights = uint32_t[kKeys / 16][4];
  static constexpr bool kSumIsOfRounded = false;

  // ---- Scores of one lane ----
  GPU_DEVICE static constexpr int index(int slot, int t, int e) { return t * 4 + slot * 2 + e; }
  GPU_DEVICE static float at(const Scores& s, int slot, int t, int e) {
    return s[index(slot, t, e)];
  }
  GPU_DEVICE static void set(Scores& s, int slot, int t, int e, float value) {
    s[index(slot, t, e)] = value;
  }
  GPU_DEVICE static void leave_undefined(Scores&) {}
  GPU_DEVICE static constexpr int key_offset(int t, int e) { return t * 8 + e; }

  // group: number of the calling thread's warpgroup among the consumers.
  int group, wave, lane;
  GPU_DEVICE explicit WgmmaTile(int number) : group(number) {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) % kGroupThreads / kWave);
  }

  GPU_DEVICE int first_group_row() const { return kSharesRows ? 0 : group * kGroupRows; }
  GPU_DEVICE int first_column() const { return kSharesRows ? group * kColumns : 0; }
  GPU_DEVICE int first_wave_row() const { return first_group_row() + wave * kWaveRows; }
  GPU_DEVICE int row(int slot) const { return first_wave_row() + lane / 4 + slot * 8; }
  GPU_DEVICE int first_key() const { return lane % 4 * 2; }
  GPU_DEVICE float max_of_row(float x) const { return max_of_quad(x); }
  GPU_DEVICE float sum_of_row(float x) const { return sum_of_quad(x); }

  // ---- Workgroup memory: bytes ----
  // 32 columns where 64 do not divide a dimension.
  static constexpr int kPanel = kDim % 64 == 0 && kDimV % 64 == 0 ? 64 : 32;
  static constexpr int kPanels = kDim / kPanel, kValuePanels = kDimV / kPanel;
  static constexpr uint32_t kPanelRowBytes = kPanel * 2;
  // 8 rows of a panel, after which the swizzle repeats.
  static constexpr uint32_t kBlockBytes = 8 * kPanelRowBytes;
  static constexpr uint32_t kQueryPanelBytes = kRows * kPanelRowBytes;
  static constexpr uint32_t kKeyPanelBytes = kKeys * kPanelRowBytes;
  static constexpr uint32_t kQueryBytes = kPanels * kQueryPanelBytes;
  static constexpr uint32_t kKeyBytes = kPanels * kKeyPanelBytes;
  static constexpr uint32_t kValueBytes = kValuePanels * kKeyPanelBytes;
  // Each warpgroup's place for weights, one panel of kKeys columns.
  static constexpr uint32_t kWeightRowBytes = kKeys * 2,
                            kWeightBytes = kSharesRows ? kGroupRows * kWeightRowBytes : 0;
  // Bytes from a stage of V to the next.
  static constexpr uint32_t kValueStageBytes = kValuesInKeys ? kKeyBytes : kValueBytes;
  static constexpr uint32_t kKeyAt = kQueryStages * kQueryBytes,
                            kKeyEnd = kKeyAt + kStages * kKeyBytes,
                            kValueAt = kValuesInKeys ? kKeyAt : kKeyEnd,
                            kWeightsAt = kKeyEnd + (kValuesInKeys ? 0 : kStages * kValueBytes),
                            kTileEnd = kWeightsAt + kGroups * kWeightBytes;

  GPU_DEVICE static uint32_t query_at(uint32_t stage) { return stage * kQueryBytes; }

  // leading_bytes: from a panel to the next, where the operand is MN-major.
  GPU_DEVICE static uint64_t descriptor(uint32_t offset, uint32_t leading_bytes) {
    return matrix_descriptor<kPanelRowBytes>(offset, leading_bytes, kBlockBytes);
  }

  // ---- Products. `at`, query_at: where a stage's K, V or Q begins ----
  // Starts S = Q K^T of the calling warpgroup.
  GPU_DEVICE void start_scores(Scores& s, uint32_t query_at, uint32_t at) const {
    const uint32_t query = query_at + static_cast<uint32_t>(first_group_row()) * kPanelRowBytes;
    GPU_UNROLL for (int k = 0; k < kDim; k += 16) {
      const uint32_t panel = k / kPanel, within = k % kPanel * 2;
      Wgmma<T, kKeys>::multiply(s, descriptor(query + panel * kQueryPanelBytes + within, 16),
                                descriptor(at + panel * kKeyPanelBytes + within, 16), k != 0);
    }
  }
  // Starts O += P V of the calling warpgroup.
  GPU_DEVICE void start_output(Output& o, const Weights& weights, uint32_t at) const {
    const uint32_t from = at + static_cast<uint32_t>(first_column() / kPanel) * kKeyPanelBytes;
    GPU_UNROLL for (int t = 0; t < kKeys / 16; ++t) {
      Wgmma<T, kColumns>::multiply(o, weights[t],
                                   descriptor(from + t * 2 * kBlockBytes, kKeyPanelBytes));
    }
  }

  // The same with the weights that a warpgroup stored at `weights_at`.
  GPU_DEVICE void start_output(Output& o, uint32_t weights_at, uint32_t at) const {
    static_assert(kWeightRowBytes == 64 || kWeightRowBytes == 128);
    const uint32_t from = at + static_cast<uint32_t>(first_column() / kPanel) * kKeyPanelBytes;
    GPU_UNROLL for (int t = 0; t < kKeys / 16; ++t) {
      Wgmma<T, kColumns>::multiply_weights(
          o, matrix_descriptor<kWeightRowBytes>(weights_at + t * 32, 16, 8 * kWeightRowBytes),
          descriptor(from + t * 2 * kBlockBytes, kKeyPanelBytes));
    }
  }
  GPU_DEVICE static uint32_t weights_at(int of_group) {
    return kWeightsAt + static_cast<uint32_t>(of_group) * kWeightBytes;
  }
  // Stores the lane's weights for the other warpgroup, as a K-major operand.
  GPU_DEVICE void store_weights(const Weights& weights) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      const uint32_t row = static_cast<uint32_t>(wave * kWaveRows + lane / 4 + slot * 8),
                     offset = row * kWeightRowBytes,
                     swizzle = offset / 128 % (kWeightRowBytes / 16) * 16,
                     to = weights_at(group) + offset + static_cast<uint32_t>(lane % 4) * 4;
      GPU_UNROLL for (int t = 0; t < kKeys / 16; ++t) {
        GPU_UNROLL for (int half = 0; half < 2; ++half) {
          gpu::shared_store(to + (static_cast<uint32_t>(t * 32 + half * 16) ^ swizzle),
                            weights[t][half * 2 + slot]);
        }
      }
    }
  }

  GPU_DEVICE static void pack(const Scores& p, Weights& weights) {
    GPU_UNROLL for (int t = 0; t < kKeys / 16; ++t) {
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        weights[t][i] = pack2(T{}, p[t * 8 + i * 2], p[t * 8 + i * 2 + 1]);
      }
    }
  }

  // ---- O ----
  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kColumns / 8; ++u) o[index(slot, u, 0)] = o[index(slot, u, 1)] =
        0;
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kColumns / 8; ++u) {
      o[index(slot, u, 0)] *= factor, o[index(slot, u, 1)] *= factor;
    }
  }
  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool exists) const {
    store_quad_row<T, kColumns>(p.head_dim_v - first_column(), out + first_column(), exists,
                                [&](int u, int e) { return o[index(slot, u, e)] * factor; });
  }
  GPU_DEVICE void store_float(const AttentionParams& p, const Output& o, int slot, float factor,
                              float* out, bool exists) const {
    GPU_UNROLL for (int u = 0; u < kColumns / 8; ++u) {
      const int d = first_column() + u * 8 + lane % 4 * 2;
      if (exists && d < p.head_dim_v)
        store2(out + d, o[index(slot, u, 0)] * factor, o[index(slot, u, 1)] * factor);
    }
  }
};

}  // namespace kernels::hip
