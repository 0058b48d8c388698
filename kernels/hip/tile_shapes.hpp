// kernels/hip/tile_shapes.hpp: a GPU's family, a dtype and a head_dim into the shape of the tiles that its kernels work in
#pragma once

#include "kernels/hip/tile/mma_sm80.hpp"
#include "kernels/hip/tile/transposed.hpp"
#include "kernels/hip/tile/valu.hpp"

namespace kernels::hip {

// What multiplies. valu32 and valu64: waves of 32 and 64 lanes with 64 KiB of workgroup memory; valu_large: NVIDIA's more.
enum class Family { wmma_gfx11, wmma_gfx12, mfma, mma_sm80, valu32, valu64, valu_large };

// kWaves waves of kTiles tiles of 16 queries each (valu: kTiles queries a lane), steps of kKeys keys.
template <int kWaveSize, int kWaveCount, int kTileCount, int kKeyCount, int kDimension,
          bool kQueryInShared = false, bool kKeysAliasValues = false>
struct Shape {
  static constexpr int kWave = kWaveSize, kWaves = kWaveCount, kTiles = kTileCount,
                       kKeys = kKeyCount, kDim = kDimension;
  static constexpr bool kQueryShared = kQueryInShared, kAliased = kKeysAliasValues;
};

// Head dimensions are padded to one of these.
inline constexpr int kDims[] = {64, 128, 256};
constexpr int padded_dim(int64_t head_dim) {
  return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}

template <Family kFamily, class T, int kDim>
struct TileOf;

// gfx11 at 256: a lane would hold Q in 128 registers beside 128 of O, so Q is read from workgroup memory, and K and V share
// their place in its 64 KiB.
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
  using Type = QuadTile<T, Shape<32, 8, 1, 64, 256, true>>;
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

// f32 has no matrix instruction of its own precision on most of these, so it is computed by plain multiply-adds.
constexpr Family family_for(Family family, DType dtype) {
  if (dtype != DType::f32) return family;
  if (family == Family::mfma || family == Family::valu64) return Family::valu64;
  return family == Family::mma_sm80 || family == Family::valu_large ? Family::valu_large
                                                                    : Family::valu32;
}

template <Family kFamily, class T, int kDim>
using Tile = typename TileOf<family_for(kFamily, T::kDType), T, kDim>::Type;

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
