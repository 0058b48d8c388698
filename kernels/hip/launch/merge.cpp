// kernels/hip/launch/merge.cpp: the launch of a merge of results over parts of the keys
#include "kernels/hip/launch/merge.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace kernels::hip {
namespace {

static_assert(sizeof(MergeParams) <= sizeof Launch::params);

// Workgroups of the largest grid, for each multiprocessor: several times as many as fit at once, so
// that those which end early leave none idle.
constexpr int64_t kGroupsPerMultiprocessor = 32;

// The strides of out's rows. Where an index can only be 0 its stride is 0, so that layouts compare
// equal that differ nowhere.
Strides strides_of(const Tensor& out) {
  const int32_t row = out.ndim - 3;
  const auto stride = [&](int32_t n) { return n >= 0 && out.shape[n] > 1 ? out.stride[n] : 0; };
  return {stride(row - 1), stride(row), stride(row + 1)};
}

// The same of lse, in which heads come before rows.
Strides lse_strides_of(const Tensor& lse) {
  const int32_t head = lse.ndim - 2;
  const auto stride = [&](int32_t n) { return n >= 0 && lse.shape[n] > 1 ? lse.stride[n] : 0; };
  return {stride(head - 1), stride(head + 1), stride(head)};
}

bool same(const MergeLayout& a, const MergeLayout& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;  // integers without padding
}

// Whether every row starts at a multiple of `elements` elements.
bool is_aligned(const Tensor& out, const Strides& stride, int64_t elements) {
  const auto bytes = static_cast<uintptr_t>(elements * element_bytes(out.dtype));
  return reinterpret_cast<uintptr_t>(out.data) % bytes == 0 && stride.batch % elements == 0 &&
         stride.row % elements == 0 && stride.head % elements == 0;
}

// Adds partial i to params. RETURNS false if that takes one layout too many.
bool add_partial(const Tensor& out, const Tensor& lse, int64_t i, int32_t* layouts,
                 MergeParams* p) {
  const MergeLayout layout{strides_of(out), lse_strides_of(lse)};
  int32_t n = 0;
  while (n < *layouts && !same(p->layouts[n], layout)) ++n;
  if (n == kMaxMergeLayouts) return false;
  p->layouts[n] = layout;
  *layouts = std::max(*layouts, n + 1);
  p->layout_of[i] = n;
  p->outs[i] = static_cast<const float*>(out.data);
  p->lses[i] = static_cast<const float*>(lse.data);
  if (!is_aligned(out, layout.out, 4)) p->wide = 0;
  return true;
}

const char* kernel_for(DType dtype) {
  if (dtype == DType::f32) return "merge_f32_kernel";
  return dtype == DType::f16 ? "merge_f16_kernel" : "merge_bf16_kernel";
}

}  // namespace

int32_t launches(const Merge& merge, int32_t multiprocessors, Launch* out, std::string* reason) {
  if (merge.count > kMaxPartials) {
    *reason = "count: found " + std::to_string(merge.count) + ", expected at most " +
              std::to_string(kMaxPartials);
    return -1;
  }
  const Tensor& result = merge.out;
  const int32_t row = result.ndim - 3;
  MergeParams p{};
  p.out = result.data, p.lse = static_cast<float*>(merge.lse.data);
  p.layout = {strides_of(result), lse_strides_of(merge.lse)};
  p.seq = result.shape[row], p.heads = result.shape[row + 1], p.dim = result.shape[row + 2];
  p.rows = (row > 0 ? result.shape[0] : 1) * p.seq * p.heads;
  if (p.rows == 0 || p.dim == 0) return 0;
  p.count = static_cast<int32_t>(merge.count);
  p.wide = is_aligned(result, p.layout.out, 4) ? 1 : 0;
  int32_t layouts = 0;
  for (int64_t i = 0; i < merge.count; ++i) {
    if (add_partial(merge.outs[i], merge.lses[i], i, &layouts, &p)) continue;
    *reason = "outs and lses: found more than " + std::to_string(kMaxMergeLayouts) +
              " different layouts, expected at most that";
    return -1;
  }
  const auto quads = static_cast<uint64_t>((p.dim + 3) / 4);
  p.lanes = static_cast<int32_t>(std::min<uint64_t>(std::bit_ceil(quads), kMergeLanes));
  const int64_t group_rows = kMergeThreads / p.lanes;
  const int64_t groups =
      std::min((p.rows + group_rows - 1) / group_rows, kGroupsPerMultiprocessor * multiprocessors);
  p.grid_rows = groups * group_rows;
  out->object = "merge", out->kernel = kernel_for(result.dtype);
  out->grid[0] = static_cast<uint32_t>(groups), out->grid[1] = out->grid[2] = 1;
  out->block = kMergeThreads;
  out->shared_bytes = 0;
  out->map_count = 0;
  out->params_bytes = sizeof p;
  std::memcpy(out->params, &p, sizeof p);
  return 1;
}

}  // namespace kernels::hip
