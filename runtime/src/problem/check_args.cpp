// runtime/src/problem/check_args.cpp: checks one run's tensors against the problem
#include "problem/check_args.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "base/structs.hpp"
#include "problem/tensor_checker.hpp"
#include "problem/tensors.hpp"

namespace attnrt::core {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kInt32{ATTNRT_DTYPE_INT, 32, 1};
// Reads the sizes off the tensors before their shapes are checked. Where a product overflows, the
// extent is 0, and check_row_shapes then reports the tensor.
void read_extents(const Problem& problem, const attnrt_args& args, Extents& extents) {
  const bool paged = problem.page_size > 0;
  if (problem.varlen != 0) {
    extents.batch = std::max<int64_t>(args.offsets_q.shape[0], 1) - 1;
    extents.total_q = args.q.shape[0];
    extents.seq_q = std::min(problem.seq_q, extents.total_q);
  } else {
    extents.batch = args.q.shape[0];
    extents.seq_q = args.q.shape[1];
    if (__builtin_mul_overflow(extents.batch, extents.seq_q, &extents.total_q)) extents.total_q = 0;
  }
  if (problem.varlen != 0 || paged) {
    extents.total_kv = args.k.shape[0];
  } else if (__builtin_mul_overflow(extents.batch, args.k.shape[1], &extents.total_kv)) {
    extents.total_kv = 0;
  }
  extents.seq_kv = problem.varlen != 0 || paged ? problem.seq_kv : args.k.shape[1];
}

bool check_row_shapes(TensorChecker& check, const Problem& p, const attnrt_args& a,
                      const Extents& e) {
  const bool paged = p.page_size > 0;
  const attnrt_dtype out = is_off(p.out_dtype) ? p.dtype : p.out_dtype;
  const attnrt_dtype kv = is_off(p.kv_dtype) ? p.dtype : p.kv_dtype;
  bool ok = true;
  if (p.varlen != 0) {
    ok = check.shape("q", a.q, p.dtype, {kAnySize, p.heads_q, p.head_dim}) &&
         check.shape("out", a.out, out, {a.q.shape[0], p.heads_q, p.head_dim_v});
  } else {
    ok = check.shape("q", a.q, p.dtype, {kAnySize, kAnySize, p.heads_q, p.head_dim}) &&
         check.shape("out", a.out, out, {a.q.shape[0], a.q.shape[1], p.heads_q, p.head_dim_v});
  }
  if (p.varlen != 0 && !paged) {
    return ok && check.shape("k", a.k, kv, {kAnySize, p.heads_kv, p.head_dim}) &&
           (p.v_in_k != 0 || check.shape("v", a.v, kv, {a.k.shape[0], p.heads_kv, p.head_dim_v}));
  }
  const int64_t first = paged ? kAnySize : e.batch;
  const int64_t second = paged ? p.page_size : kAnySize;
  return ok && check.shape("k", a.k, kv, {first, second, p.heads_kv, p.head_dim}) &&
         (p.v_in_k != 0 ||
          check.shape("v", a.v, kv, {a.k.shape[0], a.k.shape[1], p.heads_kv, p.head_dim_v}));
}

// Checks one tensor of scales: [1], [heads_kv], or the shape of k without head_dim.
bool check_scale(TensorChecker& check, const char* name, const attnrt_tensor& scale,
                 const Problem& p, const attnrt_tensor& k) {
  if (p.kv_scale == ATTNRT_KV_SCALE_TENSOR) return check.shape(name, scale, kFloat32, {1});
  if (p.kv_scale == ATTNRT_KV_SCALE_HEAD) return check.shape(name, scale, kFloat32, {p.heads_kv});
  if (k.ndim == 3) return check.shape(name, scale, kFloat32, {k.shape[0], p.heads_kv});
  return check.shape(name, scale, kFloat32, {k.shape[0], k.shape[1], p.heads_kv});
}

bool check_kv_shapes(TensorChecker& check, const Problem& p, const attnrt_args& a) {
  if (p.kv_scale == ATTNRT_KV_SCALE_NONE) return true;
  return check_scale(check, "k_scale", a.k_scale, p, a.k) &&
         (p.v_in_k != 0 || check_scale(check, "v_scale", a.v_scale, p, a.k));
}

bool check_side_shapes(TensorChecker& check, const Problem& p, const attnrt_args& a,
                       const Extents& e) {
  const bool paged = p.page_size > 0;
  // In a paged run seq_kv is only a bound. The number of keys is in kv_lengths, which may be in
  // device memory and is not read here.
  const int64_t mask_columns = paged ? kAnySize : e.seq_kv;
  if (p.mask != ATTNRT_MASK_NONE &&
      !(check.shape("mask", a.mask, p.mask_dtype, {e.batch, p.heads_q, e.seq_q, mask_columns}) &&
        check.within("the mask's seq_kv", a.mask.shape[3], p.seq_kv))) {
    return false;
  }
  if (p.lse != 0) {
    const bool ok = p.varlen != 0
                        ? check.shape("lse", a.lse, kFloat32, {p.heads_q, e.total_q})
                        : check.shape("lse", a.lse, kFloat32, {e.batch, p.heads_q, e.seq_q});
    if (!ok) return false;
  }
  return (p.alibi == 0 ||
          (a.alibi_slopes.ndim == 2
               ? check.shape("alibi_slopes", a.alibi_slopes, kFloat32, {e.batch, p.heads_q})
               : check.shape("alibi_slopes", a.alibi_slopes, kFloat32, {p.heads_q}))) &&
         (p.sinks == 0 || check.shape("sinks", a.sinks, kFloat32, {p.heads_q})) &&
         (p.kv_lengths == 0 || check.shape("kv_lengths", a.kv_lengths, kInt32, {e.batch})) &&
         (p.varlen == 0 || check.shape("offsets_q", a.offsets_q, kInt32, {e.batch + 1})) &&
         (p.varlen == 0 || paged ||
          check.shape("offsets_kv", a.offsets_kv, kInt32, {e.batch + 1})) &&
         (!paged || check.shape("page_table", a.page_table, kInt32, {e.batch, kAnySize})) &&
         (p.diagonal_offset == 0 ||
          check.shape("diagonal_offset", a.diagonal_offset, kInt32, {e.batch}));
}

bool check_presence(TensorChecker& check, const Problem& problem, const attnrt_args& args) {
  return std::all_of(std::begin(kTensors), std::end(kTensors), [&](const TensorEntry& tensor) {
    return check.presence(tensor.name, args.*tensor.member, tensor.rule.is_used(problem));
  });
}

// Checks strides and alignment. REQUIRES: the shapes are right.
bool check_strides(TensorChecker& check, const Problem& problem, const attnrt_args& args) {
  for (const auto& [name, member, rule] : kTensors) {
    const attnrt_tensor& tensor = args.*member;
    const bool rows = rule.strides == Strides::rows;
    if (!rule.is_used(problem) || (rows && is_empty(tensor))) continue;
    const bool ok = (!rows || check.dense_last(name, tensor, "head_dim")) &&
                    (rule.strides != Strides::dense_last ||
                     check.dense_last(name, tensor, "its last dimension")) &&
                    (rule.strides != Strides::contiguous || check.contiguous(name, tensor)) &&
                    (!rule.written || check.overlaps_itself_nowhere(name, tensor)) &&
                    check.aligned_elements(name, tensor) &&
                    (!rows || check.aligned_rows(name, tensor, problem.alignment_bytes));
    if (!ok) return false;
  }
  return true;
}

bool check_overlap(TensorChecker& check, const attnrt_args& args) {
  return std::all_of(std::begin(kTensors), std::end(kTensors), [&](const TensorEntry& tensor) {
    return !tensor.rule.written || check.overlaps_none(args.*tensor.member);
  });
}

// Gives the mask its four dimensions: one that it lacks, and one of size 1, is broadcast with
// stride 0.
void broadcast_mask(attnrt_tensor& mask, int64_t batch, int64_t heads_q, int64_t seq_q,
                    int64_t seq_kv) {
  if (mask.ndim < 1 || mask.ndim > 4) return;
  const int64_t shape[4] = {batch, heads_q, seq_q, seq_kv};
  attnrt_tensor whole = mask;
  whole.ndim = 4;
  for (int32_t i = 0; i < 4; ++i) {
    const int32_t from = i - (4 - mask.ndim);
    const bool missing = from < 0;
    const bool single = !missing && mask.shape[from] == 1;
    whole.shape[i] = missing || single ? shape[i] : mask.shape[from];
    whole.stride[i] = missing || single ? 0 : mask.stride[from];
  }
  mask = whole;
}

// Gives slopes that all sequences share a batch dimension with stride 0.
void broadcast_slopes(attnrt_tensor& slopes, int64_t batch) {
  if (slopes.ndim != 1) return;
  slopes.ndim = 2;
  slopes.shape[1] = slopes.shape[0];
  slopes.stride[1] = slopes.stride[0];
  slopes.shape[0] = batch;
  slopes.stride[0] = 0;
}

// Gives scales of a tensor or of heads the shape of k without head_dim.
void broadcast_scale(attnrt_tensor& scale, const attnrt_tensor& k, int32_t kv_scale) {
  if (scale.data == nullptr || kv_scale == ATTNRT_KV_SCALE_TOKEN) return;
  const int64_t head_stride = kv_scale == ATTNRT_KV_SCALE_HEAD ? scale.stride[0] : 0;
  scale.ndim = k.ndim - 1;
  for (int32_t i = 0; i < scale.ndim; ++i) {
    scale.shape[i] = k.shape[i];
    scale.stride[i] = i + 1 == scale.ndim ? head_stride : 0;
  }
}

}  // namespace

