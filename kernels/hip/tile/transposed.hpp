// kernels/hip/tile/transposed.hpp: the tile for AMD's matrix instructions (WMMA, MFMA), f16 and
// bf16
//
// Both products are computed transposed, with the keys, or the columns of V, as rows of A:
//
//   S^T = K Q^T        O^T = V^T P^T        (16 x 16 x 16 each)
//
// so that a lane's column of C is one query. Its softmax is the lane's own arithmetic and one
// exchange between the groups of 16 lanes, and the weights become the operand B of the second
// product without a trip through workgroup memory. Scores of one wave and 16 queries (kGroups is 2
// for waves of 32 lanes, 4 for waves of 64):
//
//                  query 0   query 1  ...  query 15
//   keys of group 0   lane 0    lane 1       lane 15
//   keys of group 1   lane 16   lane 17      lane 31
//   ...
//
// Group g holds keys [g * kRun, (g + 1) * kRun) of the step: element e of C's tile t is key
// g * kRun + t * kElements + e.
//
// INVARIANT: which key stands in which row of A is free, because softmax and P V do not depend on
// their order; but K and V must agree. Rows of A are therefore permuted, by group_of_row and
// element_of_row, so that each lane's keys stand side by side and a mask is read in 16-byte words.
// In the same way group g holds columns [g * 16 / kGroups, (g + 1) * 16 / kGroups) of each 16
// columns of O, so that out is stored in 16-byte words.
//
// Registers decide the shape: see tile_shapes.hpp, and docs/kernels.md for what the compiler makes
// of it.
#pragma once

#include "kernels/hip/tile/mfma.hpp"
#include "kernels/hip/tile/weights.hpp"
#include "kernels/hip/tile/widening_copy.hpp"
#include "kernels/hip/tile/wmma_gfx11.hpp"
#include "kernels/hip/tile/wmma_gfx12.hpp"

namespace kernels::hip {

// Mma: WmmaGfx11, WmmaGfx12 or Mfma. Shape: see tile_shapes.hpp.
template <class Mma, class T, class Shape>
struct TransposedTile : ContiguousScores<Shape::kTiles, Shape::kKeys / 16, Mma::kC> {
  static constexpr int kWave = Mma::kWave, kWaves = Shape::kWaves, kThreads = kWave * kWaves;
  static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kTiles = Shape::kTiles;
  static constexpr int kWaveRows = 16 * kTiles, kRows = kWaveRows * kWaves;
  static constexpr int kGroups = kWave / 16;
  static constexpr int kElements = Mma::kC;  // of one tile in a lane
  static constexpr int kSlots = kTiles;      // queries of a lane
  static constexpr int kScoreTiles =
      kKeys / 16;  // a lane's keys: kScoreTiles x kElements, side by side
  static constexpr int kRun = kKeys / kGroups;
  static constexpr int kChunk =
      kGroups == 4 ? 2 : 1;  // steps of 16 k that one 16-byte read of A feeds
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kResident = kWave == 32 && kDim == 128 ? 7 : 1;  // see GPU_KERNEL
  static constexpr bool kHoldMask = false;  // no registers are left for it

  using Element = T;
  using Scores = typename ContiguousScores<kSlots, kScoreTiles, kElements>::Scores;
  using Output = gpu::Floats<kElements>[kSlots][kDimSteps];
  // Q as operand B: in registers, or in workgroup memory if the shape says so.
  static constexpr bool kQueryShared = Shape::kQueryShared;
  using Query = uint32_t[kSlots][kQueryShared ? 1 : kDimSteps][Mma::kB];

  // Workgroup memory: rows of K, columns of V (TransposingCopy), and Q if it stays there. Each is
  // padded by 16 bytes, so that 8 lanes that read 16 bytes of 8 neighbouring rows touch every bank
  // once. The permuted rows of A are not neighbours: by a model of the banks their reads take twice
  // the passes on gfx1100 and gfx942, and no more than needed on gfx1201.
  static constexpr uint32_t kKeyRow = kDim * 2 + 16, kValueRow = kKeys * 2 + 16;
  static constexpr uint32_t kKeyBytes = kKeys * kKeyRow, kValueBytes = kDim * kValueRow;
  static constexpr bool kAliased = Shape::kAliased;  // K and V take turns in one place
  static constexpr uint32_t kKeyAt = 0, kValueAt = kAliased ? 0 : kKeyBytes;
  static constexpr uint32_t kQueryAt =
      kAliased ? (kKeyBytes > kValueBytes ? kKeyBytes : kValueBytes) : kKeyBytes + kValueBytes;
  static constexpr uint32_t kQueryRow = kDim * 2 + 16;
  static constexpr uint32_t kSharedBytes = kQueryAt + (kQueryShared ? kRows * kQueryRow : 0);

  using Stored = T;
  using KeyCopy = RowCopy<T, kThreads, kKeys, kDim, kKeyRow>;
  using ValueCopy = TransposingCopy<T, kThreads, kKeys, kDim, kValueRow>;
  struct WidenedRowPlace {
    GPU_DEVICE static uint32_t at(int row, int chunk) { return row * kKeyRow + chunk * 16; }
  };
  using WideningKeyCopy = WideningRowCopy<T, kThreads, kKeys, kDim, WidenedRowPlace>;
  using WideningValueCopy = WideningTransposingCopy<T, kThreads, kKeys, kDim, kValueRow>;

  int lane, wave, group, column;

  GPU_DEVICE TransposedTile() {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
    group = lane / 16;
    column = lane % 16;
  }

  GPU_DEVICE int row(int slot) const { return wave * kWaveRows + slot * 16 + column; }
  GPU_DEVICE int first_key() const { return group * kRun; }

