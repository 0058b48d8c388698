// tests/support/tensors.hpp: makes the host tensors of one attention, and checks its result
#pragma once

#include <attnrt/plugin.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <new>
#include <vector>

namespace attnrt::core::support {

// An array that starts at a multiple of 64 bytes.
template <class T>
class Aligned {
 public:
  explicit Aligned(size_t count, T value = {})
      : data_(static_cast<T*>(::operator new (count * sizeof(T) + 64, std::align_val_t{64}))),
        size_(count) {
    std::uninitialized_fill_n(data_.get(), count, value);
  }
  T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data_.get()[i]; }
  T* begin() const { return data(); }
  T* end() const { return data() + size_; }

 private:
  struct Free {
    void operator()(T* data) const {
      ::operator delete (static_cast<void*>(data), std::align_val_t{64});
    }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_;
};

constexpr attnrt_dtype kF32{ATTNRT_DTYPE_FLOAT, 32, 1};
constexpr attnrt_dtype kBool{ATTNRT_DTYPE_BOOL, 8, 1};
constexpr attnrt_dtype kI32{ATTNRT_DTYPE_INT, 32, 1};

inline attnrt_tensor view(const void* data, attnrt_dtype dtype,
                          std::initializer_list<int64_t> shape) {
  attnrt_tensor tensor{const_cast<void*>(data), dtype, 0, {}, {}};
  for (const int64_t size : shape) tensor.shape[tensor.ndim++] = size;
  int64_t stride = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i)
    tensor.stride[i] = stride, stride *= tensor.shape[i];
  return tensor;
}

// Pseudo-random numbers in [-1, 1], the same in every run.
inline float number(uint64_t index) {
  uint64_t x = index * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9;
  return static_cast<float>(static_cast<double>(x >> 11) * 0x1p-52 - 1.0);
}

struct Shape {
  int64_t batch = 1, seq_q = 1, seq_kv = 1, heads_q = 1, heads_kv = 1, head_dim = 8;
};

// Dense f32 tensors of one attention; out starts as NaN.
struct Attention {
  explicit Attention(Shape s, uint64_t seed = 1)
      : shape(s),
        q(static_cast<size_t>(s.batch * s.seq_q * s.heads_q * s.head_dim)),
        k(static_cast<size_t>(s.batch * s.seq_kv * s.heads_kv * s.head_dim)),
        v(k.size()),
        out(q.size(), NAN) {
    uint64_t at = seed << 32;
    for (const auto* values : {&q, &k, &v}) {
      for (float& value : *values) value = number(at++);
    }
    args.struct_size = sizeof args;
    args.q = view(q.data(), kF32, {s.batch, s.seq_q, s.heads_q, s.head_dim});
    args.k = view(k.data(), kF32, {s.batch, s.seq_kv, s.heads_kv, s.head_dim});
    args.v = view(v.data(), kF32, {s.batch, s.seq_kv, s.heads_kv, s.head_dim});
    args.out = view(out.data(), kF32, {s.batch, s.seq_q, s.heads_q, s.head_dim});
    problem.batch = s.batch;
    problem.heads_q = s.heads_q;
    problem.heads_kv = s.heads_kv;
    problem.seq_q = s.seq_q;
    problem.seq_kv = s.seq_kv;
    problem.head_dim = problem.head_dim_v = s.head_dim;
  }

  Shape shape;
  Aligned<float> q, k, v, out;
  attnrt_problem problem = ATTNRT_PROBLEM_INIT;
  attnrt_args args{};
};

inline double element(const attnrt_tensor& t, int64_t a, int64_t b, int64_t c, int64_t d) {
  return static_cast<const float*>(
      t.data)[a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3]];
}

// Computes attention in double and returns the largest error of args.out, or NaN if one of its
// elements is NaN. Knows f32 tensors of any strides, causal, top_left, kv_lengths, and boolean or
// additive f32 masks of four dimensions.
inline double largest_error(const attnrt_problem& p, const attnrt_args& a) {
  double largest = 0;
  const int64_t seq_q = a.q.shape[1], head_dim = a.q.shape[3];
  const double scale =
      p.scale != 0 ? static_cast<double>(p.scale) : 1 / std::sqrt(static_cast<double>(head_dim));
  for (int64_t b = 0; b < a.q.shape[0]; ++b) {
    const int64_t seq_kv = a.kv_lengths.data != nullptr
                               ? static_cast<const int32_t*>(a.kv_lengths.data)[b]
                               : a.k.shape[1];
    const int64_t shift = p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : seq_kv - seq_q;
    for (int64_t h = 0; h < a.q.shape[2]; ++h) {
      const int64_t g = h / (a.q.shape[2] / a.k.shape[2]);
      for (int64_t i = 0; i < seq_q; ++i) {
        std::vector<double> weights(static_cast<size_t>(seq_kv), -INFINITY);
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < seq_kv; ++j) {
          double s = 0;
          for (int64_t d = 0; d < head_dim; ++d)
            s += element(a.q, b, i, h, d) * element(a.k, b, j, g, d);
          s *= scale;
          if (p.causal != 0 && j > i + shift) continue;
          if (a.mask.data != nullptr) {
            const int64_t at = b * a.mask.stride[0] + h * a.mask.stride[1] + i * a.mask.stride[2] +
                               j * a.mask.stride[3];
            if (p.mask == ATTNRT_MASK_BOOLEAN && static_cast<const uint8_t*>(a.mask.data)[at] == 0)
              continue;
            if (p.mask == ATTNRT_MASK_ADDITIVE)
              s += static_cast<double>(static_cast<const float*>(a.mask.data)[at]);
          }
          weights[static_cast<size_t>(j)] = s;
          top = std::max(top, s);
        }
        for (double& weight : weights)
          sum += weight = top == -INFINITY ? 0 : std::exp(weight - top);
        for (int64_t d = 0; d < a.v.shape[3]; ++d) {
          double expected = 0;
          for (int64_t j = 0; j < seq_kv; ++j) {
            if (weights[static_cast<size_t>(j)] != 0)
              expected += weights[static_cast<size_t>(j)] * element(a.v, b, j, g, d);
          }
          if (sum != 0) expected /= sum;
          const double error = std::abs(element(a.out, b, i, h, d) - expected);
          if (!(error <= largest)) largest = error;
          if (std::isnan(error)) return error;
        }
      }
    }
  }
  return largest;
}

// For values in [-1, 1] and f32 sums of a few thousand terms.
constexpr double kTolerance = 1e-5;

}  // namespace attnrt::core::support
