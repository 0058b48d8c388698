// kernels/cpu/check.cpp: checks a Problem and a run's tensors, and names what does not fit
#include "kernels/cpu/check.hpp"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <initializer_list>

#include "kernels/common/sequence.hpp"

namespace kernels::cpu {
namespace {

// Stands for any extent in an expected shape.
constexpr int64_t kAny = -1;

// Largest head_dim, in elements. A worker's memory is a multiple of it, and must not overflow.
constexpr int64_t kMaxHeadDim = int64_t{1} << 24;

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::boolean: return "boolean";
    case DType::i32: return "i32";
    case DType::i8: return "i8";
    case DType::f8_e4m3fn: return "f8_e4m3fn";
    case DType::f8_e4m3fnuz: return "f8_e4m3fnuz";
    case DType::unknown: break;
  }
  return "unknown";
}

Status check_tensor(const char* name, const Tensor& tensor, DType dtype,
                    std::initializer_list<int64_t> shape, Error* error) {
  if (tensor.ndim != static_cast<int32_t>(shape.size())) {
    return fail(error, "%s: found %d dimensions, expected %zu", name, tensor.ndim, shape.size());
  }
  if (tensor.dtype != dtype) {
    return fail(error, "%s: found dtype %s, expected %s", name, dtype_name(tensor.dtype),
                dtype_name(dtype));
  }
  bool empty = false;
  int64_t dimension = 0;
  for (const int64_t extent : shape) {
    const int64_t found = tensor.shape[dimension];
    if (extent == kAny ? found < 0 : found != extent) {
      return fail(error, "%s.shape[%jd]: found %jd, expected %jd", name, dimension, found,
                  extent == kAny ? int64_t{0} : extent);
    }
    empty = empty || found == 0;
    ++dimension;
  }
  if (tensor.data == nullptr && !empty) {
    return fail(error, "%s: found no data, expected a tensor", name);
  }
  return Status::ok;
}

// For q, k, v and out: the rows' elements must be contiguous.
Status check_rows(const char* name, const Tensor& tensor, DType dtype,
                  std::initializer_list<int64_t> shape, Error* error) {
  const Status status = check_tensor(name, tensor, dtype, shape, error);
  if (status != Status::ok) return status;
  const int32_t last = tensor.ndim - 1;
  if (tensor.shape[last] > 1 && tensor.stride[last] != 1) {
    return fail(error, "%s.stride[%d]: found %jd, expected 1", name, last, tensor.stride[last]);
  }
  return Status::ok;
}

Status check_bound(const char* what, int64_t found, int64_t bound, Error* error) {
  if (found <= bound) return Status::ok;
  return fail(error, "%s: found %jd, expected at most the plan's %jd", what, found, bound);
}

Status check_queries(const Problem& p, const Args& a, Error* error) {
  const bool packed = p.varlen;
  Status status = packed
                      ? check_rows("q", a.q, p.dtype, {kAny, p.heads_q, p.head_dim}, error)
                      : check_rows("q", a.q, p.dtype, {kAny, kAny, p.heads_q, p.head_dim}, error);
  if (status != Status::ok) return status;
  const int64_t* q = a.q.shape;
  const DType out = out_dtype(p);
  status = packed ? check_rows("out", a.out, out, {q[0], p.heads_q, p.head_dim_v}, error)
                  : check_rows("out", a.out, out, {q[0], q[1], p.heads_q, p.head_dim_v}, error);
  if (status != Status::ok) return status;
  if (p.lse) {
    status = packed ? check_tensor("lse", a.lse, DType::f32, {p.heads_q, q[0]}, error)
                    : check_tensor("lse", a.lse, DType::f32, {q[0], p.heads_q, q[1]}, error);
    if (status != Status::ok) return status;
  }
  if (packed) return Status::ok;
  status = check_bound("q.shape[0]", q[0], p.batch, error);
  return status != Status::ok ? status : check_bound("q.shape[1]", q[1], p.seq_q, error);
}

// The extents of k, v and their scales before heads_kv: sequences or pages, and keys of each.
// Packed tensors have keys only.
struct KeyShape {
  int64_t outer, keys;
};

Status check_key_rows(const char* name, const Tensor& t, const Problem& p, KeyShape shape,
                      int64_t columns, Error* error) {
  const DType dtype = kv_dtype(p);
  if (p.page_size == 0 && p.varlen)
    return check_rows(name, t, dtype, {shape.keys, p.heads_kv, columns}, error);
  return check_rows(name, t, dtype, {shape.outer, shape.keys, p.heads_kv, columns}, error);
}

Status check_key_scales(const char* name, const Tensor& t, const Problem& p, KeyShape shape,
                        Error* error) {
  if (p.page_size == 0 && p.varlen)
    return check_tensor(name, t, DType::f32, {shape.keys, p.heads_kv}, error);
  return check_tensor(name, t, DType::f32, {shape.outer, shape.keys, p.heads_kv}, error);
}

