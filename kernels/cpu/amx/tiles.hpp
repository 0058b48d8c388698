// kernels/cpu/amx/tiles.hpp: 32 rows times 32 columns of bf16 operands into float sums, on AMX and in plain C++
//
// What both implementations share is one layout: 32 elements of a row of a are contiguous; b lies in tiles of 32 rows by 16 columns, in
// which each 32-bit word holds two rows' elements of one column ([16 pairs of rows][16 columns][2]), 1 KiB in a piece.
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

// Operands whose products are added up: a b, and where a2 is not null a2 b.
struct Term {
  const uint16_t* a;
  const uint16_t* a2;
  const uint16_t* b;
};

// The shape of one product of 32 rows by 16 or 32 columns.
struct TileShape {
  int64_t a_stride;  // elements between rows of a
  int64_t a_lower;   // elements from a's first row to its 16th
  int64_t a_step;    // elements from one tile of depth to the next
  int64_t steps;     // tiles of depth; b's follow each other
  int64_t b_stride;  // elements between b's first and second 16 columns
  int64_t c_stride;  // floats between rows of the sums
};

// sums (kWide: 32 columns, else 16) = (kAdd: themselves) + all terms.
struct PlainTiles {
  static bool attainable() { return true; }
  static void start() {}
  static void stop() {}

  template <bool kWide, bool kAdd>
  static void multiply(const Term* terms, int count, const TileShape& shape, float* sums) {
    constexpr int64_t kColumns = (kWide ? 2 : 1) * kTileColumns;
    float sum[kTilePairRows][kColumns];
    for (int64_t r = 0; r < kTilePairRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) sum[r][c] = kAdd ? sums[r * shape.c_stride + c] : 0.0f;
    }
    for (int n = 0; n < count; ++n) {
      for (const uint16_t* operand : {terms[n].a, terms[n].a2}) {
        if (operand == nullptr) continue;
        for (int64_t x = 0; x < shape.steps * kTileDepth; x += 2) {
          float b[2][kColumns];
          for (int64_t c = 0; c < kColumns; ++c) {
            const uint16_t* pair = terms[n].b + c / kTileColumns * shape.b_stride +
                                   x * kTileColumns + c % kTileColumns * 2;
            b[0][c] = bf16_to_f32(pair[0]), b[1][c] = bf16_to_f32(pair[1]);
          }
          for (int64_t r = 0; r < kTilePairRows; ++r) {
            const uint16_t* a = operand + r / kTileRows * shape.a_lower +
                                r % kTileRows * shape.a_stride + x / kTileDepth * shape.a_step +
                                x % kTileDepth;
            const float even = bf16_to_f32(a[0]), odd = bf16_to_f32(a[1]);
            for (int64_t c = 0; c < kColumns; ++c) sum[r][c] += even * b[0][c] + odd * b[1][c];
          }
        }
      }
    }
    for (int64_t r = 0; r < kTilePairRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) sums[r * shape.c_stride + c] = sum[r][c];
    }
  }
};

#if defined(__x86_64__)

// Highway knows no AMX: these are the intrinsics.
#define KERNELS_CPU_AMX __attribute__((target("amx-tile,amx-bf16")))

struct AmxTiles {
  // The processor has it, and the operating system grants this process the tile registers (Linux: on request).
  static bool attainable() {
    uint32_t eax = 7, ebx = 0, ecx = 0, edx = 0;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    constexpr uint32_t kBf16 = 1u << 22, kTile = 1u << 24;
    if ((edx & kBf16) == 0 || (edx & kTile) == 0) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }

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

  // Tiles 0 to 3: the sums; 4 and 5: a's two; 6 and 7: b's.
  template <bool kWide, bool kAdd>
  KERNELS_CPU_AMX static void multiply(const Term* terms, int count, const TileShape& shape,
                                       float* sums) {
    const int64_t c_bytes = shape.c_stride * 4;
    const int64_t a_bytes = shape.a_stride * 2;
    float* lower = sums + kTileRows * shape.c_stride;
    if constexpr (kAdd) {
      _tile_loadd(0, sums, c_bytes);
      _tile_loadd(2, lower, c_bytes);
      if constexpr (kWide) _tile_loadd(1, sums + kTileColumns, c_bytes);
      if constexpr (kWide) _tile_loadd(3, lower + kTileColumns, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(2);
      if constexpr (kWide) _tile_zero(1);
      if constexpr (kWide) _tile_zero(3);
    }
    for (int n = 0; n < count; ++n) {
      const uint16_t* b = terms[n].b;
      const int64_t a2 = terms[n].a2 == nullptr ? 0 : terms[n].a2 - terms[n].a;
      const uint16_t* a = terms[n].a;
      for (int64_t step = 0; step < shape.steps; ++step) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(5, a + shape.a_lower, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (kWide) {
          _tile_loadd(7, b + shape.b_stride, 64);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(3, 5, 7);
        }
        if (a2 != 0) {
          _tile_loadd(4, a + a2, a_bytes);
          _tile_loadd(5, a + a2 + shape.a_lower, a_bytes);
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
    _tile_stored(0, sums, c_bytes);
    _tile_stored(2, lower, c_bytes);
    if constexpr (kWide) _tile_stored(1, sums + kTileColumns, c_bytes);
    if constexpr (kWide) _tile_stored(3, lower + kTileColumns, c_bytes);
  }
};

#undef KERNELS_CPU_AMX
#endif

}  // namespace kernels::cpu
