// kernels/hip/tile/quad.hpp: the tile for NVIDIA's mma.sync (sm_80 and newer), f16 and bf16
//
//   S = Q K^T        O = P V        (16 queries x 8 keys, or 8 columns of V, x 16, each)
//
// Four lanes, a quad, share each query. Scores of one wave and 8 of its queries:
//
//              keys 0..kRun-1   kRun..   2 kRun..   3 kRun..
//   query 0        lane 0       lane 1    lane 2     lane 3
//   query 1        lane 4       lane 5    lane 6     lane 7
//   ...
//   query 7        lane 28      lane 29   lane 30    lane 31
//
// Lane 4 r + c holds query r and keys [c * kRun, (c + 1) * kRun) of the step: elements 0 and 1 of
// C's tile t are keys 2 t and 2 t + 1 of these. Elements 2 and 3 are the same keys for query 8 + r,
// the next slot. Two neighbouring tiles of C are operand A of the second product as they are,
// without an exchange between lanes.
//
// INVARIANT: which key is which column of B is free, because softmax and P V do not depend on their
// order; but K and V must agree. ldmatrix takes each row's address from a lane, so a quad's keys
// stand side by side (kRun of them), and a mask is read in 16-byte words.
//
// Rows are not padded but swizzled: the 16-byte chunks of a row are permuted so that the eight rows
// of one 8 x 8 matrix lie in different banks. For K and V these rows are keys n / 2 * kRun + n % 2
// (n = 0 to 7), so the permutation depends on a key's run and on its parity alone, and stays the
// same from tile to tile.
#pragma once

#include "kernels/hip/tile/mma_sm80.hpp"
#include "kernels/hip/tile/quad_rows.hpp"
#include "kernels/hip/tile/widening_copy.hpp"

namespace kernels::hip {

// Shape: see tile_shapes.hpp. A lane has two slots for each 16 queries.
template <class T, class Shape>
struct QuadTile : ContiguousScores<2 * Shape::kTiles, Shape::kKeys / 8, 2> {
  static constexpr int kWave = 32, kWaves = Shape::kWaves, kThreads = kWave * kWaves;
  static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kTiles = Shape::kTiles;
  static constexpr int kWaveRows = 16 * kTiles, kRows = kWaveRows * kWaves;
  static constexpr int kElements = 2;
  static constexpr int kSlots = 2 * kTiles;
  static constexpr int kScoreTiles = kKeys / 8;
  static constexpr int kRun = kKeys / 4;
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kResident = kDim == 256 ? 1 : 2;  // see GPU_KERNEL
  static constexpr bool kHoldMask = kRun % 8 == 0;       // the registers suffice for it

  using Element = T;
  using Scores = typename ContiguousScores<kSlots, kScoreTiles, kElements>::Scores;
  using Output = gpu::Floats<2>[kSlots][kDim / 8];
  static constexpr bool kQueryShared = Shape::kQueryShared;
  using Query = uint32_t[kTiles][kQueryShared ? 1 : kDimSteps][4];

  static constexpr uint32_t kRowBytes = kDim * 2;
  static constexpr bool kAliased = false;
  static constexpr uint32_t kKeyAt = 0, kValueAt = kKeys * kRowBytes,
                            kQueryAt = 2 * kKeys * kRowBytes;
  static constexpr uint32_t kSharedBytes = kQueryAt + kRows * kRowBytes;

