// runtime/conformance/kernel_args.cpp: a case and its tensors into the words of kernels/reference
#include <algorithm>
#include <limits>

#include "conformance/tensors.hpp"
#include "kernels/common/half.hpp"

namespace attnrt::cli::verify {

kernels::DType kernel_dtype(attnrt_dtype dtype) {
  if (dtype.code == ATTNRT_DTYPE_BOOL) return kernels::DType::boolean;
  if (dtype.code == ATTNRT_DTYPE_INT) return kernels::DType::i32;
  if (dtype.code == ATTNRT_DTYPE_BFLOAT) return kernels::DType::bf16;
  return dtype.bits == 16 ? kernels::DType::f16 : kernels::DType::f32;
}

kernels::Problem kernel_problem(const core::Problem& p) {
  kernels::Problem problem;
  problem.dtype = kernel_dtype(p.dtype);
  problem.batch = p.batch, problem.heads_q = p.heads_q, problem.heads_kv = p.heads_kv;
  problem.seq_q = p.seq_q, problem.seq_kv = p.seq_kv;
  problem.head_dim = p.head_dim, problem.head_dim_v = p.head_dim_v;
  problem.scale = p.scale;
  problem.mask = static_cast<kernels::Mask>(p.mask);
  problem.mask_dtype = kernel_dtype(p.mask_dtype);
  problem.causal = p.causal != 0;
  problem.align = static_cast<kernels::Align>(p.align);
  problem.window_left = p.window_left, problem.window_right = p.window_right;
  problem.softcap = p.softcap;
  problem.alibi = p.alibi != 0, problem.sinks = p.sinks != 0,
  problem.kv_lengths = p.kv_lengths != 0;
  problem.varlen = p.varlen != 0;
  problem.page_size = p.page_size;
  problem.lse = p.lse != 0;
  return problem;
}

kernels::Args kernel_args(Tensors& tensors) {
  kernels::Args args;
  kernels::Tensor* const all[kTensors] = {&args.q,
                                          &args.k,
                                          &args.v,
                                          &args.out,
                                          &args.mask,
                                          &args.lse,
                                          &args.alibi_slopes,
                                          &args.sinks,
                                          &args.kv_lengths,
                                          &args.offsets_q,
                                          &args.offsets_kv,
                                          &args.page_table};
  for (int name = 0; name < kTensors; ++name) {
    Image& image = tensors[name];
    if (image.bytes.empty()) continue;
    kernels::Tensor& t = *all[name];
    t.data = image.first();
    t.dtype = kernel_dtype(image.view.dtype);
    t.ndim = image.view.ndim;
    std::copy_n(image.view.shape, 4, t.shape);
    std::copy_n(image.view.stride, 4, t.stride);
  }
  return args;
}

bool visible(const Case& drawn, const Tensors& tensors, int64_t b, int64_t h, int64_t i,
             int64_t j) {
  const core::Problem& p = drawn.problem;
  const int64_t q_length = drawn.q_lengths[static_cast<size_t>(b)],
                kv_length = drawn.kv_lengths[static_cast<size_t>(b)];
  const int64_t diagonal = p.align == ATTNRT_ALIGN_TOP_LEFT ? i : i + kv_length - q_length;
  if (p.causal && j > diagonal) return false;
  if (p.window_left >= 0 && diagonal - j > p.window_left) return false;
  if (p.window_right >= 0 && j - diagonal > p.window_right) return false;
  if (p.mask == ATTNRT_MASK_NONE) return true;
  const Image& m = tensors[mask];
  const int64_t at =
      b * m.view.stride[0] + h * m.view.stride[1] + i * m.view.stride[2] + j * m.view.stride[3];
  if (p.mask == ATTNRT_MASK_BOOLEAN) return m.first()[at] != std::byte{0};
  return kernels::load_float(kernel_dtype(m.view.dtype), m.first(), at) !=
         -std::numeric_limits<float>::infinity();
}

}  // namespace attnrt::cli::verify
