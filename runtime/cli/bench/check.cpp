// runtime/cli/bench/check.cpp: an output into right or wrong, by the reference and by another backend's output
//
// How far a row may be off, relative to the root mean square of its values (or of all, where that is more): v is random,
// so the errors of weights add up as the weights themselves do, and each weight's relative error is the row's.
//   u is the dtype's unit roundoff, e = 2^-24 that of the f32 that scores and sums are kept in, n the number of keys
//   q, a weight and the result may each be rounded to the dtype, with room for one more:         4 u
//   a score: scale |q||k| rounded as a random walk, and a few numbers of its size S rounded:     d = e (scale |q||k| + 4 S)
//   exp turns d into a relative error, in the numerator and in the denominator:                  2 d
//   sums over n keys, exp, rescaling, the division:                                              e (sqrt(n) + 8)
// S is at most scale |q||k| plus what a mask or ALiBi may take from a key that still counts: 32, for exp(-32) is below e.
// A backend that leaves out a mask or a head is off by about 1. One that leaves out a few of many keys, or logits so huge that the
// bound passes 1, it cannot tell apart from rounding: `attnrt verify` looks closer.
#include <algorithm>
#include <cmath>

#include "cli/bench/bench.hpp"
#include "cli/io/inputs.hpp"
#include "conformance/tensors.hpp"
#include "kernels/reference/attention.hpp"

namespace attnrt::cli::bench {
namespace {

constexpr double kEpsilon = 0x1p-24;
constexpr double kBudget = 2e8;  // of the reference: FLOP that take it about a second

double unit_roundoff(attnrt_dtype dtype) {
  if (dtype.bits == 32) return kEpsilon;
  return dtype.code == ATTNRT_DTYPE_BFLOAT ? 0x1p-8 : 0x1p-11;
}

double square(double x) { return x * x; }

double largest_norm(const Tensor& tensor) {
  const int64_t dim = tensor.shape().back();
  double largest = 0;
  for (int64_t row = 0; row < tensor.elements(); row += dim) {
    double sum = 0;
    for (int64_t x = 0; x < dim; ++x) sum += square(element(tensor, row + x));
    largest = std::max(largest, sum);
  }
  return std::sqrt(largest);
}

kernels::Tensor kernel_tensor(const attnrt_tensor& from) {
  kernels::Tensor t;
  t.data = from.data;
  t.dtype = verify::kernel_dtype(from.dtype);
  t.ndim = from.ndim;
  std::copy_n(from.shape, 4, t.shape);
  std::copy_n(from.stride, 4, t.stride);
  return t;
}

// The same tensor, from its index-th entry of a dimension on, `count` of them.
kernels::Tensor cut(kernels::Tensor t, int dimension, int64_t index, int64_t count) {
  t.data =
      static_cast<char*>(t.data) + index * t.stride[dimension] * kernels::element_bytes(t.dtype);
  t.shape[dimension] = count;
  return t;
}

}  // namespace

Checker::Checker(const core::Problem& problem, const Tensors& tensors) : problem_(problem) {
  const double scale = problem.scale != 0 ? std::abs(static_cast<double>(problem.scale))
                                          : 1 / std::sqrt(static_cast<double>(problem.head_dim));
  norms_ = scale * largest_norm(*tensors.all[0]) * largest_norm(*tensors.all[1]);
  const double row_flop = 2 * static_cast<double>(problem.heads_q) *
                          static_cast<double>(problem.seq_kv) *
                          static_cast<double>(problem.head_dim + problem.head_dim_v);
  const auto affordable = static_cast<int64_t>(std::max(1.0, kBudget / row_flop));
  const int64_t sequences = std::min(problem.batch, affordable);
  const int64_t rows = std::clamp<int64_t>(affordable / sequences, 1, problem.seq_q);
  for (int64_t n = 0; n < sequences; ++n) evaluate(tensors, n * problem.batch / sequences, rows);
  double sum = 0, count = 0;
  for (const Row& row : rows_) {
    for (const double value : row.exact) sum += value * value;
    count += static_cast<double>(row.exact.size());
  }
  rms_ = std::sqrt(sum / std::max(1.0, count));
}

// Rows of one sequence through views: the last ones keep their diagonal at the bottom right, the first ones at the top left.
void Checker::evaluate(const Tensors& tensors, int64_t b, int64_t rows) {
  const core::Problem& p = problem_;
  const int64_t first = p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : p.seq_q - rows;
  kernels::Problem problem = verify::kernel_problem(p);
  problem.batch = 1, problem.seq_q = rows;
  attnrt_args given = tensors.args();
  kernels::Args args;
  int32_t offsets_q[] = {0, static_cast<int32_t>(rows)},
          offsets_kv[] = {0, static_cast<int32_t>(p.seq_kv)};
  const auto offsets = [](int32_t* data) {
    return kernels::Tensor{data, kernels::DType::i32, 1, {2}, {1}};
  };
  const bool packed = p.varlen != 0, paged = p.page_size > 0;
  args.q = packed ? cut(kernel_tensor(given.q), 0, b * p.seq_q + first, rows)
                  : cut(cut(kernel_tensor(given.q), 0, b, 1), 1, first, rows);
  args.k = kernel_tensor(given.k), args.v = kernel_tensor(given.v);
  for (kernels::Tensor* t : {&args.k, &args.v}) {
    if (packed && !paged) *t = cut(*t, 0, b * p.seq_kv, p.seq_kv);
    if (!packed && !paged) *t = cut(*t, 0, b, 1);
  }
  if (p.mask != ATTNRT_MASK_NONE) {
    args.mask = cut(kernel_tensor(given.mask), 2, first, rows);
    args.mask.stride[0] = args.mask.stride[1] = 0;  // one for all
  }
  if (p.alibi != 0) args.alibi_slopes = kernel_tensor(given.alibi_slopes);
  if (p.sinks != 0) args.sinks = kernel_tensor(given.sinks);
  if (given.kv_lengths.data != nullptr)
    args.kv_lengths = cut(kernel_tensor(given.kv_lengths), 0, b, 1);
  if (packed) args.offsets_q = offsets(offsets_q);
  if (packed && !paged) args.offsets_kv = offsets(offsets_kv);
  if (paged) args.page_table = cut(kernel_tensor(given.page_table), 0, b, 1);

  const auto width = static_cast<size_t>(p.head_dim_v);
  std::vector<double> exact(static_cast<size_t>(rows * p.heads_q) * width),
      lse(static_cast<size_t>(rows * p.heads_q));
  kernels::reference::attention(problem, args, exact.data(), lse.data());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t h = 0; h < p.heads_q; ++h) {
      const int64_t query = first + i;
      const auto from = exact.begin() + (i * p.heads_q + h) * p.head_dim_v;
      rows_.push_back({(b * p.seq_q + query) * p.heads_q + h,
                       packed ? h * p.batch * p.seq_q + b * p.seq_q + query
                              : (b * p.heads_q + h) * p.seq_q + query,
                       {from, from + p.head_dim_v},
                       lse[static_cast<size_t>(h * rows + i)]});
    }
  }
}

