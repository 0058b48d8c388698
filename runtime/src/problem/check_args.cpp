// runtime/src/problem/check_args.cpp: checks one run's tensors against the problem
#include "problem/check_args.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "base/structs.hpp"
#include "problem/tensors.hpp"

namespace attnrt::core {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kInt32{ATTNRT_DTYPE_INT, 32, 1};
constexpr int64_t kAny = -1;  // in an expected shape: any size

bool is_empty(const attnrt_tensor& tensor) {
  const int32_t ndim = std::clamp(tensor.ndim, 0, 4);
  return std::find(tensor.shape, tensor.shape + ndim, 0) != tensor.shape + ndim;
}

// Checks one tensor at a time. The first thing that is wrong fills error; nothing is allocated
// before that.
class Checker {
 public:
  explicit Checker(attnrt_error* error) : error_(error) {}
  attnrt_status status() const { return status_; }

  template <class... Arguments>
  bool fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    const std::string text = fmt::format(format, std::forward<Arguments>(arguments)...);
    status_ = attnrt_fail(error_, ATTNRT_INVALID_ARGUMENT, "run: %s", text.c_str());
    return false;
  }

  // The tensor is given if the problem uses it, and only then. One without elements needs no
  // memory.
  bool presence(const char* name, const attnrt_tensor& tensor, bool is_used) {
    if ((tensor.data != nullptr) == is_used || (is_used && is_empty(tensor))) return true;
    return is_used ? fail("tensor {} is absent, but the problem uses it", name)
                   : fail("tensor {} is given, but the problem does not use it", name);
  }

  // The tensor has this dtype and shape, and its strides are not negative.
  bool shape(const char* name, const attnrt_tensor& tensor, attnrt_dtype dtype,
             std::initializer_list<int64_t> shape) {
    const auto ndim = static_cast<int32_t>(shape.size());
    if (tensor.ndim != ndim)
      return fail("tensor {} has {} dimensions; expected {}", name, tensor.ndim, ndim);
    if (!same_dtype(tensor.dtype, dtype)) {
      return fail("tensor {} is {}; expected {}", name, dtype_name(tensor.dtype),
                  dtype_name(dtype));
    }
    for (int32_t i = 0; i < ndim; ++i) {
      const int64_t expected = shape.begin()[i];
      if (expected == kAny && tensor.shape[i] < 0) {
        return fail("tensor {} has {} in dimension {}; expected at least 0", name, tensor.shape[i],
                    i);
      }
      if (expected != kAny && tensor.shape[i] != expected) {
        return fail("tensor {} has {} in dimension {}; expected {}", name, tensor.shape[i], i,
                    expected);
      }
      if (tensor.stride[i] < 0)
        return fail("tensor {} has the negative stride {}", name, tensor.stride[i]);
    }
    return range(name, tensor);
  }

  // Elements of the last dimension lie next to each other.
  bool dense_last(const char* name, const attnrt_tensor& tensor, const char* dimension) {
    const int32_t last = tensor.ndim - 1;
    if (tensor.shape[last] <= 1 || tensor.stride[last] == 1) return true;
    return fail("tensor {} has stride {} in {}; expected 1", name, tensor.stride[last], dimension);
  }

  // Each row starts at a multiple of `alignment` bytes.
  bool aligned_rows(const char* name, const attnrt_tensor& tensor, int64_t alignment) {
    const int64_t bytes = dtype_bytes(tensor.dtype);
    const auto address = reinterpret_cast<uintptr_t>(tensor.data);
    bool aligned = address % static_cast<uintptr_t>(alignment) == 0;
    for (int32_t i = 0; i + 1 < tensor.ndim; ++i) {
      if (tensor.shape[i] <= 1) continue;
      aligned = aligned && tensor.stride[i] * bytes % alignment == 0;
    }
    return aligned ||
           fail(
               "tensor {} has rows that do not start at a multiple of {} bytes; plan with a "
               "smaller alignment_bytes",
               name, alignment);
  }

  // Each element starts at a multiple of its size.
  bool aligned_elements(const char* name, const attnrt_tensor& tensor) {
    const int64_t bytes = dtype_bytes(tensor.dtype);
    return reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(bytes) == 0 ||
           fail("tensor {} does not start at a multiple of {} bytes, the size of its elements",
                name, bytes);
  }

