// kernels/hip/tile/mma_sm80.hpp: K, V and Q into scores and outputs on NVIDIA's mma.sync (sm_80 and newer), 16 x 8 x 16
//
//   A  lane l: rows l / 4 and l / 4 + 8 (words 0, 1: k 2 (l % 4) and the next; words 2, 3: 8 further)
//   B  lane l: column l / 4, k 2 (l % 4) and the next (word 0), 8 further (word 1)
//   C  lane l: row l / 4, columns 2 (l % 4) and the next (elements 0, 1); row l / 4 + 8 (elements 2, 3)
//
// S = Q K^T: C's two rows are queries, and pairs of C tiles are the A operand of P V. Which key is which column of B is free:
// here lane l of a quad owns keys [l % 4 * kRun, + kRun) of a step's kKeys, so that a mask is read in whole runs. ldmatrix
// takes rows from anywhere; rows are swizzled so that the eight rows of one 8 x 8 matrix lie in different banks.
#pragma once

#include "kernels/hip/params.hpp"
#include "kernels/hip/tile/matrix.hpp"

namespace kernels::hip {

struct MmaSm80 {
  static constexpr int kWave = 32, kM = 16, kN = 8, kK = 16, kA = 4, kB = 2, kC = 4;
  static constexpr bool kReplicated = false;
  static constexpr int a_lane(int row, int k) { return row % 8 * 4 + k % 8 / 2; }
  static constexpr int a_element(int row, int k) { return (k / 8 * 2 + row / 8) * 2 + k % 2; }
  static constexpr int b_lane(int k, int col) { return col * 4 + k % 8 / 2; }
  static constexpr int b_element(int k, int) { return k / 8 * 2 + k % 2; }
  static constexpr int c_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
  static constexpr int c_col(int lane, int e) { return lane % 4 * 2 + e % 2; }

  // c0: elements 0 and 1, c1: elements 2 and 3.
  template <class T>
  GPU_DEVICE static void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                  gpu::Floats<2>& c0, gpu::Floats<2>& c1) {
#if defined(GPU_NVIDIA)
    if constexpr (sizeof(T) && T::kDType == DType::f16) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
          "{%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
          "{%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
#elif defined(GPU_ON_HOST)
    const uint32_t b[2] = {b0, b1};
    float c[4] = {c0[0], c0[1], c1[0], c1[1]};
    matrix_multiply<MmaSm80, T>(a, b, c);
    c0[0] = c[0], c0[1] = c[1], c1[0] = c[2], c1[1] = c[3];
#endif
  }

  // Four 8 x 8 matrices of 16-bit elements: lane l gives the place of row l % 8 of matrix l / 8, and gets of each matrix row
  // l / 4, elements 2 (l % 4) and the next; transposed: of the matrix's transpose.
  template <bool kTransposed>
  GPU_DEVICE static void load_matrices(uint32_t offset, uint32_t (&words)[4]) {
#if defined(GPU_NVIDIA)
    const uint32_t at = gpu::shared_address(offset);
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                   : "r"(at)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                   : "r"(at)
                   : "memory");
    }
#elif defined(GPU_ON_HOST)
    gpu::host::Thread& thread = gpu::host::current();
    const uint32_t* rows = thread.gather(&offset, 1, kWave);
    const uint32_t lane = thread.thread % kWave;
    for (uint32_t m = 0; m < 4; ++m) {
      const auto element = [&](uint32_t row, uint32_t col) {
        return static_cast<uint32_t>(gpu::shared_load<uint16_t>(rows[m * 8 + row] + col * 2));
      };
      const uint32_t i = lane / 4, j = lane % 4 * 2;
      words[m] = kTransposed ? element(j, i) | element(j + 1, i) << 16
                             : element(i, j) | element(i, j + 1) << 16;
    }
#endif
  }

  // 16 bytes into workgroup memory without a register between; zeros where not `real`.
  GPU_DEVICE static void copy_async(uint32_t to, const void* from, bool real) {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu::shared_address(to)),
                 "l"(from), "r"(real ? 16 : 0)
                 : "memory");
#elif defined(GPU_ON_HOST)
    gpu::shared_store(to, real ? gpu::load128(from) : gpu::Bits128{});
#endif
  }
  GPU_DEVICE static void wait_for_copies() {
#if defined(GPU_NVIDIA)
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
  }
};

template <class T, class Shape>
struct QuadTile {
  static constexpr int kWave = 32, kWaves = Shape::kWaves, kThreads = kWave * kWaves;
  static constexpr int kDim = Shape::kDim, kKeys = Shape::kKeys, kTiles = Shape::kTiles;
  static constexpr int kWaveRows = 16 * kTiles, kRows = kWaveRows * kWaves;
  static constexpr int kElements = 2;
  static constexpr int kSlots = 2 * kTiles;
  static constexpr int kRunTiles = kKeys / 8;
  static constexpr int kRun = kKeys / 4;
  static constexpr int kDimSteps = kDim / 16;
  static constexpr int kResident = kDim == 256 ? 1 : 2;  // see GPU_KERNEL
  static constexpr bool kHoldMask = kRun % 8 == 0;       // a step's mask waits in registers

  using Element = T;
  using Scores = gpu::Floats<2>[kSlots][kRunTiles];
  using Output = gpu::Floats<2>[kSlots][kDim / 8];
  static constexpr bool kQueryShared = Shape::kQueryShared;
  using Query = uint32_t[kTiles][kQueryShared ? 1 : kDimSteps][4];

