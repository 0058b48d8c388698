// runtime/src/run.cpp: a Plan and one run's tensors into a result
#include "run.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "staging.hpp"

namespace attnrt::core {
namespace {

constexpr attnrt_dtype kFloat32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kInt32{ATTNRT_DTYPE_INT, 32, 1};
constexpr int64_t kAny = -1;

// Checks one run's tensors; the first thing that is wrong fills error, and nothing is allocated before that.
class Checker {
 public:
  explicit Checker(attnrt_error* error) : error_(error) {}
  bool ok() const { return status_ == ATTNRT_OK; }
  attnrt_status status() const { return status_; }

  template <class... Arguments>
  bool fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    const std::string text = fmt::format(format, std::forward<Arguments>(arguments)...);
    status_ = attnrt_fail(error_, ATTNRT_INVALID_ARGUMENT, "run: %s", text.c_str());
    return false;
  }

  // Present exactly if wanted.
  bool presence(const char* name, const attnrt_tensor& tensor, bool wanted) {
    if ((tensor.data != nullptr) == wanted) return true;
    if (wanted && is_empty(tensor)) return true;  // a tensor without elements needs no memory
    return wanted ? fail("tensor {} is absent, but the problem uses it", name)
                  : fail("tensor {} is given, but the problem does not use it", name);
  }

  // shape: kAny fits any size. Rows: the last stride is 1 and every row is aligned.
  bool tensor(const char* name, const attnrt_tensor& tensor, attnrt_dtype dtype,
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
    return span_fits(name, tensor);
  }

  bool rows(const char* name, const attnrt_tensor& tensor, int64_t alignment, bool written) {
    if (is_empty(tensor)) return true;
    const int32_t last = tensor.ndim - 1;
    if (tensor.shape[last] > 1 && tensor.stride[last] != 1) {
      return fail("tensor {} has stride {} in head_dim; expected 1", name, tensor.stride[last]);
    }
    const int64_t bytes = dtype_bytes(tensor.dtype);
    const auto address = reinterpret_cast<uintptr_t>(tensor.data);
    bool aligned = address % static_cast<uintptr_t>(alignment) == 0;
    for (int32_t i = 0; i < last; ++i) {
      if (tensor.shape[i] <= 1) continue;
      aligned = aligned && tensor.stride[i] * bytes % alignment == 0;
    }
    if (written && !this->written(name, tensor)) return false;
    if (!elements(name, tensor)) return false;
    if (!aligned) {
      return fail(
          "tensor {} has rows that do not start at a multiple of {} bytes; plan with a smaller "
          "alignment_bytes",
          name, alignment);
    }
    return true;
  }

  // No element is written twice because of a stride of 0.
  bool written(const char* name, const attnrt_tensor& tensor) {
    for (int32_t i = 0; i < tensor.ndim; ++i) {
      if (tensor.shape[i] > 1 && tensor.stride[i] == 0) {
        return fail("tensor {} is written to, so it cannot be broadcast", name);
      }
    }
    return true;
  }

  // No byte that is written is read as well, or written under another name: nothing says which would come first.
  // From a tensor's first element to its last, rows between its rows included. After every tensor().
  bool apart(const attnrt_tensor& written) {
    const Range *const begin = ranges_, *const end = ranges_ + count_;
    const Range* const mine =
        std::find_if(begin, end, [&](const Range& each) { return each.tensor == &written; });
    if (mine == end) return true;  // of no bytes, or absent
    for (const Range* its = begin; its != end; ++its) {
      if (its == mine || mine->first >= its->end || its->first >= mine->end) continue;
      return fail("tensor {} overlaps tensor {}; it is written to, so give it memory of its own",
                  mine->name, its->name);
    }
    return true;
  }

  // Every element starts where its type may.
  bool elements(const char* name, const attnrt_tensor& tensor) {
    const int64_t bytes = dtype_bytes(tensor.dtype);
    return reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(bytes) == 0 ||
           fail("tensor {} does not start at a multiple of {} bytes, the size of its elements",
                name, bytes);
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

 private:
  struct Range {  // addresses
    const attnrt_tensor* tensor;
    const char* name;
    uintptr_t first, end;
  };

  static bool is_empty(const attnrt_tensor& tensor) {
    const int32_t ndim = std::clamp(tensor.ndim, 0, 4);
    return std::find(tensor.shape, tensor.shape + ndim, 0) != tensor.shape + ndim;
  }

  bool span_fits(const char* name, const attnrt_tensor& tensor) {
    if (is_empty(tensor)) return true;
    int64_t span = dtype_bytes(tensor.dtype);
    for (int32_t i = 0; i < tensor.ndim; ++i) {
      int64_t step = 0;
      if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.stride[i], &step) ||
          __builtin_mul_overflow(step, dtype_bytes(tensor.dtype), &step) ||
          __builtin_add_overflow(span, step, &span)) {
        return fail("tensor {} reaches further than memory can", name);
      }
    }
    const auto first = reinterpret_cast<uintptr_t>(tensor.data);
    ranges_[count_++] = {&tensor, name, first, first + static_cast<uintptr_t>(span)};
    return true;
  }

