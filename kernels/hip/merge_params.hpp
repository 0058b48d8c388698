// kernels/hip/merge_params.hpp: the one argument of the kernels that merge: one merge's tensors
//
// launch/merge.cpp fills it on the host; a kernel takes it by value.
#pragma once

#include "kernels/hip/params.hpp"

namespace kernels::hip {

inline constexpr int kMergeThreads = 256;  // of a workgroup
inline constexpr int kMergeLanes = 32;     // the most lanes that share a row
// The most partials of one launch, and the most different layouts of them: what a kernel's argument
// of 4 KiB has room for. Most merges have partials of one layout.
inline constexpr int kMaxPartials = 160, kMaxMergeLayouts = 16;

// How the tensors of a partial, or of the result, lie.
struct MergeLayout {
  Strides out, lse;
};

struct MergeParams {
  void* out;
  float* lse;  // null: not wanted
  MergeLayout layout;
  int64_t rows;        // batch * seq * heads
  int64_t grid_rows;   // rows that the whole grid merges at a time
  int64_t seq, heads;  // of a packed merge, batch is 1
  int64_t dim;
  int32_t count;
  int32_t lanes;  // that share a row: a power of two, at most kMergeLanes
  uint32_t wide;  // every row of every partial starts at a multiple of 16 bytes, and every row of
                  // out at one of 4 elements
  int32_t layout_of[kMaxPartials];  // which of layouts
  const float* outs[kMaxPartials];
  const float* lses[kMaxPartials];
  MergeLayout layouts[kMaxMergeLayouts];
};

}  // namespace kernels::hip
