// kernels/reference/difference.cpp: whether two results of one run can both be right
#include "kernels/reference/difference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/tolerance.hpp"

namespace kernels::reference {
namespace {

double largest_number(DType dtype) {
  constexpr double kF16 = 65504, kBf16 = 0x1.FEp127;
  return dtype == DType::f16    ? kF16
         : dtype == DType::bf16 ? kBf16
                                : double{std::numeric_limits<float>::max()};
}

double load(const Tensor& tensor, int64_t at) { return load_float(tensor.dtype, tensor.data, at); }

// The largest |x| and the norm of a stored row, without its scale.
struct RowOfNumbers {
  double largest = 0, norm = 0;
  bool finite = true;  // every number is; those that are not do not count
};

RowOfNumbers row_of_numbers(const Tensor& tensor, int64_t at, int64_t count) {
  RowOfNumbers row;
  double squares = 0;
  for (int64_t x = 0; x < count; ++x) {
    const double number = std::abs(load(tensor, at + x));
    if (!std::isfinite(number)) {
      row.finite = false;
      continue;
    }
    row.largest = std::max(row.largest, number);
    squares += number * number;
  }
  row.norm = std::sqrt(squares);
  return row;
}

// One head of keys of one sequence.
class Keys {
 public:
  Keys(const Problem& problem, const Args& args, const Sequence& sequence, int64_t b,
       int64_t head_kv)
      : problem_(problem), args_(args), sequence_(sequence), b_(b), head_kv_(head_kv) {
    const Tensor& v = value_tensor(problem, args);
    for (int64_t j = 0; j < sequence.kv_length; ++j) {
      const RowOfNumbers key = row_of_numbers(args.k, row(args.k, j), problem.head_dim);
      const RowOfNumbers value = row_of_numbers(v, row(v, j), problem.head_dim_v);
      const double k_scale = scale(args.k_scale, j), v_scale = scale(value_scale(problem, args), j);
      finite_ = finite_ && key.finite && value.finite && std::isfinite(k_scale * v_scale);
      if (!finite_) return;
      norm_ = std::max(norm_, k_scale * key.norm);
      value_ = std::max(value_, v_scale * value.largest);
    }
  }
  bool finite() const { return finite_; }  // else nothing is compared
  double norm() const { return norm_; }
  double value() const { return value_; }

 private:
  int64_t row(const Tensor& tensor, int64_t j) const {
    return key_row(problem_, args_, tensor, sequence_, b_, j, head_kv_);
  }
  double scale(const Tensor& scales, int64_t j) const {
    if (problem_.kv_scale == KvScale::none) return 1;
    return std::abs(load(scales, row(scales, j)));
  }

  const Problem& problem_;
  const Args& args_;
  const Sequence& sequence_;
  const int64_t b_, head_kv_;
  double norm_ = 0, value_ = 0;
  bool finite_ = true;
};

// What is added to the scores of a row's visible keys.
struct Biases {
  double highest = 0;  // of all
  double largest = 0;  // the largest |bias| of the keys that may count
  bool finite = true;
};

// One query of one head of one sequence.
struct Query {
  const Problem& problem;
  const Args& args;
  const Sequence& sequence;
  int64_t b, i, head;

  // What is added to the score of key j, a visible one.
  double bias(int64_t j) const {
    double sum = 0;
    if (problem.mask == Mask::additive) {
      const Tensor& m = args.mask;
      sum += load(m, b * m.stride[0] + head * m.stride[1] + i * m.stride[2] + j * m.stride[3]);
    }
    if (problem.alibi) {
      const Tensor& slopes = args.alibi_slopes;
      sum -= load(slopes, b * slopes.stride[0] + head * slopes.stride[1]) *
             std::abs(static_cast<double>(diagonal(problem, args, sequence, b, i) - j));
    }
    return sum;
  }

  // score: the most that one has without its bias.
  Biases biases(double score) const {
    Biases found;
    if (problem.mask != Mask::additive && !problem.alibi) return found;
    found.highest = -std::numeric_limits<double>::infinity();
    for_each_bias([&](double sum) {
      found.finite = found.finite && std::isfinite(sum);
      found.highest = std::max(found.highest, sum);
    });
    for_each_bias([&](double sum) {
      const bool counts = sum + score >= found.highest - score + kNegligibleScore;
      if (counts && std::abs(sum) < kLowestMask)
        found.largest = std::max(found.largest, std::abs(sum));
    });
    return found;
  }

