// runtime/conformance/expect.cpp: a case's tensors into the exact answer and how far from it a plugin may be
#include "conformance/expect.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"

namespace attnrt::cli::verify {
namespace {

constexpr double kEps32 = 0x1p-23;

float rounded(kernels::DType dtype, float value) {
  if (dtype == kernels::DType::f16) return kernels::f16_to_f32(kernels::f32_to_f16(value));
  if (dtype == kernels::DType::bf16) return kernels::bf16_to_f32(kernels::f32_to_bf16(value));
  return value;
}

// The plain evaluation of one row, and what its tolerance needs.
class Plain {
 public:
  Plain(const Case& drawn, Tensors& tensors)
      : case_(drawn),
        tensors_(tensors),
        problem_(kernel_problem(drawn.problem)),
        args_(kernel_args(tensors)) {}

  // Compares with the exact row; fills empty, floor and lse_tolerance.
  void evaluate(Row& row, const kernels::Sequence& s, const double* exact, double lse,
                Expectation& all) {
    keys_.clear();
    const int64_t hk = row.h / (problem_.heads_q / problem_.heads_kv);
    double largest = -INFINITY;
    for (int64_t j = 0; j < s.kv_length; ++j) {
      if (!visible(case_, tensors_, row.b, row.h, row.i, j)) continue;
      keys_.push_back(score(row, s, hk, j));
      largest = std::max(largest, static_cast<double>(keys_.back().score));
    }
    row.empty = keys_.empty();
    float sum = 0;
    const double sink =
        problem_.sinks ? load(args_.sinks, row.h * args_.sinks.stride[0]) : -INFINITY;
    const auto max = static_cast<float>(std::max(largest, sink));
    if (problem_.sinks && sink != -INFINITY) sum = std::exp(static_cast<float>(sink) - max);
    accumulated_.assign(static_cast<size_t>(problem_.head_dim_v), 0.0F);
    double magnitude = 0, largest_v = 0;
    for (const Key& key : keys_) {
      const float weight = std::exp(key.score - max);
      sum += weight;
      const float narrow = rounded(problem_.dtype, weight);
      for (int64_t x = 0; x < problem_.head_dim_v; ++x) {
        const float value = load(args_.v, key.v_row + x);
        accumulated_[static_cast<size_t>(x)] += narrow * value;
        largest_v = std::max(largest_v, std::abs(static_cast<double>(value)));
      }
      if (!(weight < 1e-7F)) magnitude = std::max(magnitude, key.magnitude);
    }
    finish(row, exact, lse, sum, magnitude + std::abs(sink == -INFINITY ? 0 : sink), largest_v,
           all);
  }

 private:
  struct Key {
    float score;
    double magnitude;
    int64_t v_row;
  };

  static float load(const kernels::Tensor& t, int64_t at) {
    return kernels::load_float(t.dtype, t.data, at);
  }

  Key score(const Row& row, const kernels::Sequence& s, int64_t hk, int64_t j) const {
    const int64_t q_row = kernels::query_row(problem_, args_.q, s, row.b, row.i, row.h);
    const int64_t k_row = kernels::key_row(problem_, args_, args_.k, s, row.b, j, hk);
    float dot = 0;
    double size = 0;
    for (int64_t x = 0; x < problem_.head_dim; ++x) {
      const float product = load(args_.q, q_row + x) * load(args_.k, k_row + x);
      dot += product;
      size += std::abs(static_cast<double>(product));
    }
    const float scale =
        problem_.scale != 0 ? problem_.scale : 1 / std::sqrt(static_cast<float>(problem_.head_dim));
    Key key{scale * dot, std::abs(static_cast<double>(scale)) * size,
            kernels::key_row(problem_, args_, args_.v, s, row.b, j, hk)};
    if (problem_.softcap != 0)
      key.score = problem_.softcap * std::tanh(key.score / problem_.softcap);
    const auto add = [&key](double value) {
      key.score += static_cast<float>(value);
      key.magnitude += std::abs(value);
    };
    if (problem_.mask == kernels::Mask::additive) {
      const auto& m = args_.mask;
      add(load(m,
               row.b * m.stride[0] + row.h * m.stride[1] + row.i * m.stride[2] + j * m.stride[3]));
    }
    if (problem_.alibi) {
      const int64_t diagonal =
          problem_.align == kernels::Align::top_left ? row.i : row.i + s.kv_length - s.q_length;
      add(-load(args_.alibi_slopes, row.h * args_.alibi_slopes.stride[0]) *
          std::abs(static_cast<double>(diagonal - j)));
    }
    return key;
  }