  static constexpr uint32_t kRowBytes = kDim * 2;
  static constexpr bool kAliased = false;
  static constexpr uint32_t kKeyAt = 0, kValueAt = kKeys * kRowBytes,
                            kQueryAt = 2 * kKeys * kRowBytes;
  static constexpr uint32_t kSharedBytes = kQueryAt + kRows * kRowBytes;

  // Where 16 bytes (number `chunk` of a row) of K or V stand. swizzle is one for all keys of a lane's run of the same parity.
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
      // One address that moves on, not one for each pass: registers are short.
      const typename T::Storage* from = at + r * stride + c * 8;
      const int64_t pass = kPassRows * stride;
      if (keys >= kKeys && head_dim == kDim) {
        GPU_UNROLL for (int i = 0; i < kPasses; ++i, from += pass) {
          MmaSm80::copy_async(to + place(r + i * kPassRows, c), from, true);
        }
        return;
      }
      GPU_UNROLL for (int i = 0; i < kPasses; ++i, from += pass) {
        const bool real = r + i * kPassRows < keys && c * 8 < head_dim;
        MmaSm80::copy_async(to + place(r + i * kPassRows, c), real ? from : at, real);
      }
    }
    GPU_DEVICE void forget() {}
    GPU_DEVICE void commit(uint32_t) const { MmaSm80::wait_for_copies(); }
  };
  using KeyCopy = Copy;
  using ValueCopy = Copy;

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

  GPU_DEVICE float max_of_row(float x) const {
    x = gpu::max(x, gpu::exchange<kWave>(x, 1));
    return gpu::max(x, gpu::exchange<kWave>(x, 2));
  }
  GPU_DEVICE float sum_of_row(float x) const {
    x += gpu::exchange<kWave>(x, 1);
    return x + gpu::exchange<kWave>(x, 2);
  }

  GPU_DEVICE void load_query(const AttentionParams& p, const typename T::Storage* q, int rows,
                             Query& query) const {
    constexpr int kChunks = kDim / 8;
    const uint32_t sign = p.flags & kNegate ? 0x80008000u : 0;
    for (int i = static_cast<int>(gpu::thread()); i < kRows * kChunks; i += kThreads) {
      const int r = i / kChunks, c = i % kChunks;
      gpu::Bits128 bits{};
      if (r < rows && c * 8 < p.head_dim) bits = gpu::load128(q + r * p.q_stride.row + c * 8);
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
      GPU_UNROLL for (int t = 0; t < kRunTiles; ++t) s[slot][t][0] = s[slot][t][1] = 0;
    }
    // Matrices 0 and 1: both halves of 16 elements of an even tile's keys; 2 and 3: of the next tile's.
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
      GPU_UNROLL for (int t = 0; t < kRunTiles; t += 2) {
        uint32_t b[4];
        MmaSm80::load_matrices<false>(at + t * 2 * kRowBytes, b);
        GPU_UNROLL for (int m = 0; m < kTiles; ++m) {
          MmaSm80::multiply<T>(a[m], b[0], b[1], s[2 * m][t], s[2 * m + 1][t]);
          MmaSm80::multiply<T>(a[m], b[2], b[3], s[2 * m][t + 1], s[2 * m + 1][t + 1]);
        }
      }
    }
  }

  using Weights = uint32_t[kSlots][kRunTiles];
  GPU_DEVICE static void pack(const Scores& p, Weights& weights, float (&sum)[kSlots]) {
    GPU_UNROLL for (int slot = 0; slot < kSlots; ++slot) {
      GPU_UNROLL for (int t = 0; t < kRunTiles; ++t) {
        weights[slot][t] = pack2(T{}, p[slot][t][0], p[slot][t][1]);
        sum[slot] += p[slot][t][0] + p[slot][t][1];
      }
    }
  }
  static constexpr bool kSumIsOfRounded = false;

  GPU_DEVICE void accumulate(const Weights& weights, Output& o) const {
    // Matrices 0 and 1: eight columns of V for the keys of an even and an odd tile; 2 and 3: the next eight columns.
    const int n = lane % 8, key = n / 2 * kRun + n % 2 + lane / 8 % 2 * 2, chunk = lane / 16;
    GPU_UNROLL for (int t = 0; t < kRunTiles; t += 2) {
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

  // A quad's lanes trade words, so that each stores 16 bytes.
  GPU_DEVICE void store(const AttentionParams& p, const Output& o, int slot, float factor,
                        typename T::Storage* out, bool real) const {
    GPU_UNROLL for (int u = 0; u < kDim / 8; u += 4) {
      gpu::Bits128 bits;
      GPU_UNROLL for (int i = 0; i < 4; ++i) {
        bits.word[i] = pack2(T{}, o[slot][u + i][0] * factor, o[slot][u + i][1] * factor);
      }
      GPU_UNROLL for (int bit = 1; bit <= 2; bit *= 2) {
        const bool upper = (quad & bit) != 0;
        GPU_UNROLL for (int i = 0; i < 4; ++i) {
          if (i & bit) continue;
          const uint32_t got = gpu::exchange<kWave>(upper ? bits.word[i] : bits.word[i | bit], bit);
          if (upper) {
            bits.word[i] = got;
          } else {
            bits.word[i | bit] = got;
          }
        }
      }
      const int d = (u + quad) * 8;
      if (real && d < p.head_dim) gpu::store128(out + d, bits);
    }
  }
};

}  // namespace kernels::hip
