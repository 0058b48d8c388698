// tests/kernels/support/plain.cpp: a case into what a plain evaluation in its dtype gives, and how far a row may be off
#include "tests/kernels/support/plain.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/half.hpp"
#include "tests/kernels/support/tolerance.hpp"

namespace kernels::test {
namespace {

float rounded(DType dtype, float value) {
  float result;
  store_float(dtype, &result, 0, value);
  return load_float(dtype, &result, 0);
}

struct Key {
  int64_t j;
  float score;
};

float score(const Case& c, int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t j,
            RowSize* size) {
  const Problem& p = c.problem;
  const int64_t head_kv = head / (p.heads_q / p.heads_kv);
  const int64_t q = query_row(p, c.args.q, s, b, i, head);
  const int64_t k = key_row(p, c.args, c.args.k, s, b, j, head_kv);
  const float scale = p.scale != 0 ? p.scale : 1.0f / std::sqrt(static_cast<float>(p.head_dim));
  float dot = 0, q_squares = 0, k_squares = 0;
  for (int64_t x = 0; x < p.head_dim; ++x) {
    const float qx = load_float(p.dtype, c.args.q.data, q + x);
    const float kx = load_float(p.dtype, c.args.k.data, k + x);
    dot += qx * kx;
    q_squares += qx * qx;
    k_squares += kx * kx;
  }
  float result = scale * dot;
  size->norms =
      std::max(size->norms, double{std::abs(scale) * std::sqrt(q_squares) * std::sqrt(k_squares)});
  if (p.softcap != 0) result = p.softcap * std::tanh(result / p.softcap);
  if (p.mask == Mask::additive) {
    const Tensor& m = c.args.mask;
    result += load_float(m.dtype, m.data,
                         b * m.stride[0] + head * m.stride[1] + i * m.stride[2] + j * m.stride[3]);
  }
  if (p.alibi) {
    const int64_t opposite = p.align == Align::top_left ? i : i + s.kv_length - s.q_length;
    const float slope =
        load_float(DType::f32, c.args.alibi_slopes.data, head * c.args.alibi_slopes.stride[0]);
    result -= slope * static_cast<float>(std::abs(opposite - j));
  }
  size->add_score(result);
  return result;
}

}  // namespace

Plain plain_attention(const Case& c) {
  const Problem& p = c.problem;
  const size_t rows = static_cast<size_t>(c.dense_rows());
  Plain plain{std::vector<float>(rows * static_cast<size_t>(p.head_dim_v)),
              std::vector<float>(rows), std::vector<double>(rows), std::vector<double>(rows)};
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t row) {
    RowSize size;
    std::vector<Key> keys;
    float max = -INFINITY;
    for (int64_t j = 0; j < s.kv_length; ++j) {
      if (!c.visible(b, s, i, head, j)) continue;
      keys.push_back({j, score(c, b, s, i, head, j, &size)});
      max = std::max(max, keys.back().score);
    }
    float sum = 0;
    if (p.sinks) {
      const float sink = load_float(DType::f32, c.args.sinks.data, head * c.args.sinks.stride[0]);
      max = std::max(max, sink);
      if (sink != -INFINITY) sum = std::exp(sink - max);
    }
    for (Key& key : keys) sum += key.score = std::exp(key.score - max);
    float* out = plain.out.data() + row * p.head_dim_v;
    for (const Key& key : keys) {
      const float weight = rounded(p.dtype, key.score / sum);
      const int64_t v = key_row(p, c.args, c.args.v, s, b, key.j, head / (p.heads_q / p.heads_kv));
      for (int64_t x = 0; x < p.head_dim_v; ++x) {
        const float value = load_float(p.dtype, c.args.v.data, v + x);
        size.value = std::max(size.value, std::abs(double{value}));
        out[x] += weight * value;
      }
    }
    for (int64_t x = 0; x < p.head_dim_v; ++x) {
      out[x] = rounded(p.dtype, out[x]);
      size.out = std::max(size.out, std::abs(double{out[x]}));
    }
    const size_t at = static_cast<size_t>(row);
    plain.lse[at] = sum == 0 ? -INFINITY : max + std::log(sum);
    size.keys = static_cast<double>(keys.size());
    plain.out_floor[at] = out_floor(p.dtype, size);
    plain.lse_floor[at] = lse_floor(size);
  });
  return plain;
}

}  // namespace kernels::test
