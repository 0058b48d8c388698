// kernels/hip/tile_shapes_sm90.hpp: which wgmma tile, in which shape, serves a dtype and head
// dimensions
//
// Registers and workgroup memory decide the shapes, one workgroup to a multiprocessor. A consumer
// holds O (kDimV / 2 floats), scores (kKeys / 2) and weights (kKeys / 4 words) in 240 registers
// where there are two warpgroups of them, in 160 where there are three. Q and kStages of K and V
// share 227 KiB.
//
//   64        three warpgroups: the exponentials take longer than the products, so they get more of
//             the multiprocessor's issue slots
//   128       a causal block walks shorter steps, which waste less at the diagonal
//   256       80 keys are what the memory holds; with masks, 64
#pragma once

#include "kernels/hip/params.hpp"
#include "kernels/hip/tile/wgmma_tile.hpp"

namespace kernels::hip {

template <int kDim, int kDimV, Kind kKind>
struct PipelineShapeOf;
template <Kind kKind>
struct PipelineShapeOf<64, 64, kKind> {
  using Type = PipelineShape<kKind == Kind::generic ? 2 : 3, 128, 2, 64, 64>;
};
template <Kind kKind>
struct PipelineShapeOf<96, 96, kKind> {
  using Type =
      PipelineShape<kKind == Kind::generic ? 2 : 3, kKind == Kind::generic ? 128 : 96, 2, 96, 96>;
};
template <Kind kKind>
struct PipelineShapeOf<128, 128, kKind> {
  using Type = PipelineShape<2, kKind == Kind::nocausal ? 176 : 128, 2, 128, 128>;
};
template <Kind kKind>
struct PipelineShapeOf<192, 128, kKind> {
  using Type = PipelineShape<2, 128, 2, 192, 128>;
};
template <Kind kKind>
struct PipelineShapeOf<192, 192, kKind> {
  using Type = PipelineShape<2, kKind == Kind::generic ? 96 : 112, 2, 192, 192>;
};
template <Kind kKind>
struct PipelineShapeOf<256, 256, kKind> {
  using Type = PipelineShape<2, kKind == Kind::generic ? 48 : 80, 2, 256, 256>;
};

template <class T, int kDim, int kDimV, Kind kKind>
using PipelinedTile = WgmmaTile<T, typename PipelineShapeOf<kDim, kDimV, kKind>::Type>;

}  // namespace kernels::hip
