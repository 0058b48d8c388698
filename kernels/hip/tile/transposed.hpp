// kernels/hip/tile/transposed.hpp: K, V and Q into transposed scores and outputs, on AMD's matrix instructions
//
// S^T = K Q^T and O^T = V^T P^T, both with the keys (or the columns of V) as rows of A: then a lane's column of C is one
// query, its softmax is the lane's own arithmetic plus one exchange between the groups of 16 lanes, and the weights become
// the operand of the second product without a trip through workgroup memory (FlashAttention's recurrence, transposed).
//
// Which key stands in which row of A is free, since softmax and P V do not care. Here group g of a wave's G owns keys
// [g * kRun, (g + 1) * kRun) of a step's kKeys, and of each 16 columns of V the columns [g * 16 / G, (g + 1) * 16 / G): so a
// mask is read, and out is written, in whole runs.
#pragma once

#include "kernels/hip/params.hpp"
#include "kernels/hip/tile/copy.hpp"
#include "kernels/hip/tile/mfma.hpp"
#include "kernels/hip/tile/weights.hpp"
#include "kernels/hip/tile/wmma_gfx11.hpp"
#include "kernels/hip/tile/wmma_gfx12.hpp"

namespace kernels::hip {

// Shape: see config.hpp. kWaves waves of kTiles x 16 queries; steps of kKeys keys; head dimensions padded to kDim.
template <class Mma, class T, class Shape>
struct TransposedTile {
  static constexpr int kWave = Mma::kWave, kWaves = Shape::kWaves, kThreads = kWave * kWaves;
  static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kTiles = Shape::kTiles;
  static constexpr int kWaveRows = 16 * kTiles, kRows = kWaveRows * kWaves;
  static constexpr int kGroups = kWave / 16;
  static constexpr int kElements = Mma::kC;  // of one tile in a lane
  static constexpr int kSlots = kTiles;      // queries of a lane
  static constexpr int kRunTiles =
      kKeys / 16;  // a lane's keys: kRunTiles x kElements, side by side
  static constexpr int kRun = kKeys / kGroups;
  static constexpr int kChunk = kGroups == 4 ? 2 : 1;  // steps of 16 that one 16-byte read feeds
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kResident = kWave == 32 && kDim == 128 ? 7 : 1;  // see GPU_KERNEL
  static constexpr bool kHoldMask = false;  // a mask is read when it is used

  using Element = T;
  using Scores = gpu::Floats<kElements>[kSlots][kRunTiles];
  using Output = gpu::Floats<kElements>[kSlots][kDimSteps];
  // Q's operand: in registers, or (gfx11 at wide heads, where a lane would hold all of it) in workgroup memory.
  static constexpr bool kQueryShared = Shape::kQueryShared;
  using Query = uint32_t[kSlots][kQueryShared ? 1 : kDimSteps][Mma::kB];

  // Workgroup memory. Rows are padded by 16 bytes, so that 8 lanes reading 16 bytes of 8 rows touch every bank once.
  static constexpr uint32_t kKeyRow = kDim * 2 + 16, kValueRow = kKeys * 2 + 16;
  static constexpr uint32_t kKeyBytes = kKeys * kKeyRow, kValueBytes = kDim * kValueRow;
  static constexpr bool kAliased = Shape::kAliased;  // K and V take turns in one place
  static constexpr uint32_t kKeyAt = 0, kValueAt = kAliased ? 0 : kKeyBytes;
  static constexpr uint32_t kQueryAt =
      kAliased ? (kKeyBytes > kValueBytes ? kKeyBytes : kValueBytes) : kKeyBytes + kValueBytes;
  static constexpr uint32_t kQueryRow = kDim * 2 + 16;
  static constexpr uint32_t kSharedBytes = kQueryAt + (kQueryShared ? kRows * kQueryRow : 0);

  using KeyCopy = RowCopy<T, kThreads, kKeys, kDim, kKeyRow>;
  using ValueCopy = TransposingCopy<T, kThreads, kKeys, kDim, kValueRow>;

  int lane, wave, group, column;

  GPU_DEVICE TransposedTile() {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
    group = lane / 16;
    column = lane % 16;
  }

  GPU_DEVICE int row(int slot) const { return wave * kWaveRows + slot * 16 + column; }
  GPU_DEVICE int first_key() const { return group * kRun; }