  attnrt_error* error_;
  attnrt_status status_ = ATTNRT_OK;
  static constexpr size_t kTensors = 12;  // of attnrt_args
  Range ranges_[kTensors];                // of those that have bytes, as far as they were checked
  size_t count_ = 0;
};

// Runs before the shapes are checked: 0 rows where the numbers make no sense, which check_rows then says.
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

bool within(Checker& check, const char* name, int64_t value, int64_t bound) {
  return value <= bound ||
         check.fail("{} is {}, above the {} that was planned for", name, value, bound);
}

bool check_rows(Checker& check, const Problem& p, const attnrt_args& a, const Extents& e) {
  const bool paged = p.page_size > 0;
  const bool packed_kv = p.varlen != 0 && !paged;
  bool fine = true;
  if (p.varlen != 0) {
    fine = fine && check.tensor("q", a.q, p.dtype, {kAny, p.heads_q, p.head_dim}) &&
           check.tensor("out", a.out, p.dtype, {a.q.shape[0], p.heads_q, p.head_dim_v});
  } else {
    fine =
        fine && check.tensor("q", a.q, p.dtype, {kAny, kAny, p.heads_q, p.head_dim}) &&
        check.tensor("out", a.out, p.dtype, {a.q.shape[0], a.q.shape[1], p.heads_q, p.head_dim_v});
  }
  if (packed_kv) {
    fine = fine && check.tensor("k", a.k, p.dtype, {kAny, p.heads_kv, p.head_dim}) &&
           check.tensor("v", a.v, p.dtype, {a.k.shape[0], p.heads_kv, p.head_dim_v});
  } else {
    const int64_t first = paged ? kAny : e.batch;
    const int64_t second = paged ? p.page_size : kAny;
    fine = fine && check.tensor("k", a.k, p.dtype, {first, second, p.heads_kv, p.head_dim}) &&
           check.tensor("v", a.v, p.dtype, {a.k.shape[0], a.k.shape[1], p.heads_kv, p.head_dim_v});
  }
  return fine && check.rows("q", a.q, p.alignment_bytes, false) &&
         check.rows("k", a.k, p.alignment_bytes, false) &&
         check.rows("v", a.v, p.alignment_bytes, false) &&
         check.rows("out", a.out, p.alignment_bytes, true);
}

bool check_side_tensors(Checker& check, const Problem& p, const attnrt_args& a, const Extents& e) {
  const auto contiguous = [&check](const char* name, const attnrt_tensor& tensor,
                                   attnrt_dtype dtype, std::initializer_list<int64_t> shape) {
    return check.tensor(name, tensor, dtype, shape) && check.contiguous(name, tensor) &&
           check.elements(name, tensor);
  };
  // Paged: seq_kv is a bound, and how many keys there are stands in kv_lengths, on the device perhaps.
  if (p.mask != ATTNRT_MASK_NONE &&
      !(check.tensor("mask", a.mask, p.mask_dtype,
                     {e.batch, p.heads_q, e.seq_q, p.page_size > 0 ? kAny : e.seq_kv}) &&
        within(check, "the mask's seq_kv", a.mask.shape[3], p.seq_kv) &&
        check.elements("mask", a.mask))) {
    return false;
  }
  if (p.lse != 0) {
    const bool shaped = p.varlen != 0
                            ? check.tensor("lse", a.lse, kFloat32, {p.heads_q, e.total_q})
                            : check.tensor("lse", a.lse, kFloat32, {e.batch, p.heads_q, e.seq_q});
    if (!shaped || !check.written("lse", a.lse) || !check.elements("lse", a.lse)) return false;
  }
  return (p.alibi == 0 || contiguous("alibi_slopes", a.alibi_slopes, kFloat32, {p.heads_q})) &&
         (p.sinks == 0 || contiguous("sinks", a.sinks, kFloat32, {p.heads_q})) &&
         (p.kv_lengths == 0 || contiguous("kv_lengths", a.kv_lengths, kInt32, {e.batch})) &&
         (p.varlen == 0 || contiguous("offsets_q", a.offsets_q, kInt32, {e.batch + 1})) &&
         (p.varlen == 0 || p.page_size > 0 ||
          contiguous("offsets_kv", a.offsets_kv, kInt32, {e.batch + 1})) &&
         (p.page_size == 0 || contiguous("page_table", a.page_table, kInt32, {e.batch, kAny}));
}

