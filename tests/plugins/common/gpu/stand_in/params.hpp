// tests/plugins/common/gpu/stand_in/params.hpp: the argument of a stand-in kernel
#pragma once

#include "kernels/common/problem.hpp"

namespace kernels::hip {

struct StandInTensor {
  void* data;
  int32_t stride[4];
};

struct StandInParams {
  StandInTensor q, k, v, out, mask, lse, alibi_slopes, sinks, k_scale, v_scale;
  float* workspace;
  int64_t window_left, window_right;
  int32_t batch, heads_q, heads_kv, seq_q, seq_kv, head_dim, head_dim_v;
  float scale, softcap;
  DType dtype, mask_dtype, kv_dtype;
  KvScale kv_scale;
  Mask mask_kind;
  Align align;
  bool causal, has_alibi, has_sinks, wants_lse;
  int32_t step, steps;  // of several launches, which one this is
};
static_assert(sizeof(StandInParams) <= 512);

}  // namespace kernels::hip