  // Lanes that share a query.
  GPU_DEVICE float max_of_row(float x) const {
    GPU_UNROLL for (int bit = 16; bit < kWave; bit *= 2) x =
        gpu::max(x, gpu::exchange<kWave>(x, bit));
    return x;
  }
  GPU_DEVICE float sum_of_row(float x) const {
    GPU_UNROLL for (int bit = 16; bit < kWave; bit *= 2) x += gpu::exchange<kWave>(x, bit);
    return x;
  }

  // One step of 16 of Q's operand for a query's row; at(d): 16 bytes of it from element d on.
  template <class At>
  GPU_DEVICE void query_step(int step, const At& at, uint32_t (&b)[Mma::kB]) const {
    if constexpr (kGroups == 4) {  // a read feeds two steps
      const gpu::Bits128 read = at(step / 2 * 32 + group * 8);
      b[0] = read.word[step % 2 * 2], b[1] = read.word[step % 2 * 2 + 1];
    } else if constexpr (Mma::kB == 4) {
      const gpu::Bits128 read = at(step * 16 + group * 8);
      GPU_UNROLL for (int i = 0; i < 4; ++i) b[i] = read.word[i];
    } else {
      const gpu::Bits128 low = at(step * 16), high = at(step * 16 + 8);
      GPU_UNROLL for (int i = 0; i < 4; ++i) b[i] = low.word[i], b[4 + i] = high.word[i];
    }
  }

  // q: the block's first row. rows: how many of the block's rows exist.
  GPU_DEVICE void load_query(const AttentionParams& p, const typename T::Storage* q, int rows,
                             Query& query) const {
    const uint32_t sign = p.flags & kNegate ? 0x80008000u : 0;
    if constexpr (kQueryShared) {
      constexpr int kChunks = kDim / 8;
      for (int i = static_cast<int>(gpu::thread()); i < kRows * kChunks; i += kThreads) {
        const int r = i / kChunks, d = i % kChunks * 8;
        gpu::Bits128 bits{};
        if (r < rows && d < p.head_dim) bits = gpu::load128(q + r * p.q_stride.row + d);
        GPU_UNROLL for (int w = 0; w < 4; ++w) bits.word[w] ^= sign;
        gpu::shared_store(kQueryAt + r * kQueryRow + d * 2, bits);
      }
    } else {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const int r = row(slot);
        const typename T::Storage* from = q + r * p.q_stride.row;
        const auto at = [&](int d) {
          gpu::Bits128 bits{};
          if (r < rows && d < p.head_dim) bits = gpu::load128(from + d);
          GPU_UNROLL for (int w = 0; w < 4; ++w) bits.word[w] ^= sign;
          return bits;
        };
        GPU_UNROLL for (int step = 0; step < kDimSteps; ++step)
            query_step(step, at, query[slot][step]);
      }
    }
  }