  // The lanes that share a query are 16 apart.
  GPU_DEVICE float max_of_row(float x) const {
    GPU_UNROLL for (int bit = 16; bit < kWave; bit *= 2) x =
        gpu::max(x, gpu::exchange<kWave>(x, bit));
    return x;
  }
  GPU_DEVICE float sum_of_row(float x) const {
    GPU_UNROLL for (int bit = 16; bit < kWave; bit *= 2) x += gpu::exchange<kWave>(x, bit);
    return x;
  }

  // Reads B of one step of 16 columns of Q. at(d): reads 16 bytes of the query's row, from column d
  // on.
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

  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows,
                             Query& query) const {
    const uint32_t sign = p.flags & kNegativeScale ? 0x80008000u : 0;
    if constexpr (kQueryShared) {
      constexpr int kChunks = kDim / 8;
      for (int i = static_cast<int>(gpu::thread()); i < kRows * kChunks; i += kThreads) {
        const int r = i / kChunks, d = i % kChunks * 8;
        gpu::Bits128 bits{};
        if (r < rows && d < p.head_dim) bits = gpu::load128(q(r) + d);
        GPU_UNROLL for (int w = 0; w < 4; ++w) bits.word[w] ^= sign;
        gpu::shared_store(kQueryAt + r * kQueryRow + d * 2, bits);
      }
    } else {
      GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
        const int r = row(slot);
        const typename T::Storage* from = q(r);
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

  // S^T = K Q^T.
  GPU_DEVICE void scores(const Query& query, Scores& s) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
        GPU_UNROLL for (int e = 0; e < kElements; ++e) s[slot][t][e] = 0;
      }
    }
    // The key in this lane's row of A, for tile 0; tile t's is t * kElements further.
    const int key = Mma::group_of_row(column) * kRun + Mma::element_of_row(column);
    const uint32_t base = kKeyAt + key * kKeyRow + (kGroups == 4 || Mma::kA == 4 ? group * 16 : 0);
    GPU_UNROLL for (int step = 0; step < kDimSteps; step += kChunk) {
      // Here and before every two tiles: without the fences the compiler starts all reads of the
      // loop at once, and spills.
      gpu::schedule_fence();
      uint32_t q_shared[kSlots][kChunk][Mma::kB];
      if constexpr (kQueryShared) {
        GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
          const uint32_t from = kQueryAt + row(slot) * kQueryRow;
          const auto at = [&](int d) { return gpu::shared_load<gpu::Bits128>(from + d * 2); };
          GPU_UNROLL for (int c = 0; c < kChunk; ++c) query_step(step + c, at, q_shared[slot][c]);
        }
      }
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
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

  // O^T += V^T P^T.
  using Weights = uint32_t[kSlots][kScoreTiles][kElements / 2];
  GPU_DEVICE void accumulate(const Weights& weights, Output& o) const {
    // This lane's row of A is a column of V: element e of group g, in each 16 columns, or in each
    // 32 where one read feeds two steps.
    const int g = Mma::group_of_row(column), e = Mma::element_of_row(column);
    GPU_UNROLL for (int t = 0; t < kScoreTiles; t += kChunk) {
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
        // A lane that holds all 16 k reads both groups' keys; any other lane reads its own group's.
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

  // Reads A for kChunk steps: one 16-byte read, or two, `apart` bytes apart, where a lane holds all
  // 16 k.
  GPU_DEVICE static void read_operand(uint32_t at, uint32_t apart, uint32_t (&a)[kChunk][Mma::kA]) {
    const gpu::Bits128 low = gpu::shared_load<gpu::Bits128>(at);
    if constexpr (Mma::kA == 8) {
      const gpu::Bits128 high = gpu::shared_load<gpu::Bits128>(at + apart);
      GPU_UNROLL for (int i = 0; i < 4; ++i) a[0][i] = low.word[i], a[0][4 + i] = high.word[i];
    } else {
      GPU_UNROLL for (int i = 0; i < 4; ++i) a[i / Mma::kA][i % Mma::kA] = low.word[i];
    }
  }

  // Truncates weights (see pack_weights) and sums the truncated ones.
  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
        GPU_UNROLL for (int i = 0; i < kElements / 2; ++i) {
          weights[slot][t][i] = pack_weights<T>(p[slot][t][2 * i], p[slot][t][2 * i + 1]);
          sum[slot] = add_weights<T>(weights[slot][t][i], sum[slot]);
        }
      }
    }
  }
  static constexpr bool kSumIsOfRounded = true;

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

  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool exists) const {
    constexpr int kWide = kElements * kChunk;  // 8 columns side by side
    GPU_UNROLL for (int u = 0; u < kDimSteps; u += kChunk) {
      const int d = u * 16 + group * kWide;
      if (!exists || d >= p.head_dim_v) continue;
      gpu::Bits128 bits;
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        const int at = u + 2 * i / kElements, e = 2 * i % kElements;
        bits.word[i] = pack2(T{}, o[slot][at][e] * factor, o[slot][at][e + 1] * factor);
      }
      gpu::store128(out + d, bits);
    }
  }
  GPU_DEVICE void store_float(const AttentionParams& p, const Output& o, int slot, float factor,
                              float* out, bool exists) const {
    constexpr int kWide = kElements * kChunk;
    GPU_UNROLL for (int u = 0; u < kDimSteps; u += kChunk) {
      const int d = u * 16 + group * kWide;
      if (!exists || d >= p.head_dim_v) continue;
      GPU_UNROLL for (int i = 0; i < kWide; i += 4) {
        const auto at = [&](int n) { return o[slot][u + n / kElements][n % kElements] * factor; };
        store4(F32{}, out + d + i, at(i), at(i + 1), at(i + 2), at(i + 3));
      }
    }
  }
};

}  // namespace kernels::hip