  // No element is written twice: taken by rising strides, each dimension's stride is at least the
  // elements that the dimensions before it span. Some tensors whose rows interleave without sharing
  // an element fail this, too. REQUIRES: shape() was called, so that no span overflows.
  bool overlaps_itself_nowhere(const char* name, const attnrt_tensor& tensor) {
    int32_t order[] = {0, 1, 2, 3};
    // By insertion: std::stable_sort allocates, and no run may.
    for (int32_t n = 1; n < tensor.ndim; ++n) {
      for (int32_t m = n; m > 0 && tensor.stride[order[m]] < tensor.stride[order[m - 1]]; --m)
        std::swap(order[m], order[m - 1]);
    }
    int64_t span = 1;
    for (int32_t n = 0; n < tensor.ndim; ++n) {
      const int32_t i = order[n];
      if (tensor.shape[i] <= 1) continue;
      if (tensor.stride[i] == 0)
        return fail("tensor {} is written to, so it cannot be broadcast", name);
      if (tensor.stride[i] < span) {
        return fail(
            "tensor {} overlaps itself: stride {} in dimension {} is below {}, which the "
            "dimensions inside it span",
            name, tensor.stride[i], i, span);
      }
      span += (tensor.shape[i] - 1) * tensor.stride[i];
    }
    return true;
  }

  bool contiguous(const char* name, const attnrt_tensor& tensor) {
    if (is_empty(tensor)) return true;
    int64_t expected = 1;
    for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
      if (tensor.shape[i] > 1 && tensor.stride[i] != expected)
        return fail("tensor {} is not contiguous", name);
      expected *= tensor.shape[i];
    }
    return true;
  }

  // No byte from the tensor's first element to its last, the gaps between its rows included,
  // belongs to another tensor: nothing would say whether it is read or written first. REQUIRES:
  // shape() was called for each tensor.
  bool overlaps_none(const attnrt_tensor& written) {
    const Range *const begin = ranges_, *const end = ranges_ + count_;
    const Range* const mine =
        std::find_if(begin, end, [&](const Range& each) { return each.tensor == &written; });
    if (mine == end) return true;  // it is absent, or has no elements
    for (const Range* other = begin; other != end; ++other) {
      if (other == mine || mine->first >= other->end || other->first >= mine->end) continue;
      return fail("tensor {} overlaps tensor {}; it is written to, so give it memory of its own",
                  mine->name, other->name);
    }
    return true;
  }

  bool within(const char* name, int64_t value, int64_t bound) {
    return value <= bound ||
           fail("{} is {}, above the {} that was planned for", name, value, bound);
  }

 private:
  struct Range {  // addresses of one tensor's bytes
    const attnrt_tensor* tensor;
    const char* name;
    uintptr_t first, end;
  };

  // Notes the addresses between which the tensor lies, after checking that they fit into 64 bits.
  bool range(const char* name, const attnrt_tensor& tensor) {
    if (is_empty(tensor)) return true;
    int64_t bytes = dtype_bytes(tensor.dtype);
    for (int32_t i = 0; i < tensor.ndim; ++i) {
      int64_t step = 0;
      if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.stride[i], &step) ||
          __builtin_mul_overflow(step, dtype_bytes(tensor.dtype), &step) ||
          __builtin_add_overflow(bytes, step, &bytes)) {
        return fail("tensor {} reaches further than memory can", name);
      }
    }
    const auto first = reinterpret_cast<uintptr_t>(tensor.data);
    ranges_[count_++] = {&tensor, name, first, first + static_cast<uintptr_t>(bytes)};
    return true;
  }

  attnrt_error* error_;
  attnrt_status status_ = ATTNRT_OK;
  Range ranges_[std::size(kTensors)];  // of the tensors with elements, in the order of shape calls
  size_t count_ = 0;
};

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

bool check_row_shapes(Checker& check, const Problem& p, const attnrt_args& a, const Extents& e) {
  const bool paged = p.page_size > 0;
  const attnrt_dtype out = is_off(p.out_dtype) ? p.dtype : p.out_dtype;
  const attnrt_dtype kv = is_off(p.kv_dtype) ? p.dtype : p.kv_dtype;
  bool ok = true;
  if (p.varlen != 0) {
    ok = check.shape("q", a.q, p.dtype, {kAny, p.heads_q, p.head_dim}) &&
         check.shape("out", a.out, out, {a.q.shape[0], p.heads_q, p.head_dim_v});
  } else {
    ok = check.shape("q", a.q, p.dtype, {kAny, kAny, p.heads_q, p.head_dim}) &&
         check.shape("out", a.out, out, {a.q.shape[0], a.q.shape[1], p.heads_q, p.head_dim_v});
  }
  if (p.varlen != 0 && !paged) {
    return ok && check.shape("k", a.k, kv, {kAny, p.heads_kv, p.head_dim}) &&
           (p.v_in_k != 0 || check.shape("v", a.v, kv, {a.k.shape[0], p.heads_kv, p.head_dim_v}));
  }
  const int64_t first = paged ? kAny : e.batch;
  const int64_t second = paged ? p.page_size : kAny;
  return ok && check.shape("k", a.k, kv, {first, second, p.heads_kv, p.head_dim}) &&
         (p.v_in_k != 0 ||
          check.shape("v", a.v, kv, {a.k.shape[0], a.k.shape[1], p.heads_kv, p.head_dim_v}));
}

