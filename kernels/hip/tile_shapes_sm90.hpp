// kernels/hip/tile_shapes_sm90.hpp: which wgmma tile, in which shape, serves a dtype and head
// dimensions
//
// Registers and workgroup memory decide the shapes, one workgroup to a multiprocessor. A consumer
// holds O (kColumns / 2 floats), scores (kKeys / 2) and weights (kKeys / 4 words) in 240 registers
// where there are two warpgroups of them, in 160 where there are three. kQueryStages places of Q,
// and kStages places each of K, V and a copied mask, share 227 KiB.
//
//   64        three warpgroups, so that there is work while two of them wait
//   128       two places for Q, so that one block's end overlaps with the next one's start
//   256       80 keys are what the memory holds
//   512       two warpgroups with the same 64 queries, and each half of O's columns: see
//             pipeline_wide_consumer.hpp
//   576, 512  the same, with V in K's place (v_in_k). Only for lists
//   generic   two warpgroups. Up to 256 a step has 64 or 128 keys, since a mask is copied in panels
//             of 64
#pragma once

#include "kernels/hip/params.hpp"
#include "kernels/hip/tile/wgmma_tile.hpp"

namespace kernels::hip {

// Whether a kernel applies masks.
template <Kind kKind>
inline constexpr bool kTakesMasks = kKind == Kind::generic || kKind == Kind::masked;

template <int kDim, int kDimV, Kind kKind>
struct PipelineShapeOf;
template <Kind kKind>
struct PipelineShapeOf<64, 64, kKind> {
  using Type = PipelineShape<kKind == Kind::generic ? 2 : 3, 128, 2, 1, 64, 64>;
};
template <Kind kKind>
struct PipelineShapeOf<96, 96, kKind> {
  using Type =
      PipelineShape<kTakesMasks<kKind> ? 2 : 3, kTakesMasks<kKind> ? 128 : 96, 2, 1, 96, 96>;
};
template <Kind kKind>
struct PipelineShapeOf<128, 128, kKind> {
  using Type = PipelineShape<2, 128, 2, kTakesMasks<kKind> ? 1 : 2, 128, 128>;
};
template <Kind kKind>
struct PipelineShapeOf<192, 128, kKind> {
  using Type = PipelineShape<2, kTakesMasks<kKind> ? 64 : 128, 2, 1, 192, 128>;
};
template <Kind kKind>
struct PipelineShapeOf<192, 192, kKind> {
  using Type = PipelineShape<2, kTakesMasks<kKind> ? 64 : 112, 2, 1, 192, 192>;
};
template <Kind kKind>
struct PipelineShapeOf<256, 256, kKind> {
  using Type = PipelineShape<2, kTakesMasks<kKind> ? 64 : 80, 2, 1, 256, 256>;
};

template <Kind kKind>
struct PipelineShapeOf<512, 512, kKind> {
  using Type = PipelineShape<2, 32, 2, 1, 512, 512, true>;
};

template <Kind kKind>
struct PipelineShapeOf<576, 512, kKind> {
  using Type = PipelineShape<2, 32, 4, 1, 576, 512, true, true>;
};

template <class T, int kDim, int kDimV, Kind kKind>
using PipelinedTile = WgmmaTile<T, typename PipelineShapeOf<kDim, kDimV, kKind>::Type>;

}  // namespace kernels::hip
