// runtime/src/problem/infer.cpp: derives a problem from one run's tensors
#include "problem/infer.hpp"

#include <algorithm>
#include <bit>

#include "problem/tensors.hpp"

namespace attnrt::core {
namespace {

bool is_kv_dtype(attnrt_dtype dtype) {
  const Word& word = *find_word("kv_dtype");
  return parse_value(word, dtype_name(dtype)).has_value();
}

constexpr int32_t kUsualAlignment = 16;  // bytes; measured_alignment gives no more

// Returns the largest power of two, up to the usual alignment, such that each row of q, k, v and
// out starts at a multiple of it. A tensor that is not given does not count.
int32_t measured_alignment(const attnrt_args& args) {
  // The lowest bit that is set in any row's address or in any distance between rows is the answer.
  uint64_t bits = kUsualAlignment;
  for (const auto& [name, member, rule] : kTensors) {
    const attnrt_tensor& tensor = args.*member;
    if (rule.strides != Strides::rows || tensor.data == nullptr) continue;
    bits |= reinterpret_cast<uintptr_t>(tensor.data);
    for (int32_t i = 0; i + 1 < tensor.ndim; ++i) {
      if (tensor.shape[i] <= 1) continue;
      bits |= static_cast<uint64_t>(tensor.stride[i]) *
              static_cast<uint64_t>(dtype_bytes(tensor.dtype));
    }
  }
  return 1 << std::countr_zero(bits);
}

attnrt_status wrong(attnrt_error* error, const char* name, int32_t ndim, const char* expected) {
  return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                     "run: tensor %s has %d dimensions; expected %s", name, ndim, expected);
}

// Checks the sizes and dtypes that two tensors have in common.
attnrt_status check_agreement(const attnrt_args& args, bool varlen, bool paged, bool v_in_k,
                              attnrt_error* error) {
  const int32_t q_last = args.q.ndim - 1;
  const int32_t k_last = args.k.ndim - 1;
  const auto differ = [error](const char* a, int64_t found_a, const char* b, int64_t found_b,
                              const char* what) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: tensors %s and %s disagree: %s is %lld and %lld", a, b, what,
                       static_cast<long long>(found_a), static_cast<long long>(found_b));
  };
  if (args.k.shape[k_last] != args.q.shape[q_last]) {
    return differ("q", args.q.shape[q_last], "k", args.k.shape[k_last], "head_dim");
  }
  for (int32_t i = 0; i < k_last && !v_in_k; ++i) {
    static constexpr const char* kPacked[] = {"rows", "heads_kv"};
    static constexpr const char* kWhole[] = {"batch", "seq_kv", "heads_kv"};
    static constexpr const char* kPaged[] = {"pages", "page_size", "heads_kv"};
    const char* const* const words = args.k.ndim == 3 ? kPacked : paged ? kPaged : kWhole;
    if (args.v.shape[i] != args.k.shape[i])
      return differ("k", args.k.shape[i], "v", args.v.shape[i], words[i]);
  }
  if (!varlen && !paged && args.k.shape[0] != args.q.shape[0]) {
    return differ("q", args.q.shape[0], "k", args.k.shape[0], "batch");
  }
  const auto dtypes_differ = [error](const char* a, attnrt_dtype found_a, const char* b,
                                     attnrt_dtype found_b) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: tensors %s and %s disagree: dtype is %s and %s", a, b,
                       dtype_name(found_a).c_str(), dtype_name(found_b).c_str());
  };
  if (!same_dtype(args.k.dtype, args.q.dtype) && !is_kv_dtype(args.k.dtype))
    return dtypes_differ("q", args.q.dtype, "k", args.k.dtype);
  if (!v_in_k && !same_dtype(args.v.dtype, args.k.dtype)) {
    return is_kv_dtype(args.k.dtype) ? dtypes_differ("k", args.k.dtype, "v", args.v.dtype)
                                     : dtypes_differ("q", args.q.dtype, "v", args.v.dtype);
  }
  return ATTNRT_OK;
}

// Fills in what the key and value tensors say beyond their sizes.
void infer_kv(const attnrt_args& args, Problem& p) {
  const attnrt_tensor& scale = args.k_scale;
  p.kv_dtype = same_dtype(args.k.dtype, args.q.dtype) ? attnrt_dtype{} : args.k.dtype;
  p.kv_scale = scale.data == nullptr                    ? ATTNRT_KV_SCALE_NONE
               : scale.ndim == 1 && scale.shape[0] == 1 ? ATTNRT_KV_SCALE_TENSOR
               : scale.ndim == 1                        ? ATTNRT_KV_SCALE_HEAD
                                                        : ATTNRT_KV_SCALE_TOKEN;
}

}  // namespace