bool check_presence(Checker& check, const Problem& p, const attnrt_args& a) {
  return check.presence("q", a.q, true) && check.presence("k", a.k, true) &&
         check.presence("v", a.v, true) && check.presence("out", a.out, true) &&
         check.presence("mask", a.mask, p.mask != ATTNRT_MASK_NONE) &&
         check.presence("lse", a.lse, p.lse != 0) &&
         check.presence("alibi_slopes", a.alibi_slopes, p.alibi != 0) &&
         check.presence("sinks", a.sinks, p.sinks != 0) &&
         check.presence("kv_lengths", a.kv_lengths, p.kv_lengths != 0) &&
         check.presence("offsets_q", a.offsets_q, p.varlen != 0) &&
         check.presence("offsets_kv", a.offsets_kv, p.varlen != 0 && p.page_size == 0) &&
         check.presence("page_table", a.page_table, p.page_size > 0);
}

bool check_workspace(Checker& check, const Plan& plan, const attnrt_args& args) {
  if (args.workspace == nullptr) return true;
  if (args.workspace_bytes < plan.workspace_bytes()) {
    return check.fail("workspace has {} bytes; the plan needs {}", args.workspace_bytes,
                      plan.workspace_bytes());
  }
  const auto alignment = static_cast<uintptr_t>(plan.workspace_alignment());
  return reinterpret_cast<uintptr_t>(args.workspace) % alignment == 0 ||
         check.fail("workspace does not start at a multiple of {} bytes", alignment);
}

}  // namespace

attnrt_status copy_args(const attnrt_args* given, attnrt_args* args, attnrt_error* error) {
  constexpr size_t head = offsetof(attnrt_args, q);
  constexpr size_t tensors_end = offsetof(attnrt_args, workspace);
  constexpr size_t longest = 8192;
  const auto size = static_cast<size_t>(std::max(given->struct_size, 0));
  if (size < head || size > longest) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT, "run: args.struct_size is %d; expected %zu",
                       given->struct_size, sizeof(attnrt_args));
  }
  // Whole fields only: half a tensor is none.
  const size_t last = size < tensors_end ? sizeof(attnrt_tensor) : sizeof(void*);
  const size_t known = std::min(head + (size - head) / last * last, sizeof(attnrt_args));
  *args = {};
  std::memcpy(args, given, known);
  args->struct_size = sizeof *args;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + std::min(size, sizeof *args), bytes + size,
                  [](unsigned char byte) { return byte != 0; })) {
    return attnrt_fail(error, ATTNRT_INVALID_ARGUMENT,
                       "run: args has %zu bytes, and what follows the %zu that this runtime knows "
                       "is not zero: a newer "
                       "tensor; leave it off",
                       size, sizeof *args);
  }
  return ATTNRT_OK;
}

// A mask of fewer dimensions, or of size 1 where the problem has more, is broadcast: stride 0.
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
  const bool fine = check_rows(check, problem, args, *extents) &&
                    within(check, "batch", extents->batch, problem.batch) &&
                    within(check, "seq_q", extents->seq_q, problem.seq_q) &&
                    within(check, "seq_kv", extents->seq_kv, problem.seq_kv) &&
                    check_side_tensors(check, problem, args, *extents) && check.apart(args.out) &&
                    check.apart(args.lse);
  return fine ? ATTNRT_OK : check.status();
}

attnrt_status run(const Plan& plan, const attnrt_args& given, attnrt_error* error) {
  attnrt_args args;
  if (const attnrt_status status = copy_args(&given, &args, error); status != ATTNRT_OK)
    return status;
  Extents extents;
  if (const attnrt_status status = check_args(plan.problem(), args, &extents, error);
      status != ATTNRT_OK)
    return status;
  Checker check(error);
  if (!check_workspace(check, plan, args)) return check.status();
  if (extents.batch == 0 || extents.total_q == 0) return ATTNRT_OK;
  if (args.workspace == nullptr) {
    args.workspace = plan.workspace();
    args.workspace_bytes = plan.workspace_bytes();
  }
  attnrt_error found = ATTNRT_ERROR_INIT;
  const attnrt_status status =
      plan.staging() != nullptr
          ? plan.staging()->run(plan, args, &found)
          : plan.backend().run(plan.plugin_plan(), plan.device_problem(), args, &found);
  if (status == ATTNRT_OK) return status;
  return attnrt_fail(error, status, "run: %s: %s", plan.backend_name().c_str(),
                     found.message[0] != '\0' ? found.message : status_name(status));
}

}  // namespace attnrt::core