Status check_keys(const Problem& p, const Args& a, Error* error) {
  const int64_t* k = a.k.shape;
  const bool paged = p.page_size > 0, packed = p.varlen && !paged;
  KeyShape shape{paged ? kAny : a.q.shape[0], paged ? p.page_size : kAny};
  Status status = check_key_rows("k", a.k, p, shape, p.head_dim, error);
  if (status != Status::ok) return status;
  shape = packed ? KeyShape{kAny, k[0]} : KeyShape{k[0], k[1]};
  if (!p.v_in_k) status = check_key_rows("v", a.v, p, shape, p.head_dim_v, error);
  if (p.kv_scale != KvScale::none) {
    if (status == Status::ok) status = check_key_scales("k_scale", a.k_scale, p, shape, error);
    if (status == Status::ok && !p.v_in_k)
      status = check_key_scales("v_scale", a.v_scale, p, shape, error);
  }
  if (status != Status::ok || paged || packed) return status;
  return check_bound("k.shape[1]", k[1], p.seq_kv, error);
}

Status check_optional_tensors(const Problem& p, const Args& a, Error* error) {
  if (p.mask != Mask::none) {
    const DType dtype = p.mask == Mask::boolean ? DType::boolean : p.mask_dtype;
    const int64_t keys = p.page_size > 0 ? kAny : a.k.shape[1];
    const Status status =
        check_tensor("mask", a.mask, dtype, {a.q.shape[0], p.heads_q, a.q.shape[1], keys}, error);
    if (status != Status::ok) return status;
  }
  return p.sinks ? check_tensor("sinks", a.sinks, DType::f32, {p.heads_q}, error) : Status::ok;
}

Status check_offsets(const char* name, const Tensor& offsets, int64_t batch, int64_t total,
                     int64_t bound, Error* error) {
  const Status status = check_tensor(name, offsets, DType::i32, {batch + 1}, error);
  if (status != Status::ok) return status;
  int64_t previous = 0;
  for (int64_t b = 0; b <= batch; ++b) {
    const int64_t offset = index_at(offsets, b);
    const int64_t limit = b == 0 ? total : std::min(total, previous + bound);
    if (offset < previous || offset > limit) {
      return fail(error, "%s[%jd]: found %jd, expected %jd to %jd", name, b, offset, previous,
                  limit);
    }
    previous = offset;
  }
  return Status::ok;
}

Status check_pages(const Problem& p, const Args& a, int64_t b, int64_t length, Error* error) {
  const int64_t used = (length + p.page_size - 1) / p.page_size;
  for (int64_t n = 0; n < used; ++n) {
    const int64_t page = index_at(a.page_table, b, n);
    if (page < 0 || page >= a.k.shape[0]) {
      return fail(error, "page_table[%jd, %jd]: found %jd, expected 0 to %jd", b, n, page,
                  a.k.shape[0] - 1);
    }
  }
  return Status::ok;
}

Status check_lengths(const Problem& p, const Args& a, int64_t batch, Error* error) {
  Status status = check_tensor("kv_lengths", a.kv_lengths, DType::i32, {batch}, error);
  if (status != Status::ok) return status;
  if (p.page_size > 0) {
    status = check_tensor("page_table", a.page_table, DType::i32, {batch, kAny}, error);
    if (status != Status::ok) return status;
  }
  for (int64_t b = 0; b < batch; ++b) {
    int64_t limit = p.seq_kv;
    if (p.page_size > 0) {
      // Divided, since the product may overflow: the table may be wider than any sequence.
      if (a.page_table.shape[1] <= limit / p.page_size) limit = a.page_table.shape[1] * p.page_size;
      if (p.mask != Mask::none) limit = std::min(limit, a.mask.shape[3]);
    } else if (p.varlen) {
      limit = index_at(a.offsets_kv, b + 1) - index_at(a.offsets_kv, b);
    } else {
      limit = a.k.shape[1];
    }
    const int64_t length = index_at(a.kv_lengths, b);
    if (length < 0 || length > limit) {
      return fail(error, "kv_lengths[%jd]: found %jd, expected 0 to %jd", b, length, limit);
    }
    if (p.page_size > 0) {
      status = check_pages(p, a, b, length, error);
      if (status != Status::ok) return status;
    }
  }
  return Status::ok;
}

