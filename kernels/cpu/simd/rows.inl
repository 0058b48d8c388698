// kernels/cpu/simd/rows.inl: starts and finishes a block's rows, for every kernel
//
//   start_rows   max = -inf or the sink, sum = 0 or 1, out = 0; the keys that each row sees
//   ...          the kernel visits tiles of keys and updates max, sum and out
//   finish_rows  out / sum -> the output tensor; max + log(sum) -> lse
//
// Each row's state lies in Scratch: max, sum [kSumLanes] (its lanes are added up at the end), and
// out [v_stride], zero-padded.
//
// Invariant: out / sum is the attention over the keys visited so far, whatever max the weights
// refer to. A row that has seen nothing has sum 0 and gives zeros and lse -inf.
#if defined(KERNELS_CPU_SIMD_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef KERNELS_CPU_SIMD_ROWS_INL
#undef KERNELS_CPU_SIMD_ROWS_INL
#else
#define KERNELS_CPU_SIMD_ROWS_INL
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/common/half.hpp"
#include "kernels/common/online_softmax.hpp"
#include "kernels/common/problem.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/block.hpp"
#include "kernels/cpu/simd/convert.inl"
#include "kernels/cpu/simd/pack.inl"
#include "kernels/cpu/simd/vectors.inl"
#include "kernels/cpu/workspace.hpp"

HWY_BEFORE_NAMESPACE();
namespace kernels::cpu::HWY_NAMESPACE {

// Sets every row's softmax state, out, mask and interval of keys. Returns the keys that some row of
// the block sees.
inline KeyRange start_rows(const Block& block, const Scratch& scratch, bool sinks) {
  const Problem& p = *block.run->problem;
  const Tensor& t = block.run->args->sinks;
  KeyRange seen{INT64_MAX, 0};
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t i = block.query(r), head = block.head(r);
    if (p.mask != Mask::none) {
      const Tensor& m = block.run->args->mask;
      scratch.mask_rows[r] =
          element(m, block.batch * m.stride[0] + head * m.stride[1] + i * m.stride[2]);
    }
    const KeyRange keys = visible_keys(p, i, block.sequence);
    scratch.visible[r] = keys;
    if (keys.begin < keys.end)
      seen = {std::min(seen.begin, keys.begin), std::max(seen.end, keys.end)};
    SoftmaxState state;
    if (sinks) state = start_with_sink(load_float(DType::f32, t.data, head * t.stride[0]));
    scratch.max[r] = state.max;
    float* sum = scratch.sum + r * kSumLanes;
    std::fill(sum, sum + kSumLanes, 0.0f);
    sum[0] = state.sum;
  }
  std::fill(scratch.out, scratch.out + block.rows * scratch.v_stride, 0.0f);
  return seen;
}

// Divides by the sum of weights and writes out and lse. `weight_of_max(row)` is the weight that the
// row's max has: sum is measured in it. out is multiplied by value_scale.
template <class WeightOfMax>
inline void finish_rows(const Block& block, const Scratch& scratch,
                        const WeightOfMax& weight_of_max, float value_scale) {
  const Run& run = *block.run;
  const Problem& p = *run.problem;
  const Args& args = *run.args;
  const Floats d;
  for (int64_t r = 0; r < block.rows; ++r) {
    SoftmaxState state{scratch.max[r],
                       hn::GetLane(hn::SumOfLanes(d, hn::Load(d, scratch.sum + r * kSumLanes)))};
    float* row = scratch.out + r * scratch.v_stride;
    const Vector factor = hn::Set(d, 1.0f / state.sum), scale = hn::Set(d, value_scale);
    for (int64_t x = 0; x < scratch.v_stride; x += kLanes) {
      const Vector o = hn::Load(d, row + x);
      hn::Store(state.sum == 0 ? hn::Zero(d) : hn::Mul(hn::Mul(o, factor), scale), d, row + x);
    }
    const int64_t i = block.query(r);
    const int64_t offset = query_row(p, args.out, block.sequence, block.batch, i, block.head(r));
    store_row(out_dtype(p), row, p.head_dim_v,
              static_cast<char*>(args.out.data) + offset * element_bytes(out_dtype(p)));
    if (p.lse) {
      if (run.plain_scores) state.max *= run.score_scale;  // plain scores are not scaled yet
      state.sum /= weight_of_max(r);
      const int64_t at = lse_element(p, args.lse, block.sequence, block.batch, i, block.head(r));
      static_cast<float*>(args.lse.data)[at] = log_sum_exp(state);
    }
  }
}

inline void finish_rows(const Block& block, const Scratch& scratch) {
  finish_rows(
      block, scratch, [](int64_t) { return 1.0f; }, 1.0f);
}

}  // namespace kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KERNELS_CPU_SIMD_ROWS_INL