attnrt_status infer_problem(const attnrt_args& args, Problem* problem, attnrt_error* error) {
  Problem p = *problem;
  p.varlen = args.offsets_q.data != nullptr ? 1 : 0;
  const bool paged = args.page_table.data != nullptr;
  const int32_t q_ndim = p.varlen != 0 ? 3 : 4;
  const int32_t k_ndim = p.varlen != 0 && !paged ? 3 : 4;
  if (args.q.ndim != q_ndim) {
    return wrong(error, "q", args.q.ndim,
                 p.varlen != 0 ? "3: [total_q, heads, head_dim], as offsets_q is given"
                               : "4: [batch, seq, heads, head_dim]");
  }
  if (args.k.ndim != k_ndim)
    return wrong(error, "k", args.k.ndim, k_ndim == 3 ? "3, as offsets_q is given" : "4");
  const bool v_in_k = p.v_in_k != 0;
  if (!v_in_k && args.v.ndim != k_ndim) return wrong(error, "v", args.v.ndim, "as many as k");
  if (args.out.data != nullptr && args.out.ndim != q_ndim)
    return wrong(error, "out", args.out.ndim, "as many as q");
  if (const auto status = check_agreement(args, p.varlen != 0, paged, v_in_k, error);
      status != ATTNRT_OK)
    return status;
  p.dtype = args.q.dtype;
  p.heads_q = args.q.shape[q_ndim - 2];
  p.head_dim = args.q.shape[q_ndim - 1];
  p.heads_kv = args.k.shape[k_ndim - 2];
  if (!v_in_k) {
    p.head_dim_v = args.v.shape[k_ndim - 1];
  } else if (args.out.data != nullptr) {
    p.head_dim_v = args.out.shape[q_ndim - 1];
  } else if (p.head_dim_v == 0) {
    p.head_dim_v = p.head_dim;
  }
  if (args.out.data != nullptr)
    p.out_dtype = same_dtype(args.out.dtype, p.dtype) ? attnrt_dtype{} : args.out.dtype;
  p.batch = p.varlen != 0 ? std::max<int64_t>(args.offsets_q.shape[0], 1) - 1 : args.q.shape[0];
  p.seq_q = p.varlen != 0 ? args.q.shape[0] : args.q.shape[1];
  p.page_size = 0;
  if (paged) {
    if (args.page_table.ndim != 2)
      return wrong(error, "page_table", args.page_table.ndim, "2: [batch, max_pages]");
    if (args.k.shape[1] < 1 || args.k.shape[1] > INT32_MAX) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "run: tensor k has %lld in dimension 1; expected the page size",
                         static_cast<long long>(args.k.shape[1]));
    }
    p.page_size = static_cast<int32_t>(args.k.shape[1]);
    if (__builtin_mul_overflow(args.page_table.shape[1], int64_t{p.page_size}, &p.seq_kv)) {
      return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                         "run: page_table is larger than memory can be");
    }
  } else {
    p.seq_kv = k_ndim == 3 ? args.k.shape[0] : args.k.shape[1];
  }
  // Bounds are at least 1, and a run without rows is within them.
  p.batch = std::max<int64_t>(p.batch, 1);
  p.seq_q = std::max<int64_t>(p.seq_q, 1);
  p.seq_kv = std::max<int64_t>(p.seq_kv, 1);
  p.mask = ATTNRT_MASK_NONE;
  if (args.mask.data != nullptr) {
    p.mask = args.mask.dtype.code == ATTNRT_DTYPE_BOOL ? ATTNRT_MASK_BOOLEAN : ATTNRT_MASK_ADDITIVE;
    p.mask_dtype = args.mask.dtype;
  } else {
    p.mask_dtype = {ATTNRT_DTYPE_BOOL, 8, 1};
  }
  p.alibi = args.alibi_slopes.data != nullptr ? 1 : 0;
  p.sinks = args.sinks.data != nullptr ? 1 : 0;
  p.kv_lengths = args.kv_lengths.data != nullptr ? 1 : 0;
  p.diagonal_offset = args.diagonal_offset.data != nullptr ? 1 : 0;
  infer_kv(args, p);
  p.lse = args.lse.data != nullptr ? 1 : 0;
  p.alignment_bytes = measured_alignment(args);
  *problem = p;
  return ATTNRT_OK;
}

}  // namespace attnrt::core