double Checker::allowed(double keys) const {
  const double score = kEpsilon * (norms_ + 4 * (norms_ + 32));
  return 4 * unit_roundoff(problem_.dtype) + 2 * score + kEpsilon * (std::sqrt(keys) + 8);
}

std::string Checker::extent() const {
  const int64_t all = problem_.batch * problem_.seq_q,
                checked = static_cast<int64_t>(rows_.size()) / problem_.heads_q;
  return checked == all ? fmt::format("all {} rows", all)
                        : fmt::format("{} of {} rows", checked, all);
}

std::string Checker::check(const Tensor& out, const Tensor* lse, const Tensor* other,
                           std::string_view other_name) const {
  const int64_t width = problem_.head_dim_v;
  const double bound = allowed(static_cast<double>(problem_.seq_kv));
  const auto place = [&](int64_t row) {
    return fmt::format("row {} of head {}", row / problem_.heads_q, row % problem_.heads_q);
  };
  // Of one row: the root mean square of its distance, relative to its own or to all values'.
  const auto distance = [&](int64_t row, const auto& expected) {
    double error = 0, size = 0;
    for (int64_t x = 0; x < width; ++x) {
      const double exact = expected(x);
      error += square(element(out, row * width + x) - exact);
      size += square(exact);
    }
    const double rms = std::max(std::sqrt(size / static_cast<double>(width)), rms_);
    return rms > 0 ? std::sqrt(error / static_cast<double>(width)) / rms : error;
  };
  for (int64_t i = 0; i < out.elements(); ++i) {
    if (!std::isfinite(element(out, i)))
      return fmt::format("out holds {} in {}", element(out, i), place(i / width));
  }
  for (const Row& row : rows_) {
    const double error =
        distance(row.index, [&](int64_t x) { return row.exact[static_cast<size_t>(x)]; });
    if (!(error <= bound))
      return fmt::format("{} is off by {:.1e} of its size, at most {:.1e} is right",
                         place(row.index), error, bound);
    if (lse == nullptr) continue;
    const double found = element(*lse, row.lse_index);
    const double lse_bound = bound + kEpsilon * 4 * std::abs(row.lse);
    if (found != row.lse && !(std::abs(found - row.lse) <= lse_bound))
      return fmt::format("lse of {} is {}, expected {:.7g}", place(row.index), found, row.lse);
  }
  for (int64_t row = 0; other != nullptr && row < out.elements() / width; ++row) {
    const double error = distance(row, [&](int64_t x) { return element(*other, row * width + x); });
    if (!(error <= 2 * bound))
      return fmt::format("{} is {:.1e} of its size away from {}'s, at most {:.1e} is right",
                         place(row), error, other_name, 2 * bound);
  }
  return {};
}

}  // namespace attnrt::cli::bench
