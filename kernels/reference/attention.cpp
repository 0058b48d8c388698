// kernels/reference/attention.cpp: the exact answer to an attention problem, in float64
//
// This file is the specification: it repeats the definition word for word. Where it and a kernel
// differ, the kernel is wrong. It shares with the kernels only the vocabulary and where a row lies;
// it has its own code for visibility.
#include "kernels/reference/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"

namespace kernels::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Returns x as f32 holds its size: infinite beyond f32's largest number. It is not rounded.
double in_range_of_f32(double x) {
  return std::abs(x) > std::numeric_limits<float>::max() ? std::copysign(kInfinity, x) : x;
}

double value(const Tensor& tensor, int64_t offset) {
  return load_float(tensor.dtype, tensor.data, offset);
}

double scale_of(const Problem& problem) {
  if (problem.scale != 0) return problem.scale;
  return 1.0 / std::sqrt(static_cast<double>(problem.head_dim));
}

struct Row {
  const Problem& problem;
  const Args& args;
  Sequence sequence;
  int64_t batch, head, i;

  int64_t head_kv() const { return head / (problem.heads_q / problem.heads_kv); }

  int64_t diagonal() const { return reference::diagonal(problem, args, sequence, batch, i); }

  // Returns what a stored row of keys or values is multiplied by.
  double kv_scale(const Tensor& scale, int64_t j) const {
    if (problem.kv_scale == KvScale::none) return 1;
    return value(scale, scale_element(problem, args, scale, sequence, batch, j, head_kv()));
  }

  int64_t mask_offset(int64_t j) const {
    const Tensor& m = args.mask;
    return batch * m.stride[0] + head * m.stride[1] + i * m.stride[2] + j * m.stride[3];
  }

  // REQUIRES: key j exists.
  bool visible(int64_t j) const {
    if (problem.mask == Mask::boolean &&
        !static_cast<const uint8_t*>(args.mask.data)[mask_offset(j)])
      return false;
    if (problem.mask == Mask::additive && value(args.mask, mask_offset(j)) == -kInfinity)
      return false;
    if (problem.causal && !(j <= diagonal())) return false;
    if (problem.window_left >= 0 && !(diagonal() - j <= problem.window_left)) return false;
    if (problem.window_right >= 0 && !(j - diagonal() <= problem.window_right)) return false;
    return true;
  }

  double score(int64_t j) const {
    const int64_t q_row = query_row(problem, args.q, sequence, batch, i, head);
    const int64_t k_row = key_row(problem, args, args.k, sequence, batch, j, head_kv());
    double dot = 0;
    for (int64_t x = 0; x < problem.head_dim; ++x)
      dot += value(args.q, q_row + x) * value(args.k, k_row + x);
    double s = scale_of(problem) * kv_scale(args.k_scale, j) * in_range_of_f32(dot);
    if (problem.softcap != 0) s = problem.softcap * std::tanh(s / problem.softcap);
    if (problem.mask == Mask::additive) s += value(args.mask, mask_offset(j));
    if (problem.alibi) {
      const Tensor& slopes = args.alibi_slopes;
      const double slope = value(slopes, batch * slopes.stride[0] + head * slopes.stride[1]);
      s -= slope * std::abs(static_cast<double>(diagonal() - j));
    }
    if (problem.mask == Mask::additive || problem.alibi) s = in_range_of_f32(s);
    return s;
  }

  // Writes head_dim_v values. RETURNS the log of the denominator.
  double attend(double* out) const {
    for (int64_t x = 0; x < problem.head_dim_v; ++x) out[x] = 0;
    std::vector<int64_t> keys;
    std::vector<double> scores;
    double max = -kInfinity;
    for (int64_t j = 0; j < sequence.kv_length; ++j) {
      if (!visible(j)) continue;
      const double s = score(j);
      if (s == -kInfinity) continue;  // as if it were hidden
      keys.push_back(j);
      scores.push_back(s);
      max = std::fmax(max, s);
    }
    double sink = -kInfinity;
    if (problem.sinks) sink = value(args.sinks, head * args.sinks.stride[0]);
    if (keys.empty()) {
      // 0 / exp(sink), which is 0 unless the sink is NaN.
      if (std::isnan(sink)) std::fill(out, out + problem.head_dim_v, sink);
      return sink;
    }
    max = std::fmax(max, sink);

    double denominator = problem.sinks ? std::exp(sink - max) : 0.0;
    for (const double s : scores) denominator += std::exp(s - max);
    for (size_t n = 0; n < keys.size(); ++n) {
      const double weight = std::exp(scores[n] - max) / denominator;
      const Tensor& v = value_tensor(problem, args);
      const int64_t v_row = key_row(problem, args, v, sequence, batch, keys[n], head_kv());
      const double scale = kv_scale(value_scale(problem, args), keys[n]);
      for (int64_t x = 0; x < problem.head_dim_v; ++x)
        out[x] += weight * (scale * value(v, v_row + x));
    }
    return max + std::log(denominator);
  }
};

}  // namespace

int64_t diagonal(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                 int64_t i) {
  const int64_t offset = problem.diagonal_offset ? index_at(args.diagonal_offset, b) : 0;
  return i + offset +
         (problem.align == Align::top_left ? 0 : sequence.kv_length - sequence.q_length);
}

bool visible(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
             int64_t i, int64_t head, int64_t j) {
  return Row{problem, args, sequence, b, head, i}.visible(j);
}

int64_t out_index(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                  int64_t i, int64_t head) {
  const int64_t row = problem.varlen ? sequence.q_first + i : b * args.q.shape[1] + i;
  return (row * problem.heads_q + head) * problem.head_dim_v;
}

int64_t lse_index(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
                  int64_t i, int64_t head) {
  if (problem.varlen) return head * args.q.shape[0] + sequence.q_first + i;
  return (b * problem.heads_q + head) * args.q.shape[1] + i;
}

double attend(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
              int64_t i, int64_t head, double* out) {
  return Row{problem, args, sequence, b, head, i}.attend(out);
}

void attention(const Problem& problem, const Args& args, double* out, double* lse) {
  for (int64_t b = 0; b < real_batch(problem, args); ++b) {
    const Sequence s = sequence(problem, args, b);
    for (int64_t i = 0; i < s.q_length; ++i) {
      for (int64_t head = 0; head < problem.heads_q; ++head) {
        const double log_denominator =
            attend(problem, args, s, b, i, head, out + out_index(problem, args, s, b, i, head));
        if (lse != nullptr) lse[lse_index(problem, args, s, b, i, head)] = log_denominator;
      }
    }
  }
}

}  // namespace kernels::reference