// Checks one tensor of scales: [1], [heads_kv], or the shape of k without head_dim.
bool check_scale(Checker& check, const char* name, const attnrt_tensor& scale, const Problem& p,
                 const attnrt_tensor& k) {
  if (p.kv_scale == ATTNRT_KV_SCALE_TENSOR) return check.shape(name, scale, kFloat32, {1});
  if (p.kv_scale == ATTNRT_KV_SCALE_HEAD) return check.shape(name, scale, kFloat32, {p.heads_kv});
  if (k.ndim == 3) return check.shape(name, scale, kFloat32, {k.shape[0], p.heads_kv});
  return check.shape(name, scale, kFloat32, {k.shape[0], k.shape[1], p.heads_kv});
}

bool check_kv_shapes(Checker& check, const Problem& p, const attnrt_args& a) {
  if (p.kv_scale == ATTNRT_KV_SCALE_NONE) return true;
  return check_scale(check, "k_scale", a.k_scale, p, a.k) &&
         (p.v_in_k != 0 || check_scale(check, "v_scale", a.v_scale, p, a.k));
}

bool check_side_shapes(Checker& check, const Problem& p, const attnrt_args& a, const Extents& e) {
  const bool paged = p.page_size > 0;
  // In a paged run seq_kv is only a bound. The number of keys is in kv_lengths, which may be in
  // device memory and is not read here.
  const int64_t mask_columns = paged ? kAny : e.seq_kv;
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
         (!paged || check.shape("page_table", a.page_table, kInt32, {e.batch, kAny})) &&
         (p.diagonal_offset == 0 ||
          check.shape("diagonal_offset", a.diagonal_offset, kInt32, {e.batch}));
}

bool check_presence(Checker& check, const Problem& problem, const attnrt_args& args) {
  return std::all_of(std::begin(kTensors), std::end(kTensors), [&](const TensorEntry& tensor) {
    return check.presence(tensor.name, args.*tensor.member, tensor.rule.is_used(problem));
  });
}

// Checks strides and alignment. REQUIRES: the shapes are right.
bool check_strides(Checker& check, const Problem& problem, const attnrt_args& args) {
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

bool check_overlap(Checker& check, const attnrt_args& args) {
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

// Moves data to the tensor's first element, so that byte_offset becomes 0.
Result<void> resolve_offset(const char* name, attnrt_tensor& tensor) {
  for (const int32_t reserved : tensor.reserved) {
    if (reserved == 0) continue;
    return core::fail(ATTNRT_INVALID_ARGUMENT,
                      "run: tensor {}: a reserved field is {}; leave it at zero", name, reserved);
  }
  uintptr_t first = 0;
  if (tensor.byte_offset < 0 ||
      __builtin_add_overflow(reinterpret_cast<uintptr_t>(tensor.data),
                             static_cast<uintptr_t>(tensor.byte_offset), &first)) {
    return core::fail(ATTNRT_INVALID_ARGUMENT,
                      "run: tensor {}: byte_offset is {}; expected 0 to the end of memory", name,
                      tensor.byte_offset);
  }
  if (tensor.data != nullptr) tensor.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  tensor.byte_offset = 0;
  return {};
}

}  // namespace

Result<void> read_args(const attnrt_args& given, attnrt_args* args) {
  if (auto read = read_struct(given, args); !read) return read;
  if (args->reserved != 0) {
    return fail(ATTNRT_INVALID_ARGUMENT, "args: reserved is {}; leave it at zero", args->reserved);
  }
  for (const auto& [name, member, rule] : kTensors) {
    if (auto resolved = resolve_offset(name, args->*member); !resolved) return resolved;
  }
  return {};
}

attnrt_status check_args(const Problem& problem, attnrt_args& args, Extents* extents,
                         attnrt_error* error) {
  Checker check(error);
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