 private:
  // Calls f with the bias of each visible key.
  template <class F>
  void for_each_bias(F&& f) const {
    for (int64_t j = 0; j < sequence.kv_length; ++j) {
      if (visible(problem, args, sequence, b, i, head, j)) f(bias(j));
    }
  }
};

// Returns the sizes of a row, or nothing if not all of its numbers are finite.
std::optional<RowSize> size_of(const Query& query, const Keys& keys, double largest_out) {
  const Problem& p = query.problem;
  const double scale =
      p.scale != 0 ? std::abs(double{p.scale}) : 1 / std::sqrt(static_cast<double>(p.head_dim));
  const int64_t at = query_row(p, query.args.q, query.sequence, query.b, query.i, query.head);
  const RowOfNumbers q = row_of_numbers(query.args.q, at, p.head_dim);
  RowSize row;
  row.norms = scale * q.norm * keys.norm();
  const double score = p.softcap != 0 ? std::min(row.norms, double{p.softcap}) : row.norms;
  const Biases biases = query.biases(score);
  if (!q.finite || !biases.finite) return std::nullopt;
  row.score = score + biases.largest;
  row.value = keys.value();
  row.out = largest_out;
  row.keys = static_cast<double>(query.sequence.kv_length);
  if (!p.sinks) return row;
  const double sink = load(query.args.sinks, query.head * query.args.sinks.stride[0]);
  if (std::isnan(sink) || sink == std::numeric_limits<double>::infinity()) return std::nullopt;
  if (sink >= biases.highest - score + kNegligibleScore) row.sink = std::abs(sink);
  return row;
}

// dtype: of both. A number beyond its largest one may have become infinite.
bool agree(DType dtype, double first, double second, double bound) {
  if (std::isfinite(second)) return std::abs(first - second) <= bound;
  return !std::isnan(second) && std::signbit(first) == std::signbit(second) &&
         std::abs(first) + bound >= largest_number(dtype);
}

// Compares one row.
std::optional<Difference> difference_of_row(const Query& query, const Keys& keys, const Tensor& out,
                                            const Tensor& lse) {
  const Problem& p = query.problem;
  const Args& args = query.args;
  const auto row_of = [&](const Tensor& t) {
    return query_row(p, t, query.sequence, query.b, query.i, query.head);
  };
  const int64_t first_at = row_of(args.out), second_at = row_of(out);
  const double largest = row_of_numbers(args.out, first_at, p.head_dim_v).largest;
  const auto size = size_of(query, keys, largest);
  if (!size) return std::nullopt;
  const double bound = difference_bound(p.dtype, out_dtype(p), *size);
  for (int64_t x = 0; x < p.head_dim_v; ++x) {
    const double first = load(args.out, first_at + x), second = load(out, second_at + x);
    if (!std::isfinite(first) || agree(out_dtype(p), first, second, bound)) continue;
    return Difference{query.b, query.i, query.head, x, first, second, bound};
  }
  if (!p.lse) return std::nullopt;
  const auto lse_of = [&](const Tensor& t) {
    return load(t, lse_element(p, t, query.sequence, query.b, query.i, query.head));
  };
  const double first = lse_of(args.lse), second = lse_of(lse);
  const bool is_empty = first == -std::numeric_limits<double>::infinity();
  // Scores of a lowest mask do not enter the sizes.
  if (!is_empty && !(std::abs(first) < kLowestMask)) return std::nullopt;
  const double lse_bound = is_empty ? 0 : lse_difference_bound(p.dtype, *size);
  if (is_empty ? second == first : agree(DType::f32, first, second, lse_bound)) return std::nullopt;
  return Difference{query.b, query.i, query.head, -1, first, second, lse_bound};
}

}  // namespace

std::optional<Difference> difference(const Problem& problem, const Args& args, const Tensor& out,
                                     const Tensor& lse) {
  const int64_t group = problem.heads_q / problem.heads_kv;
  for (int64_t b = 0; b < real_batch(problem, args); ++b) {
    const Sequence s = sequence(problem, args, b);
    for (int64_t head_kv = 0; head_kv < problem.heads_kv; ++head_kv) {
      const Keys keys(problem, args, s, b, head_kv);
      if (!keys.finite()) continue;
      for (int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head) {
        for (int64_t i = 0; i < s.q_length; ++i) {
          if (auto found = difference_of_row({problem, args, s, b, i, head}, keys, out, lse))
            return found;
        }
      }
    }
  }
  return std::nullopt;
}

}  // namespace kernels::reference
