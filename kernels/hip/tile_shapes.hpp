// kernels/hip/tile_shapes.hpp: which tile, in which shape, serves a family of GPUs, a dtype and a
// head_dim
//
// Registers and workgroup memory decide the shapes: a lane holds Q and O of its queries and the
// scores of a step, and AMD has 64 KiB of workgroup memory. docs/kernels.md has the registers,
// spills and waves of each tile on AMD. Some reasons:
//
//   gfx11, 128   8 waves of 16 queries: 7 waves fit a SIMD's registers, with masks too, and nothing
//                spills
//   gfx11, 256   a lane would hold Q in 128 registers beside 128 of O, so Q stays in workgroup
//                memory, and K and V share one place there
//   sm_80        Q stays in workgroup memory, which leaves almost nothing to spill at 255 registers
//   sm_80, 256   32 keys: 96 KiB of workgroup memory, of which sm_86, sm_89 and sm_120 have 99
#pragma once

#include "kernels/hip/tile/quad.hpp"
#include "kernels/hip/tile/transposed.hpp"
#include "kernels/hip/tile/valu.hpp"

namespace kernels::hip {

// GPUs that one tile serves, named by what multiplies. wgmma_sm90 has its shapes in
// tile_shapes_sm90.hpp. valu32 and valu64: plain multiply-adds in
// waves of 32 and 64 lanes, with 64 KiB of workgroup memory. valu_large: with NVIDIA's larger one.
enum class Family {
  wmma_gfx11,
  wmma_gfx12,
  mfma,
  mma_sm80,
  wgmma_sm90,
  valu32,
  valu64,
  valu_large
};

// A workgroup has kWaves waves of kTiles x 16 queries each (valu: kTiles queries a lane) and walks
// the keys in steps of kKeys. kDim: head_dim, padded. kQueryShared: Q stays in workgroup memory,
// not in registers. kAliased: K and V take turns in one place of workgroup memory.
template <int kWaveSize, int kWaveCount, int kTileCount, int kKeyCount, int kDimension,
          bool kQueryInShared = false, bool kKeysAliasValues = false>
struct Shape {
  static constexpr int kWave = kWaveSize, kWaves = kWaveCount, kTiles = kTileCount,
                       kKeys = kKeyCount, kDim = kDimension;
  static constexpr bool kQueryShared = kQueryInShared, kAliased = kKeysAliasValues;
};

// head_dim is padded to one of these.
inline constexpr int kDims[] = {64, 128, 256};
constexpr int padded_dim(int64_t head_dim) {
  return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}

template <Family kFamily, class T, int kDim>
struct TileOf;

template <class T>
struct TileOf<Family::wmma_gfx11, T, 64> {
  using Type = TransposedTile<WmmaGfx11, T, Shape<32, 4, 2, 32, 64>>;
};
template <class T>
struct TileOf<Family::wmma_gfx11, T, 128> {
  using Type = TransposedTile<WmmaGfx11, T, Shape<32, 8, 1, 64, 128>>;
};
template <class T>
struct TileOf<Family::wmma_gfx11, T, 256> {
  using Type = TransposedTile<WmmaGfx11, T, Shape<32, 4, 1, 32, 256, true, true>>;
};

template <class T>
struct TileOf<Family::wmma_gfx12, T, 64> {
  using Type = TransposedTile<WmmaGfx12, T, Shape<32, 4, 2, 32, 64>>;
};
template <class T>
struct TileOf<Family::wmma_gfx12, T, 128> {
  using Type = TransposedTile<WmmaGfx12, T, Shape<32, 8, 1, 64, 128>>;
};
template <class T>
struct TileOf<Family::wmma_gfx12, T, 256> {
  using Type = TransposedTile<WmmaGfx12, T, Shape<32, 8, 1, 32, 256>>;
};

template <class T, int kDim>
struct TileOf<Family::mfma, T, kDim> {
  using Type =
      TransposedTile<Mfma, T, Shape<64, 4, kDim == 256 ? 1 : 2, kDim == 256 ? 32 : 64, kDim>>;
};

template <class T>
struct TileOf<Family::mma_sm80, T, 64> {
  using Type = QuadTile<T, Shape<32, 4, 2, 64, 64, true>>;
};
template <class T>
struct TileOf<Family::mma_sm80, T, 128> {
  using Type = QuadTile<T, Shape<32, 4, 2, 32, 128, true>>;
};
template <class T>
struct TileOf<Family::mma_sm80, T, 256> {
  using Type = QuadTile<T, Shape<32, 8, 1, 32, 256, true>>;
};

template <class T, int kDim>
struct TileOf<Family::valu32, T, kDim> {
  using Type =
      ValuTile<T,
               Shape<32, 2, kDim == 64 ? 8 : 4, kDim == 256 ? 16 : 32, kDim, false, kDim == 256>>;
};
template <class T, int kDim>
struct TileOf<Family::valu64, T, kDim> {
  using Type =
      ValuTile<T,
               Shape<64, 1, kDim == 64 ? 8 : 4, kDim == 256 ? 16 : 32, kDim, false, kDim == 256>>;
};
template <class T, int kDim>
struct TileOf<Family::valu_large, T, kDim> {
  using Type = ValuTile<T, Shape<32, kDim == 64 ? 4 : 8, kDim == 64 ? 8 : 4, kDim == 256 ? 16 : 32,
                                 kDim, false, kDim == 256>>;
};

// f32 is computed by plain multiply-adds, because most of these GPUs have no matrix instruction of
// its precision.
constexpr Family family_for(Family family, DType dtype) {
  if (dtype != DType::f32) return family;
  if (family == Family::mfma || family == Family::valu64) return Family::valu64;
  return family == Family::mma_sm80 || family == Family::valu_large ? Family::valu_large
                                                                    : Family::valu32;
}

template <Family kFamily, class T, int kDim>
using Tile = typename TileOf<family_for(kFamily, T::kDType), T, kDim>::Type;

// Every tile satisfies AttentionTile. The error for one that does not names what is missing.
template <AttentionTile... Tiles>
constexpr bool are_tiles() {
  return true;
}
template <Family kFamily, class T>
constexpr bool family_has_tiles() {
  return are_tiles<Tile<kFamily, T, 64>, Tile<kFamily, T, 128>, Tile<kFamily, T, 256>>();
}
template <Family kFamily>
constexpr bool family_has_tiles() {
  return family_has_tiles<kFamily, F32>() && family_has_tiles<kFamily, F16>() &&
         family_has_tiles<kFamily, BF16>();
}
static_assert(family_has_tiles<Family::wmma_gfx11>());
static_assert(family_has_tiles<Family::wmma_gfx12>());
static_assert(family_has_tiles<Family::mfma>());
static_assert(family_has_tiles<Family::mma_sm80>());
static_assert(family_has_tiles<Family::valu32>());
static_assert(family_has_tiles<Family::valu64>());
static_assert(family_has_tiles<Family::valu_large>());

// The family of the GPU that device code is compiled for.
#if defined(GPU_NVIDIA)
inline constexpr Family kFamilyHere = Family::mma_sm80;
#elif defined(__gfx90a__) || defined(__gfx942__)
inline constexpr Family kFamilyHere = Family::mfma;
#elif defined(__GFX9__)
inline constexpr Family kFamilyHere = Family::valu64;
#elif defined(__GFX11__)
inline constexpr Family kFamilyHere = Family::wmma_gfx11;
#elif defined(__GFX12__)
inline constexpr Family kFamilyHere = Family::wmma_gfx12;
#else
inline constexpr Family kFamilyHere = Family::valu32;
#endif

}  // namespace kernels::hip
