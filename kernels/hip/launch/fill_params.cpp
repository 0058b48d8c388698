// kernels/hip/launch/fill_params.cpp: fills the kernels' argument for one run
#include "kernels/hip/launch/fill_params.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/hip/gpu.hpp"

namespace kernels::hip {
namespace {

Strides strides_of(const Tensor& t) { return {t.stride[0], t.stride[1], t.stride[2]}; }

// Whether the keys of every mask row can be read in words of 16 bytes.
bool reads_wide(const Tensor& mask) {
  const int64_t bytes = element_bytes(mask.dtype);
  bool wide = mask.stride[3] == 1 && reinterpret_cast<uintptr_t>(mask.data) % 16 == 0;
  for (int d = 0; d < 3; ++d)
    wide = wide && (mask.shape[d] <= 1 || mask.stride[d] % (16 / bytes) == 0);
  return wide;
}

}  // namespace

bool strides_fit(const Problem& problem, const Args& args) {
  return args.k.stride[1] <= kLargestRowStride &&
         value_tensor(problem, args).stride[1] <= kLargestRowStride;
}

AttentionParams fill_params(const Problem& problem, const Args& args) {
  AttentionParams p{};
  const Tensor& v = value_tensor(problem, args);
  p.q = args.q.data, p.k = args.k.data, p.v = v.data, p.out = args.out.data;
  p.q_stride = strides_of(args.q), p.k_stride = strides_of(args.k), p.v_stride = strides_of(v),
  p.out_stride = strides_of(args.out);
  p.batch = static_cast<int32_t>(args.q.shape[0]);
  p.heads_q = static_cast<int32_t>(args.q.shape[2]);
  p.heads_per_kv = static_cast<int32_t>(args.q.shape[2] / std::max<int64_t>(1, args.k.shape[2]));
  p.seq_q = static_cast<int32_t>(args.q.shape[1]);
  p.seq_kv = static_cast<int32_t>(args.k.shape[1]);
  p.head_dim = static_cast<int32_t>(problem.head_dim);
  p.head_dim_v = static_cast<int32_t>(problem.head_dim_v);
  p.diagonal = problem.align == Align::top_left ? 0 : int64_t{p.seq_kv} - p.seq_q;
  if (problem.diagonal_offset)
    p.diagonal_offsets = static_cast<const int32_t*>(args.diagonal_offset.data);
  // A window of 2^32 reaches past every key that there can be.
  const int64_t unbounded = int64_t{1} << 32;
  p.window_left = problem.window_left < 0 ? unbounded : std::min(problem.window_left, unbounded);
  p.window_right = problem.window_right < 0 ? unbounded : std::min(problem.window_right, unbounded);
  if (problem.causal) p.window_right = 0;
  if (problem.mask != Mask::none) {
    p.mask = args.mask.data;
    p.mask_batch = args.mask.stride[0], p.mask_head = args.mask.stride[1];
    p.mask_row = args.mask.stride[2], p.mask_key = args.mask.stride[3];
    if (problem.mask == Mask::boolean) p.flags |= kBooleanMask;
    if (problem.mask == Mask::additive && args.mask.dtype == DType::f32) p.flags |= kMaskF32;
    if (reads_wide(args.mask)) p.flags |= kMaskVector;
  }
  if (problem.alibi) {
    p.slopes = static_cast<const float*>(args.alibi_slopes.data);
    p.slope_batch = args.alibi_slopes.stride[0], p.slope_head = args.alibi_slopes.stride[1];
  }
  if (problem.sinks) {
    p.sinks = static_cast<const float*>(args.sinks.data);
    p.sink_stride = args.sinks.stride[0];
  }
  if (problem.lse) {
    p.lse = static_cast<float*>(args.lse.data);
    p.lse_batch = args.lse.stride[0], p.lse_head = args.lse.stride[1],
    p.lse_row = args.lse.stride[2];
  }
  const float scale =
      problem.scale != 0 ? problem.scale : 1 / std::sqrt(static_cast<float>(problem.head_dim));
  if (scale < 0) p.flags |= kNegativeScale;
  p.softcap = problem.softcap;
  p.score_scale = std::abs(scale) / (problem.softcap != 0 ? problem.softcap : 1);
  p.exp_scale = std::abs(scale) * gpu::kLog2E;
  const bool scaled = problem.softcap != 0 || problem.alibi;
  if (scaled) p.flags |= kScaledScores;
  if (scaled || problem.mask == Mask::additive) p.exp_scale = gpu::kLog2E;
  p.mask_scale = scaled ? 1 : p.score_scale;
  return p;
}

}  // namespace kernels::hip