  // S^T = K Q^T of this wave's queries and the step's keys in workgroup memory.
  GPU_DEVICE void scores(const Query& query, Scores& s) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kRunTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < kElements; ++e) s[slot][t][e] = 0;
      }
    }
    // The key in this lane's row of A: tile t's row is element element_of_row of group group_of_row.
    const int key = Mma::group_of_row(column) * kRun + Mma::element_of_row(column);
    const uint32_t base = kKeyAt + key * kKeyRow + (kGroups == 4 || Mma::kA == 4 ? group * 16 : 0);
    GPU_UNROLL for (int step = 0; step < kDimSteps; step += kChunk) {
      gpu::
          schedule_fence();  // here, and after every two tiles: their operands, not all, are in registers at once
      uint32_t q_shared[kSlots][kChunk][Mma::kB];
      if constexpr (kQueryShared) {
        GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
          const uint32_t from = kQueryAt + row(slot) * kQueryRow;
          const auto at = [&](int d) { return gpu::shared_load<gpu::Bits128>(from + d * 2); };
          GPU_UNROLL for (int c = 0; c < kChunk; ++c) query_step(step + c, at, q_shared[slot][c]);
        }
      }
      GPU_UNROLL for (int t = 0; t < kRunTiles; ++t) {
        if (t % 2 == 0) gpu::schedule_fence();
        uint32_t a[kChunk][Mma::kA];
        read_operand(base + t * kElements * kKeyRow + step * 32, 16, a);
        GPU_UNROLL for (int c = 0; c < kChunk; ++c) {
          GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
            if constexpr (kQueryShared) {
              Mma::template multiply<T>(a[c], q_shared[slot][c], s[slot][t]);
            } else {
              Mma::template multiply<T>(a[c], query[slot][step + c], s[slot][t]);
            }
          }
        }
      }
    }
  }

  // O^T += V^T P^T. weights: this lane's, packed; consumed.
  using Weights = uint32_t[kSlots][kRunTiles][kElements / 2];
  GPU_DEVICE void accumulate(const Weights& weights, Output& o) const {
    // The column of V in this lane's row of A, of each 16 (of each 32 where a read feeds two steps: see out_dim).
    const int g = Mma::group_of_row(column), e = Mma::element_of_row(column);
    GPU_UNROLL for (int t = 0; t < kRunTiles; t += kChunk) {
      gpu::schedule_fence();
      uint32_t b[kSlots][kChunk][Mma::kB];
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        GPU_UNROLL for (int c = 0; c < kChunk; ++c)
            Mma::operand_of(weights[slot][t + c], group, b[slot][c]);
      }
      GPU_UNROLL for (int u = 0; u < kDimSteps; ++u) {
        if (u % 4 == 0) gpu::schedule_fence();
        const int d = kChunk == 2 ? u / 2 * 32 + g * 8 + u % 2 * 4 + e : u * 16 + g * kElements + e;
        uint32_t a[kChunk][Mma::kA];
        const uint32_t at = kValueAt + d * kValueRow + t * kElements * 2;
        // Lanes that hold all k read both groups' keys; the others read their own group's.
        if constexpr (Mma::kA == 8) {
          read_operand(at, kRun * 2, a);
        } else {
          read_operand(at + group * kRun * 2, 0, a);
        }
        GPU_UNROLL for (int c = 0; c < kChunk; ++c) {
          GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot)
              Mma::template multiply<T>(a[c], b[slot][c], o[slot][u]);
        }
      }
    }
  }

  // A's words for kChunk steps: one 16-byte read, or two, `apart` bytes apart, where a lane holds all 16 k.
  GPU_DEVICE static void read_operand(uint32_t at, uint32_t apart, uint32_t (&a)[kChunk][Mma::kA]) {
    const gpu::Bits128 low = gpu::shared_load<gpu::Bits128>(at);
    if constexpr (Mma::kA == 8) {
      const gpu::Bits128 high = gpu::shared_load<gpu::Bits128>(at + apart);
      GPU_UNROLL for (int i = 0; i < 4; ++i) a[0][i] = low.word[i], a[0][4 + i] = high.word[i];
    } else {
      GPU_UNROLL for (int i = 0; i < 4; ++i) a[i / Mma::kA][i % Mma::kA] = low.word[i];
    }
  }

  // Weights as the second product takes them; gives each slot's sum of what they were rounded to.
  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kRunTiles; ++t) {
        GPU_UNROLL for (int i = 0; i < kElements / 2; ++i) {
          weights[slot][t][i] = pack_weights<T>(p[slot][t][2 * i], p[slot][t][2 * i + 1]);
          sum[slot] = add_weights<T>(weights[slot][t][i], sum[slot]);
        }
      }
    }
  }
  static constexpr bool kSumIsOfRounded =
      true;  // pack's sum is that of rounded weights: not what lse is made of

  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kDimSteps; ++u) {
      GPU_UNROLL for (int e = 0; e < kElements; ++e) o[slot][u][e] = 0;
    }
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kDimSteps; ++u) {
      GPU_UNROLL for (int e = 0; e < kElements; ++e) o[slot][u][e] *= factor;
    }
  }

  // One query's outputs times factor into its row.
  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool real) const {
    constexpr int kWide = kElements * kChunk;  // 8 columns side by side
    GPU_UNROLL for (int u = 0; u < kDimSteps; u += kChunk) {
      const int d = u * 16 + group * kWide;
      if (!real || d >= p.head_dim) continue;
      gpu::Bits128 bits;
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        const int at = u + 2 * i / kElements, e = 2 * i % kElements;
        bits.word[i] = pack2(T{}, o[slot][at][e] * factor, o[slot][at][e + 1] * factor);
      }
      gpu::store128(out + d, bits);
    }
  }
};

}  // namespace kernels::hip
