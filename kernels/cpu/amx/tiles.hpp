// kernels/cpu/amx/tiles.hpp: multiplies 32 rows by 16 or 32 columns of bf16 operands into float
// sums, on AMX and in plain C++
//
//   sums (+)= a b + a_low b + ... , for each Term
//
//                               b:  columns 0-15   columns 16-31
//                                  |   tile 6   | |   tile 7   |
//    a: rows  0-15   |  tile 4  |  |   tile 0   | |   tile 1   |    sums
//       rows 16-31   |  tile 5  |  |   tile 2   | |   tile 3   |
//
//   a     16 rows x 32 elements, a_stride apart              one step of depth 32 multiplies 1 KiB
//   b     [16 pairs of rows][16 columns][2], contiguous      tiles of a and b, and keeps the sums
//   sums  16 rows x 16 floats, sums_stride apart             in tiles 0 to 3
//
// AMX multiplies pairs of bf16 and adds the products to floats. That is why b holds two rows'
// elements of a column in one 32-bit word. A step loads two tiles of a and two of b for four
// products, which take 64 cycles. To load a tile takes 8 cycles from the L1 cache and 21 to 32 from
// L2, so operands should stay in L1. A term's a_low reuses the tile of b that is loaded already.
//
// PlainTiles serves tests: the same layout and terms on any machine, with float additions in a
// different order.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/common/half.hpp"

namespace kernels::cpu {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileColumns = 16;
inline constexpr int64_t kTileDepth = 32;                            // rows of b in one tile
inline constexpr int64_t kTileElements = kTileDepth * kTileColumns;  // of b
inline constexpr int64_t kTilePairRows = 2 * kTileRows;              // rows of a and of the sums

// Operands whose products are added to the sums: a b, and a_low b unless a_low is null.
struct Term {
  const uint16_t* a;
  const uint16_t* a_low;
  const uint16_t* b;
};

// Where the operands' tiles lie. Strides count elements: bf16 of a and b, floats of the sums.
struct TileShape {
  int64_t a_stride;       // between rows of a
  int64_t a_second_tile;  // from a's row 0 to its row 16
  int64_t a_step;         // from one tile of depth to the next
  int64_t steps;          // tiles of depth; those of b follow each other
  int64_t b_second_tile;  // from b's column 0 to its column 16
  int64_t sums_stride;    // between rows of the sums
};

struct PlainTiles {
  static bool attainable() { return true; }
  static void start() {}
  static void stop() {}

  // Computes 32 columns if kWide, else 16. Adds to the sums if kAdd, else overwrites them.
  template <bool kWide, bool kAdd>
  static void multiply(const Term* terms, int count, const TileShape& shape, float* sums) {
    constexpr int64_t kColumns = (kWide ? 2 : 1) * kTileColumns;
    float sum[kTilePairRows][kColumns];
    for (int64_t r = 0; r < kTilePairRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c)
        sum[r][c] = kAdd ? sums[r * shape.sums_stride + c] : 0.0f;
    }
    for (int n = 0; n < count; ++n) {
      for (const uint16_t* operand : {terms[n].a, terms[n].a_low}) {
        if (operand == nullptr) continue;
        for (int64_t x = 0; x < shape.steps * kTileDepth; x += 2) {
          float b[2][kColumns];
          for (int64_t c = 0; c < kColumns; ++c) {
            const uint16_t* pair = terms[n].b + c / kTileColumns * shape.b_second_tile +
                                   x * kTileColumns + c % kTileColumns * 2;
            b[0][c] = bf16_to_f32(pair[0]), b[1][c] = bf16_to_f32(pair[1]);
          }
          for (int64_t r = 0; r < kTilePairRows; ++r) {
            const uint16_t* a = operand + r / kTileRows * shape.a_second_tile +
                                r % kTileRows * shape.a_stride + x / kTileDepth * shape.a_step +
                                x % kTileDepth;
            const float even = bf16_to_f32(a[0]), odd = bf16_to_f32(a[1]);
            for (int64_t c = 0; c < kColumns; ++c) sum[r][c] += even * b[0][c] + odd * b[1][c];
          }
        }
      }
    }
    for (int64_t r = 0; r < kTilePairRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) sums[r * shape.sums_stride + c] = sum[r][c];
    }
  }
};

#if defined(__x86_64__)

// Highway has no AMX: these are the compiler's intrinsics.
#define KERNELS_CPU_AMX __attribute__((target("amx-tile,amx-bf16")))

struct AmxTiles {
  // Whether the processor has AMX and the operating system grants this process the tile registers
  // (Linux: on request).
  static bool attainable() {
    uint32_t eax = 7, ebx = 0, ecx = 0, edx = 0;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    constexpr uint32_t kBf16 = 1u << 22, kTile = 1u << 24;
    if ((edx & kBf16) == 0 || (edx & kTile) == 0) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }

  // Configures the thread's tile registers: eight of 16 rows of 64 bytes.
  KERNELS_CPU_AMX static void start() {
    struct alignas(64) Config {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static constexpr Config kConfig;
    _tile_loadconfig(&kConfig);
  }

  KERNELS_CPU_AMX static void stop() { _tile_release(); }

  // As PlainTiles::multiply. REQUIRES: start was called on this thread.
  template <bool kWide, bool kAdd>
  KERNELS_CPU_AMX static void multiply(const Term* terms, int count, const TileShape& shape,
                                       float* sums) {
    const int64_t sums_bytes = shape.sums_stride * 4;
    const int64_t a_bytes = shape.a_stride * 2;
    float* lower = sums + kTileRows * shape.sums_stride;
    if constexpr (kAdd) {
      _tile_loadd(0, sums, sums_bytes);
      _tile_loadd(2, lower, sums_bytes);
      if constexpr (kWide) _tile_loadd(1, sums + kTileColumns, sums_bytes);
      if constexpr (kWide) _tile_loadd(3, lower + kTileColumns, sums_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(2);
      if constexpr (kWide) _tile_zero(1);
      if constexpr (kWide) _tile_zero(3);
    }
    for (int n = 0; n < count; ++n) {
      const uint16_t* b = terms[n].b;
      const int64_t low = terms[n].a_low == nullptr ? 0 : terms[n].a_low - terms[n].a;
      const uint16_t* a = terms[n].a;
      for (int64_t step = 0; step < shape.steps; ++step) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, a + shape.a_second_tile, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (kWide) {
          _tile_loadd(7, b + shape.b_second_tile, 64);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(3, 5, 7);
        }
        if (low != 0) {
          _tile_loadd(4, a + low, a_bytes);
          _tile_loadd(5, a + low + shape.a_second_tile, a_bytes);
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(2, 5, 6);
          if constexpr (kWide) {
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
          }
        }
        a += shape.a_step;
        b += kTileElements;
      }
    }
    _tile_stored(0, sums, sums_bytes);
    _tile_stored(2, lower, sums_bytes);
    if constexpr (kWide) _tile_stored(1, sums + kTileColumns, sums_bytes);
    if constexpr (kWide) _tile_stored(3, lower + kTileColumns, sums_bytes);
  }
};

#undef KERNELS_CPU_AMX
#endif

}  // namespace kernels::cpu