Result<void> read_args(const attnrt_args& given, attnrt_args* args, const char* where) {
  if (auto read = read_struct(given, args); !read) return read;
  if (args->reserved != 0) {
    return fail(ATTNRT_INVALID_ARGUMENT, "args: reserved is {}; leave it at zero", args->reserved);
  }
  if (args->schedule != nullptr || args->schedule_bytes != 0) {
    return fail(ATTNRT_INVALID_ARGUMENT,
                "args: schedule is set; leave it at zero, and give the schedule to "
                "attnrt_plan_run_scheduled");
  }
  for (const auto& [name, member, rule] : kTensors) {
    if (auto resolved = resolve_offset(where, name, args->*member); !resolved) return resolved;
  }
  return {};
}

attnrt_status check_args(const Problem& problem, attnrt_args& args, Extents* extents,
                         attnrt_error* error, const char* where) {
  TensorRange ranges[std::size(kTensors)];
  TensorChecker check(where, ranges, error);
  if (!check_presence(check, problem, args)) return check.status();
  if (problem.varlen == 0 && args.q.ndim != 4) {
    check.fail("tensor q has {} dimensions; expected 4: [batch, seq, heads, head_dim]",
               args.q.ndim);
    return check.status();
  }
  if (args.k.ndim < 3 || args.k.ndim > 4) {
    check.fail("tensor k has {} dimensions; expected {}", args.k.ndim,
               problem.varlen != 0 && problem.page_size == 0 ? 3 : 4);
    return check.status();
  }
  read_extents(problem, args, *extents);
  if (problem.mask != ATTNRT_MASK_NONE) {
    broadcast_mask(args.mask, extents->batch, problem.heads_q, extents->seq_q, extents->seq_kv);
  }
  const bool ok = check_row_shapes(check, problem, args, *extents) &&
                  check.within("batch", extents->batch, problem.batch) &&
                  check.within("seq_q", extents->seq_q, problem.seq_q) &&
                  check.within("seq_kv", extents->seq_kv, problem.seq_kv) &&
                  check_side_shapes(check, problem, args, *extents) &&
                  check_kv_shapes(check, problem, args) && check_strides(check, problem, args) &&
                  check_overlap(check, args);
  if (!ok) return check.status();
  broadcast_slopes(args.alibi_slopes, extents->batch);
  broadcast_scale(args.k_scale, args.k, problem.kv_scale);
  broadcast_scale(args.v_scale, args.k, problem.kv_scale);
  return ATTNRT_OK;
}

}  // namespace attnrt::core