// Checks what a Problem says of k, v and out beyond their sizes.
Status check_types(const Problem& p, Error* error) {
  const DType kv = kv_dtype(p), out = out_dtype(p);
  if (kv != p.dtype && kv != DType::i8 && kv != DType::f8_e4m3fn && kv != DType::f8_e4m3fnuz) {
    return fail(error, "kv_dtype: found %s, expected i8, f8_e4m3fn, f8_e4m3fnuz or q's %s",
                dtype_name(kv), dtype_name(p.dtype));
  }
  if (p.kv_scale != KvScale::none && kv == p.dtype)
    return fail(error, "kv_scale: found a scale with k of q's dtype, expected none");
  if (out != p.dtype && out != DType::f32) {
    return fail(error, "out_dtype: found %s, expected f32 or q's %s", dtype_name(out),
                dtype_name(p.dtype));
  }
  if (p.v_in_k && p.head_dim_v > p.head_dim) {
    return fail(error, "head_dim_v: found %jd with v_in_k, expected at most head_dim %jd",
                p.head_dim_v, p.head_dim);
  }
  return Status::ok;
}

}  // namespace

Status fail(Error* error, const char* format, ...) {
  va_list values;
  va_start(values, format);
  if (error != nullptr) vsnprintf(error->message, sizeof(error->message), format, values);
  va_end(values);
  return Status::invalid_argument;
}

Status check_problem(const Problem& p, Error* error) {
  const struct {
    const char* name;
    int64_t found;
    int64_t min;
    int64_t max = INT64_MAX;
  } bounds[] = {{"batch", p.batch, 1},
                {"heads_q", p.heads_q, 1},
                {"heads_kv", p.heads_kv, 1},
                {"seq_q", p.seq_q, 1},
                {"seq_kv", p.seq_kv, 1},
                {"head_dim", p.head_dim, 1, kMaxHeadDim},
                {"head_dim_v", p.head_dim_v, 1, kMaxHeadDim},
                {"window_left", p.window_left, -1},
                {"window_right", p.window_right, -1},
                {"page_size", p.page_size, 0}};
  for (const auto& bound : bounds) {
    if (bound.found > bound.max) {
      return fail(error, "%s: found %jd, expected at most %jd", bound.name, bound.found, bound.max);
    }
    if (bound.found >= bound.min) continue;
    return fail(error, "%s: found %jd, expected at least %jd", bound.name, bound.found, bound.min);
  }
  if (p.heads_q % p.heads_kv != 0) {
    return fail(error, "heads_q: found %jd, expected a multiple of heads_kv %jd", p.heads_q,
                p.heads_kv);
  }
  if (p.dtype != DType::f32 && p.dtype != DType::f16 && p.dtype != DType::bf16) {
    return fail(error, "dtype: found %s, expected f32, f16 or bf16", dtype_name(p.dtype));
  }
  const Status types = check_types(p, error);
  if (types != Status::ok) return types;
  if (p.mask == Mask::additive && p.mask_dtype != p.dtype && p.mask_dtype != DType::f32) {
    return fail(error, "mask_dtype: found %s, expected f32 or q's %s", dtype_name(p.mask_dtype),
                dtype_name(p.dtype));
  }
  if (p.mask != Mask::none && p.varlen)
    return fail(error, "mask: found a mask with varlen, expected none");
  if (!std::isfinite(p.scale))
    return fail(error, "scale: found %g, expected a finite number", double{p.scale});
  if (!std::isfinite(p.softcap) || p.softcap < 0) {
    return fail(error, "softcap: found %g, expected 0 or more", double{p.softcap});
  }
  return Status::ok;
}

Status check_args(const Problem& problem, const Args& args, Error* error) {
  Status status = check_queries(problem, args, error);
  if (status == Status::ok) status = check_keys(problem, args, error);
  if (status == Status::ok) status = check_optional_tensors(problem, args, error);
  if (status != Status::ok) return status;

  if (problem.varlen && (args.offsets_q.ndim != 1 || args.offsets_q.shape[0] < 1)) {
    return fail(error, "offsets_q: found no entries, expected batch + 1 in one dimension");
  }
  const int64_t batch = real_batch(problem, args);
  status = check_bound("batch", batch, problem.batch, error);
  if (status == Status::ok && problem.alibi) {
    status = check_tensor("alibi_slopes", args.alibi_slopes, DType::f32, {batch, problem.heads_q},
                          error);
  }
  if (status == Status::ok && problem.diagonal_offset)
    status = check_tensor("diagonal_offset", args.diagonal_offset, DType::i32, {batch}, error);
  if (status == Status::ok && problem.varlen) {
    status =
        check_offsets("offsets_q", args.offsets_q, batch, args.q.shape[0], problem.seq_q, error);
  }
  if (status == Status::ok && problem.varlen && problem.page_size == 0) {
    status =
        check_offsets("offsets_kv", args.offsets_kv, batch, args.k.shape[0], problem.seq_kv, error);
  }
  if (status == Status::ok && has_kv_lengths(problem))
    status = check_lengths(problem, args, batch, error);
  return status;
}

}  // namespace kernels::cpu
