// kernels/reference/plain.cpp: the plain evaluation of a row in the problem's dtype
#include "kernels/reference/plain.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/half.hpp"
#include "kernels/reference/attention.hpp"

namespace kernels::reference {
namespace {

struct Key {
  int64_t j;
  float score;
  double norms;  // scale |q||k|
};

float load(const Tensor& tensor, int64_t at) { return load_float(tensor.dtype, tensor.data, at); }

float rounded(DType dtype, float value) {
  float result;
  store_float(dtype, &result, 0, value);
  return load_float(dtype, &result, 0);
}

// One row's place in the tensors.
struct Query {
  const Problem& problem;
  const Args& args;
  const Sequence& sequence;
  int64_t b, i, head;

  // Returns what the stored row of key j is multiplied by.
  float kv_scale(const Tensor& scale, int64_t j) const {
    return problem.kv_scale == KvScale::none ? 1 : load(scale, row_of_key(scale, j));
  }

  int64_t row_of_key(const Tensor& tensor, int64_t j) const {
    const int64_t head_kv = head / (problem.heads_q / problem.heads_kv);
    return key_row(problem, args, tensor, sequence, b, j, head_kv);
  }
};

Key score(const Query& query, int64_t j) {
  const Problem& p = query.problem;
  const Args& args = query.args;
  const int64_t q_row = query_row(p, args.q, query.sequence, query.b, query.i, query.head);
  const int64_t k_row = query.row_of_key(args.k, j);
  const float scale = (p.scale != 0 ? p.scale : 1 / std::sqrt(static_cast<float>(p.head_dim))) *
                      query.kv_scale(args.k_scale, j);
  float dot = 0, q_squares = 0, k_squares = 0;
  for (int64_t x = 0; x < p.head_dim; ++x) {
    const float q = load(args.q, q_row + x), k = load(args.k, k_row + x);
    dot += q * k;
    q_squares += q * q;
    k_squares += k * k;
  }
  Key key{j, scale * dot, double{std::abs(scale) * std::sqrt(q_squares) * std::sqrt(k_squares)}};
  if (p.softcap != 0) key.score = p.softcap * std::tanh(key.score / p.softcap);
  if (p.mask == Mask::additive) {
    const Tensor& m = args.mask;
    key.score += load(m, query.b * m.stride[0] + query.head * m.stride[1] + query.i * m.stride[2] +
                             j * m.stride[3]);
  }
  if (p.alibi) {
    const Tensor& slopes = args.alibi_slopes;
    const float slope = load(slopes, query.b * slopes.stride[0] + query.head * slopes.stride[1]);
    const int64_t distance = std::abs(diagonal(p, args, query.sequence, query.b, query.i) - j);
    key.score -= slope * static_cast<float>(distance);
  }
  return key;
}

}  // namespace

PlainRow plain_row(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                   int64_t i, int64_t head) {
  const Query query{problem, args, sequence, b, i, head};
  PlainRow row{std::vector<float>(static_cast<size_t>(problem.head_dim_v)), -INFINITY, {}};
  std::vector<Key> keys;
  float max = -INFINITY, sink = -INFINITY;
  for (int64_t j = 0; j < sequence.kv_length; ++j) {
    if (!visible(problem, args, sequence, b, i, head, j)) continue;
    const Key key = score(query, j);
    if (key.score == -INFINITY) continue;  // as if it were hidden
    keys.push_back(key);
    max = std::max(max, key.score);
  }
  if (problem.sinks) sink = load(args.sinks, head * args.sinks.stride[0]);
  max = std::max(max, sink);
  if (std::isfinite(sink)) row.size.sink = std::abs(double{sink});
  float sum = sink != -INFINITY ? std::exp(sink - max) : 0;
  for (const Key& key : keys) {
    const float weight = std::exp(key.score - max), narrow = rounded(problem.dtype, weight);
    sum += weight;
    row.size.add_key(key.norms, double{key.score}, double{weight});
    const Tensor& v = value_tensor(problem, args);
    const int64_t v_row = query.row_of_key(v, key.j);
    const float scale = query.kv_scale(value_scale(problem, args), key.j);
    for (size_t x = 0; x < row.out.size(); ++x) {
      const float value = scale * load(v, v_row + static_cast<int64_t>(x));
      row.out[x] += narrow * value;
      row.size.value = std::max(row.size.value, std::abs(double{value}));
    }
  }
  if (sum != 0) row.lse = max + std::log(sum);
  if (keys.empty()) {
    if (std::isnan(sink)) std::fill(row.out.begin(), row.out.end(), sink);
    return row;
  }
  for (float& value : row.out) {
    value = rounded(out_dtype(problem), value / sum);
    row.size.out = std::max(row.size.out, std::abs(double{value}));
  }
  return row;
}

}  // namespace kernels::reference