  void finish(Row& row, const double* exact, double lse, float sum, double magnitude,
              double largest_v, Expectation& all) const {
    const auto count = static_cast<double>(keys_.size());
    const double score_error =
        (2 + std::sqrt(static_cast<double>(problem_.head_dim))) * kEps32 * magnitude;
    const double eps = epsilon(case_.problem.dtype);
    double largest = 0, plain = 0;
    for (int64_t x = 0; x < problem_.head_dim_v; ++x) {
      const float value =
          row.empty ? 0.0F : rounded(problem_.dtype, accumulated_[static_cast<size_t>(x)] / sum);
      if (!std::isfinite(exact[x])) continue;
      const double error = std::abs(value - exact[x]);
      if (std::isfinite(error)) {
        all.plain_largest = std::max(all.plain_largest, error);
        plain += error;
      }
      largest = std::max(largest, std::abs(exact[x]));
    }
    // Scores so large that f32 cannot tell them apart (lowest_mask) are equal in the exact answer too; capped at "any
    // convex combination of v is right".
    const double relative = std::min(1.0, 2 * score_error + (4 + std::sqrt(count)) * kEps32);
    const double least = problem_.dtype == kernels::DType::f16 ? 0x1p-24 : 0x1p-126;
    row.floor = largest_v * relative + eps * largest + least;
    row.lse_tolerance = score_error + (4 + std::sqrt(count)) * kEps32 + 4 * kEps32 * std::abs(lse) +
                        (problem_.dtype == kernels::DType::f32 ? 0 : eps / 2);
    all.plain_sum += plain;
    all.floor_sum += row.floor * static_cast<double>(problem_.head_dim_v);
    all.magnitude = std::max(all.magnitude, largest);
    all.values += problem_.head_dim_v;
  }

  const Case& case_;
  Tensors& tensors_;
  kernels::Problem problem_;
  kernels::Args args_;
  std::vector<Key> keys_;
  std::vector<float> accumulated_;
};

}  // namespace

double epsilon(attnrt_dtype dtype) {
  if (dtype.bits == 32) return kEps32;
  return dtype.code == ATTNRT_DTYPE_BFLOAT ? 0x1p-7 : 0x1p-10;
}

Expectation expect(const Case& drawn, Tensors& tensors) {
  const kernels::Problem problem = kernel_problem(drawn.problem);
  const kernels::Args args = kernel_args(tensors);
  const bool varlen = problem.varlen;
  const int64_t rows = varlen ? args.q.shape[0] : args.q.shape[1];
  const int64_t all_rows = varlen ? rows : drawn.batch * rows;
  Expectation expectation;
  expectation.exact.assign(static_cast<size_t>(all_rows * problem.heads_q * problem.head_dim_v), 0);
  expectation.exact_lse.assign(static_cast<size_t>(all_rows * problem.heads_q), 0);
  kernels::reference::attention(problem, args, expectation.exact.data(),
                                expectation.exact_lse.data());
  Plain plain(drawn, tensors);
  for (int64_t b = 0; b < drawn.batch; ++b) {
    const kernels::Sequence s = kernels::sequence(problem, args, b);
    for (int64_t i = 0; i < s.q_length; ++i) {
      for (int64_t h = 0; h < problem.heads_q; ++h) {
        const int64_t row = varlen ? s.q_first + i : b * rows + i;
        Row described{b,
                      i,
                      h,
                      (row * problem.heads_q + h) * problem.head_dim_v,
                      varlen ? h * rows + row : (b * problem.heads_q + h) * rows + i,
                      false,
                      0,
                      0};
        plain.evaluate(described, s, &expectation.exact[static_cast<size_t>(described.at)],
                       expectation.exact_lse[static_cast<size_t>(described.lse_at)], expectation);
        expectation.rows.push_back(described);
      }
    }
  }
  return expectation;
}

}  // namespace attnrt::cli::verify
