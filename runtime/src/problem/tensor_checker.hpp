// runtime/src/problem/tensor_checker.hpp: checks an application's tensors, and says what is wrong
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>

#include "problem/problem.hpp"

namespace attnrt::core {

constexpr int64_t kAnySize = -1;  // in an expected shape: any size

inline bool is_empty(const attnrt_tensor& tensor) {
  const int32_t ndim = std::clamp(tensor.ndim, 0, 4);
  return std::find(tensor.shape, tensor.shape + ndim, 0) != tensor.shape + ndim;
}

// The addresses of one tensor's bytes.
struct TensorRange {
  const attnrt_tensor* tensor = nullptr;
  const char* name = nullptr;
  uintptr_t first = 0, end = 0;
};

// Checks one tensor at a time. The first thing that is wrong fills error; nothing is allocated
// before that. where: the step, as messages begin: "run".
class TensorChecker {
 public:
  // ranges: room for each tensor whose shape is checked.
  TensorChecker(const char* where, std::span<TensorRange> ranges, attnrt_error* error)
      : where_(where), ranges_(ranges), error_(error) {}
  attnrt_status status() const { return status_; }

  template <class... Arguments>
  bool fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    const std::string text = fmt::format(format, std::forward<Arguments>(arguments)...);
    status_ = attnrt_fail(error_, ATTNRT_INVALID_ARGUMENT, "%s: %s", where_, text.c_str());
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
      if (expected == kAnySize && tensor.shape[i] < 0) {
        return fail("tensor {} has {} in dimension {}; expected at least 0", name, tensor.shape[i],
                    i);
      }
      if (expected != kAnySize && tensor.shape[i] != expected) {
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

  // Each row starts at a multiple of `alignment` bytes, a power of two.
  bool aligned_rows(const char* name, const attnrt_tensor& tensor, int64_t alignment) {
    const int64_t bytes = dtype_bytes(tensor.dtype);
    // The lowest bit that is set in an address or a distance decides: no division is needed.
    auto bits = reinterpret_cast<uintptr_t>(tensor.data);
    for (int32_t i = 0; i + 1 < tensor.ndim; ++i) {
      if (tensor.shape[i] > 1) bits |= static_cast<uintptr_t>(tensor.stride[i] * bytes);
    }
    return (bits & static_cast<uintptr_t>(alignment - 1)) == 0 ||
           fail(
               "tensor {} has rows that do not start at a multiple of {} bytes; plan with a "
               "smaller alignment_bytes",
               name, alignment);
  }

  // Each element starts at a multiple of its size. REQUIRES: shape() was called, so that the size
  // is a power of two.
  bool aligned_elements(const char* name, const attnrt_tensor& tensor) {
    const int64_t bytes = dtype_bytes(tensor.dtype);
    return (reinterpret_cast<uintptr_t>(tensor.data) & static_cast<uintptr_t>(bytes - 1)) == 0 ||
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
  // belongs to another tensor: nothing would say whether it is read or written first. but_for: a
  // tensor that may overlap it. REQUIRES: shape() was called for each tensor.
  bool overlaps_none(const attnrt_tensor& written, const attnrt_tensor* but_for = nullptr) {
    const auto known = ranges_.first(count_);
    const auto mine = std::find_if(known.begin(), known.end(), [&](const TensorRange& each) {
      return each.tensor == &written;
    });
    if (mine == known.end()) return true;  // it is absent, or has no elements
    for (auto other = known.begin(); other != known.end(); ++other) {
      if (other == mine || other->tensor == but_for || mine->first >= other->end ||
          other->first >= mine->end)
        continue;
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

  const char* where_;
  std::span<TensorRange> ranges_;  // of the tensors with elements, in the order of shape calls
  size_t count_ = 0;
  attnrt_error* error_;
  attnrt_status status_ = ATTNRT_OK;
};

// Moves data to the tensor's first element, so that byte_offset becomes 0. Errors:
// INVALID_ARGUMENT.
inline Result<void> resolve_offset(const char* where, const char* name, attnrt_tensor& tensor) {
  for (const int32_t reserved : tensor.reserved) {
    if (reserved == 0) continue;
    return core::fail(ATTNRT_INVALID_ARGUMENT,
                      "{}: tensor {}: a reserved field is {}; leave it at zero", where, name,
                      reserved);
  }
  uintptr_t first = 0;
  if (tensor.byte_offset < 0 ||
      __builtin_add_overflow(reinterpret_cast<uintptr_t>(tensor.data),
                             static_cast<uintptr_t>(tensor.byte_offset), &first)) {
    return core::fail(ATTNRT_INVALID_ARGUMENT,
                      "{}: tensor {}: byte_offset is {}; expected 0 to the end of memory", where,
                      name, tensor.byte_offset);
  }
  if (tensor.data != nullptr) tensor.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  tensor.byte_offset = 0;
  return {};
}

}  // namespace attnrt::core
