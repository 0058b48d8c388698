// tests/plugins/common/gpu/stand_in/kernels.cpp: stand-in kernels in host code, which the fake HIP
// runtime runs
#include <cmath>
#include <cstdlib>
#include <vector>

#include "fakes/hip.hpp"
#include "kernels/common/half.hpp"
#include "kernels/hip/merge_params.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/merge.hpp"
#include "stand_in/params.hpp"

namespace {

using namespace kernels;
using hip::StandInParams;
using hip::StandInTensor;

Tensor tensor(const StandInTensor& from, DType dtype, std::initializer_list<int64_t> shape) {
  Tensor to;
  to.data = from.data;
  to.dtype = dtype;
  for (const int64_t size : shape) {
    to.stride[to.ndim] = from.stride[to.ndim];
    to.shape[to.ndim++] = size;
  }
  return to;
}

void attend(const StandInParams& p) {
  Problem problem;
  problem.dtype = p.dtype, problem.mask = p.mask_kind, problem.mask_dtype = p.mask_dtype,
  problem.align = p.align;
  problem.batch = p.batch, problem.heads_q = p.heads_q, problem.heads_kv = p.heads_kv;
  problem.seq_q = p.seq_q, problem.seq_kv = p.seq_kv;
  problem.head_dim = p.head_dim, problem.head_dim_v = p.head_dim_v;
  problem.kv_dtype = p.kv_dtype, problem.kv_scale = p.kv_scale;
  problem.scale = p.scale, problem.softcap = p.softcap, problem.causal = p.causal;
  problem.window_left = p.window_left, problem.window_right = p.window_right;
  problem.alibi = p.has_alibi, problem.sinks = p.has_sinks, problem.lse = p.wants_lse;
  Args args;
  args.q = tensor(p.q, p.dtype, {p.batch, p.seq_q, p.heads_q, p.head_dim});
  args.k = tensor(p.k, p.kv_dtype, {p.batch, p.seq_kv, p.heads_kv, p.head_dim});
  args.v = tensor(p.v, p.kv_dtype, {p.batch, p.seq_kv, p.heads_kv, p.head_dim_v});
  if (p.kv_scale != KvScale::none) {
    args.k_scale = tensor(p.k_scale, DType::f32, {p.batch, p.seq_kv, p.heads_kv});
    args.v_scale = tensor(p.v_scale, DType::f32, {p.batch, p.seq_kv, p.heads_kv});
  }
  const DType mask_dtype = p.mask_kind == Mask::boolean ? DType::boolean : p.mask_dtype;
  if (p.mask_kind != Mask::none)
    args.mask = tensor(p.mask, mask_dtype, {p.batch, p.heads_q, p.seq_q, p.seq_kv});
  if (p.has_alibi) args.alibi_slopes = tensor(p.alibi_slopes, DType::f32, {p.batch, p.heads_q});
  if (p.has_sinks) args.sinks = tensor(p.sinks, DType::f32, {p.heads_q});
  std::vector<double> out(static_cast<size_t>(problem.batch * p.seq_q * p.heads_q * p.head_dim_v));
  std::vector<double> lse(static_cast<size_t>(problem.batch * p.heads_q * p.seq_q));
  reference::attention(problem, args, out.data(), lse.data());
  size_t at = 0;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t i = 0; i < p.seq_q; ++i) {
      for (int64_t h = 0; h < p.heads_q; ++h) {
        for (int64_t d = 0; d < p.head_dim_v; ++d) {
          const int64_t to =
              b * p.out.stride[0] + i * p.out.stride[1] + h * p.out.stride[2] + d * p.out.stride[3];
          store_float(p.dtype, p.out.data, to, static_cast<float>(out[at++]));
        }
        if (!p.wants_lse) continue;
        static_cast<float*>(
            p.lse.data)[b * p.lse.stride[0] + h * p.lse.stride[1] + i * p.lse.stride[2]] =
            static_cast<float>(lse[static_cast<size_t>((b * p.heads_q + h) * p.seq_q + i)]);
      }
    }
  }
}

// Runs one of the steps that make up an attention. Each step but the last writes its number to the
// workspace, and checks that the steps before it have done so.
void run(const void* bytes, const uint32_t*, uint32_t, uint32_t) {
  const auto& p = *static_cast<const StandInParams*>(bytes);
  for (int32_t n = 0; n < p.step; ++n) {
    if (p.workspace[n] != static_cast<float>(n)) std::abort();
  }
  if (p.step + 1 == p.steps) return attend(p);
  p.workspace[p.step] = static_cast<float>(p.step);
}

// Runs a merge that launch/merge.cpp launched. kDType: of out.
template <DType kDType>
void merge(const void* bytes, const uint32_t*, uint32_t, uint32_t) {
  const auto& p = *static_cast<const hip::MergeParams*>(bytes);
  const auto at = [&](const hip::Strides& stride, int64_t row) {
    const int64_t query = row / p.heads;
    return query / p.seq * stride.batch + query % p.seq * stride.row + row % p.heads * stride.head;
  };
  for (int64_t row = 0; row < p.rows; ++row) {
    std::vector<const float*> outs;
    std::vector<float> lses;
    for (int32_t i = 0; i < p.count; ++i) {
      const hip::MergeLayout& layout = p.layouts[p.layout_of[i]];
      outs.push_back(p.outs[i] + at(layout.out, row));
      lses.push_back(p.lses[i][at(layout.lse, row)]);
    }
    const auto merged = reference::merge_row(outs.data(), lses.data(), p.count, p.dim, kDType);
    for (int64_t x = 0; x < p.dim; ++x) {
      store_float(kDType, p.out, at(p.layout.out, row) + x,
                  static_cast<float>(merged.out[static_cast<size_t>(x)]));
    }
    if (p.lse != nullptr) p.lse[at(p.layout.lse, row)] = static_cast<float>(merged.lse);
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const fake_hip_kernel fake_hip_kernels[] = {
    {"merge_f32_kernel", sizeof(hip::MergeParams), merge<DType::f32>},
    {"merge_f16_kernel", sizeof(hip::MergeParams), merge<DType::f16>},
    {"merge_bf16_kernel", sizeof(hip::MergeParams), merge<DType::bf16>},
    {"stand_in_flash", sizeof(StandInParams), run},
    {"stand_in_unfused_0", sizeof(StandInParams), run},
    {"stand_in_unfused_1", sizeof(StandInParams), run},
    {"stand_in_unfused_2", sizeof(StandInParams), run},
    {"stand_in_unfused_3", sizeof(StandInParams), run},
    {"stand_in_unfused_4", sizeof(StandInParams), run},
    {nullptr, 0, nullptr}};