  // Where chunk number `chunk` (16 bytes) of a row of K or V is, and of a row of Q.
  GPU_DEVICE static int swizzle(int row) { return (row / kRun * 2 + row % 2) & 7; }
  GPU_DEVICE static uint32_t place(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ swizzle(row)) << 4);
  }
  GPU_DEVICE static uint32_t query_place(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }

  struct Copy {
    static constexpr int kChunks = kDim / 8, kPassRows = kThreads / kChunks,
                         kPasses = kKeys / kPassRows;
    static_assert(kThreads % kChunks == 0 && kKeys % kPassRows == 0);

    GPU_DEVICE void issue(uint32_t to, const typename T::Storage* at, int64_t stride, int keys,
                          int head_dim) {
      const int r = static_cast<int>(gpu::thread()) / kChunks,
                c = static_cast<int>(gpu::thread()) % kChunks;
      // One address that moves on, rather than one for each pass, which would take more registers.
      const typename T::Storage* from = at + r * stride + c * 8;
      const int64_t pass = kPassRows * stride;
      if (keys >= kKeys && head_dim == kDim) {
        GPU_UNROLL for (int i = 0; i < kPasses; ++i, from += pass) {
          MmaSm80::copy_async(to + place(r + i * kPassRows, c), from, true);
        }
        return;
      }
      GPU_UNROLL for (int i = 0; i < kPasses; ++i, from += pass) {
        const bool exists = r + i * kPassRows < keys && c * 8 < head_dim;
        MmaSm80::copy_async(to + place(r + i * kPassRows, c), exists ? from : at, exists);
      }
    }
    template <class Rows>
    GPU_DEVICE void issue_rows(uint32_t to, const Rows& rows, int first, int end, int head_dim) {
      const int r = static_cast<int>(gpu::thread()) / kChunks,
                c = static_cast<int>(gpu::thread()) % kChunks;
      GPU_UNROLL for (int i = 0; i < kPasses; ++i) {
        const int row = r + i * kPassRows;
        const bool exists = row >= first && row < end && c * 8 < head_dim;
        MmaSm80::copy_async(to + place(row, c), exists ? rows(row) + c * 8 : rows.tensor, exists);
      }
    }
    GPU_DEVICE void leave_undefined() {}
    GPU_DEVICE void commit(uint32_t) const { MmaSm80::wait_for_copies(); }
  };
  using Stored = T;
  using KeyCopy = Copy;
  using ValueCopy = Copy;
  struct Place {
    GPU_DEVICE static uint32_t at(int row, int chunk) { return place(row, chunk); }
  };
  using WideningKeyCopy = WideningRowCopy<T, kThreads, kKeys, kDim, Place>;
  using WideningValueCopy = WideningKeyCopy;

  int lane, wave, quad;

  GPU_DEVICE QuadTile() {
    lane = static_cast<int>(gpu::thread()) % kWave;
    wave = gpu::uniform(static_cast<int>(gpu::thread()) / kWave);
    quad = lane % 4;
  }

  GPU_DEVICE int row(int slot) const {
    return wave * kWaveRows + slot / 2 * 16 + slot % 2 * 8 + lane / 4;
  }
  GPU_DEVICE int first_key() const { return quad * kRun; }

  GPU_DEVICE float max_of_row(float x) const { return max_of_quad(x); }
  GPU_DEVICE float sum_of_row(float x) const { return sum_of_quad(x); }

  template <class Rows>
  GPU_DEVICE void load_query(const AttentionParams& p, const Rows& q, int rows,
                             Query& query) const {
    constexpr int kChunks = kDim / 8;
    const uint32_t sign = p.flags & kNegativeScale ? 0x80008000u : 0;
    for (int i = static_cast<int>(gpu::thread()); i < kRows * kChunks; i += kThreads) {
      const int r = i / kChunks, c = i % kChunks;
      gpu::Bits128 bits{};
      if (r < rows && c * 8 < p.head_dim) bits = gpu::load128(q(r) + c * 8);
      GPU_UNROLL for (int w = 0; w < 4; ++w) bits.word[w] ^= sign;
      gpu::shared_store(kQueryAt + query_place(r, c), bits);
    }
    if constexpr (!kQueryShared) {
      gpu::barrier();
      GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
        GPU_UNROLL for (int m = 0; m < kTiles; ++m) read_query(m, step, query[m][step]);
      }
    }
  }

  GPU_DEVICE void read_query(int m, int step, uint32_t (&a)[4]) const {
    MmaSm80::load_matrices<false>(
        kQueryAt + query_place(wave * kWaveRows + m * 16 + lane % 16, step * 2 + lane / 16), a);
  }

  GPU_DEVICE void scores(const Query& query, Scores& s) const {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) s[slot][t][0] = s[slot][t][1] = 0;
    }
    // Of each step of 16 columns, matrices 0 and 1 are both halves for an even tile's keys, 2 and 3
    // for the next tile's.
    const int n = lane % 8, key = n / 2 * kRun + n % 2 + lane / 16 * 2, half = lane / 8 % 2;
    GPU_UNROLL for (int step = 0; step < kDimSteps; ++step) {
      uint32_t a[kTiles][4];
      GPU_UNROLL for (int m = 0; m < kTiles; ++m) {
        if constexpr (kQueryShared) {
          read_query(m, step, a[m]);
        } else {
          GPU_UNROLL for (int i = 0; i < 4; ++i) a[m][i] = query[m][step][i];
        }
      }
      const uint32_t at = kKeyAt + place(key, step * 2 + half);
      GPU_UNROLL for (int t = 0; t < kScoreTiles; t += 2) {
        uint32_t b[4];
        MmaSm80::load_matrices<false>(at + t * 2 * kRowBytes, b);
        GPU_UNROLL for (int m = 0; m < kTiles; ++m) {
          MmaSm80::multiply<T>(a[m], b[0], b[1], s[2 * m][t], s[2 * m + 1][t]);
          MmaSm80::multiply<T>(a[m], b[2], b[3], s[2 * m][t + 1], s[2 * m + 1][t + 1]);
        }
      }
    }
  }

  using Weights = uint32_t[kSlots][kScoreTiles];
  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kScoreTiles; ++t) {
        weights[slot][t] = pack2(T{}, p[slot][t][0], p[slot][t][1]);
        sum[slot] += p[slot][t][0] + p[slot][t][1];
      }
    }
  }
  static constexpr bool kSumIsOfRounded = false;

  GPU_DEVICE void accumulate(const Weights& weights, Output& o) const {
    // Matrices 0 and 1 are eight columns of V for the keys of an even tile and of the next; 2 and 3
    // are the next eight columns.
    const int n = lane % 8, key = n / 2 * kRun + n % 2 + lane / 8 % 2 * 2, chunk = lane / 16;
    GPU_UNROLL for (int t = 0; t < kScoreTiles; t += 2) {
      GPU_UNROLL for (int u = 0; u < kDim / 8; u += 2) {
        uint32_t b[4];
        MmaSm80::load_matrices<true>(kValueAt + place(key, u + chunk) + t * 2 * kRowBytes, b);
        GPU_UNROLL for (int m = 0; m < kTiles; ++m) {
          const uint32_t a[4] = {weights[2 * m][t], weights[2 * m + 1][t], weights[2 * m][t + 1],
                                 weights[2 * m + 1][t + 1]};
          MmaSm80::multiply<T>(a, b[0], b[1], o[2 * m][u], o[2 * m + 1][u]);
          MmaSm80::multiply<T>(a, b[2], b[3], o[2 * m][u + 1], o[2 * m + 1][u + 1]);
        }
      }
    }
  }

  GPU_DEVICE static void clear(Output& o, int slot) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] = o[slot][u][1] = 0;
  }
  GPU_DEVICE static void scale(Output& o, int slot, float factor) {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) o[slot][u][0] *= factor, o[slot][u][1] *= factor;
  }

  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool exists) const {
    store_quad_row<T, kDim>(p.head_dim_v, out, exists,
                            [&](int u, int e) { return o[slot][u][e] * factor; });
  }
  GPU_DEVICE void store_float(const AttentionParams& p, const Output& o, int slot, float factor,
                              float* out, bool exists) const {
    GPU_UNROLL for (int u = 0; u < kDim / 8; ++u) {
      const int d = u * 8 + quad * 2;
      if (exists && d < p.head_dim_v)
        store2(out + d, o[slot][u][0] * factor, o[slot][u][1] * factor);
    }
  }
};

}  // namespace kernels::hip
