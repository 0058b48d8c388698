// kernels/common/problem.hpp: one attention problem and its tensors, as plain structs
//
// Names and meanings are those of attnrt/plugin.h. But kernels know only the mathematics, so no
// attnrt header is included here.
#pragma once

#include <cstdint>

// Marks functions that device code calls too, so that host and device evaluate the same lines.
#if defined(__HIP__)
#define KERNELS_HD __attribute__((host)) __attribute__((device))
#elif defined(__CUDACC__)
#define KERNELS_HD __host__ __device__
#else
#define KERNELS_HD
#endif

namespace kernels {

// unknown: a dtype that no tensor of a Problem may have.
enum class DType : int32_t { f32, f16, bf16, boolean, i32, i8, f8_e4m3fn, f8_e4m3fnuz, unknown };
enum class Mask : int32_t { none, boolean, additive };
enum class Align : int32_t { bottom_right, top_left };
enum class KvScale : int32_t { none, tensor, head, token };

KERNELS_HD constexpr int64_t element_bytes(DType dtype) {
  if (dtype == DType::f32 || dtype == DType::i32) return 4;
  return dtype == DType::f16 || dtype == DType::bf16 ? 2 : 1;
}

// Strides count elements and may be 0 (broadcast) or negative. data is null if the tensor is
// absent.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int32_t ndim = 0;
  int64_t shape[4] = {};
  int64_t stride[4] = {};
};

// batch, seq_q and seq_kv are upper bounds; a run's tensors have the real extents.
struct Problem {
  DType dtype = DType::f32;
  int64_t batch = 1;
  int64_t heads_q = 1;
  int64_t heads_kv = 1;
  int64_t seq_q = 1;
  int64_t seq_kv = 1;
  int64_t head_dim = 1;
  int64_t head_dim_v = 1;
  float scale = 0;  // 0: 1 / sqrt(head_dim)
  Mask mask = Mask::none;
  DType mask_dtype = DType::f32;  // of an additive mask: f32 or dtype
  bool causal = false;
  Align align = Align::bottom_right;
  int64_t window_left = -1;  // -1: unbounded
  int64_t window_right = -1;
  float softcap = 0;  // 0: none
  bool alibi = false;
  bool sinks = false;
  bool kv_lengths = false;
  bool varlen = false;
  int64_t page_size = 0;  // 0: not paged
  bool lse = false;
  DType kv_dtype = DType::unknown;  // of k and v; unknown: dtype
  KvScale kv_scale = KvScale::none;
  bool v_in_k = false;
  DType out_dtype = DType::unknown;  // of out; unknown: dtype
  bool diagonal_offset = false;
  bool batch_invariant = false;
};

KERNELS_HD constexpr DType kv_dtype(const Problem& problem) {
  return problem.kv_dtype == DType::unknown ? problem.dtype : problem.kv_dtype;
}

KERNELS_HD constexpr DType out_dtype(const Problem& problem) {
  return problem.out_dtype == DType::unknown ? problem.dtype : problem.out_dtype;
}

// One run's tensors. Logical shapes:
//   q, out        [batch, seq_q, heads_q, D]     D: head_dim in q, head_dim_v in out
//   k, v          [batch, seq_kv, heads_kv, D]   D: head_dim in k, head_dim_v in v
//   mask          [batch, heads_q, seq_q, seq_kv]
//   lse           [batch, heads_q, seq_q]
//   alibi_slopes  [batch, heads_q]
//   sinks         [heads_q]
//   kv_lengths    [batch]
//   k_scale, v_scale  [batch, seq_kv, heads_kv]
//   diagonal_offset   [batch]
// varlen:
//   q, out        [total_q, heads_q, D]          lse [heads_q, total_q]
//   k, v          [total_kv, heads_kv, D]       k_scale, v_scale [total_kv, heads_kv]
//   offsets_q     [batch + 1]                    offsets_kv [batch + 1]
// paged (page_size > 0):
//   k, v          [pages, page_size, heads_kv, D], k_scale, v_scale [pages, page_size, heads_kv]
//   page_table    [batch, max_pages]             and kv_lengths
struct Args {
  Tensor q, k, v, out;
  Tensor mask, lse;
  Tensor alibi_slopes, sinks;
  Tensor kv_lengths, offsets_q, offsets_kv, page_table;
  Tensor k_scale, v_scale, diagonal_offset;
};

// The tensor that holds v: with v_in_k it is the first head_dim_v columns of k.
KERNELS_HD constexpr const Tensor& value_tensor(const Problem& problem, const Args& args) {
  return problem.v_in_k ? args.k : args.v;
}

// The scales of the stored values.
KERNELS_HD constexpr const Tensor& value_scale(const Problem& problem, const Args& args) {
  return problem.v_in_k ? args.k_scale : args.v_scale;
}

// Whether kv_lengths bounds the keys of a sequence.
KERNELS_HD constexpr bool has_kv_lengths(const Problem& problem) {
  return problem.kv_lengths || problem.page_size > 0;
}

}  // namespace kernels
