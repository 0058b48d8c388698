// runtime/cli/bench/check.cpp: compares an output with the reference and with another output
//
// The distance of a row is the root mean square of its errors, relative to that of its exact values
// (or of all exact values, if that is more). v is random, so the errors of the weights add up as
// the weights themselves do, and the relative error of a row is that of its weights. The bound is
// kernels/reference/tolerance.hpp's relative error of a row of weights, for the largest norms of q
// and k and for S = scale |q||k| + 32: if a mask or ALiBi takes more than 32 from a score, its key
// does not count, because exp(-32) is below 2^-24. The bound has 4 u more: q, a weight and the
// result may each be rounded to the dtype, and there is room for one more rounding.
//
// A backend that leaves out a mask or a head is off by about 1. This check cannot tell a backend
// that leaves out a few of many keys from rounding. `attnrt verify` finds that.
#include "cli/bench/check.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "cli/io/inputs.hpp"
#include "kernels/common/half.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/tolerance.hpp"
#include "plugins/common/translate.hpp"
#include "problem/check_args.hpp"

namespace attnrt::cli::bench {
namespace {

// The unit roundoff of f32, which scores and sums are kept in.
constexpr double kEpsilon = kernels::reference::unit_roundoff(kernels::DType::f32);

// What a mask or ALiBi may take from the score of a key that still counts.
constexpr double kLargestPenalty = 32;

constexpr double kReferenceFlop = 2e8;  // what the reference computes in about a second

double square(double x) { return x * x; }

// Returns the largest norm of a row of q or k, with its scale. scale: absent for 1.
double largest_norm(const Tensor& tensor, const std::optional<Tensor>& scale) {
  const kernels::DType dtype = attnrt_plugins::translate(tensor.dtype());
  const int64_t dim = tensor.shape().back(), heads = tensor.shape().end()[-2];
  const int64_t scales = scale ? scale->elements() : 1;  // one, one for each head, or for each row
  double largest = 0;
  for (int64_t row = 0; row < tensor.elements() / dim; ++row) {
    double sum = 0;
    for (int64_t x = 0; x < dim; ++x)
      sum += square(double{kernels::load_float(dtype, tensor.data(), row * dim + x)});
    const int64_t at = scales == 1 ? 0 : scales == heads ? row % heads : row;
    const double factor = scale ? element(*scale, at) : 1;
    largest = std::max(largest, std::abs(factor) * std::sqrt(sum));
  }
  return largest;
}

// Returns a view of the entries [first, first + count) of one dimension.
kernels::Tensor slice(kernels::Tensor t, int dimension, int64_t first, int64_t count) {
  const int64_t offset = first * t.stride[dimension] * kernels::element_bytes(t.dtype);
  t.data = static_cast<char*>(t.data) + offset;
  t.shape[dimension] = count;
  return t;
}

kernels::Tensor vector_of(int32_t (&values)[2]) {
  return {values, kernels::DType::i32, 1, {2}, {1}};
}

// Returns the arguments that hold the queries [first, first + rows) of sequence b, which is s, and
// all its keys, as a problem of one sequence. offsets_q and offsets_kv serve as its offsets if it
// is packed.
kernels::Args slice_sequence(const core::Problem& p, kernels::Args all, int64_t b,
                             const kernels::Sequence& s, int64_t first, int64_t rows,
                             int32_t (&offsets_q)[2], int32_t (&offsets_kv)[2]) {
  const bool packed = p.varlen != 0, paged = p.page_size > 0;
  kernels::Args args = all;
  args.out = {}, args.lse = {};
  args.q = packed ? slice(all.q, 0, s.q_first + first, rows)
                  : slice(slice(all.q, 0, b, 1), 1, first, rows);
  for (kernels::Tensor* t : {&args.k, &args.v, &args.k_scale, &args.v_scale}) {
    if (paged || t->data == nullptr) continue;  // the page table says which pages are its own
    *t = packed ? slice(*t, 0, s.kv_first, s.kv_length) : slice(*t, 0, b, 1);
  }
  if (p.mask != ATTNRT_MASK_NONE) {
    args.mask = slice(all.mask, 2, first, rows);
    args.mask.stride[0] = args.mask.stride[1] = 0;  // one mask for all sequences and heads
  }
  if (all.alibi_slopes.data != nullptr) args.alibi_slopes = slice(all.alibi_slopes, 0, b, 1);
  if (all.diagonal_offset.data != nullptr)
    args.diagonal_offset = slice(all.diagonal_offset, 0, b, 1);
  if (all.kv_lengths.data != nullptr) args.kv_lengths = slice(all.kv_lengths, 0, b, 1);
  if (packed) args.offsets_q = vector_of(offsets_q);
  if (packed && !paged) args.offsets_kv = vector_of(offsets_kv);
  if (paged) args.page_table = slice(all.page_table, 0, b, 1);
  return args;
}

}  // namespace

ReferenceCheck::ReferenceCheck(const core::Problem& problem, const Tensors& tensors)
    : problem_(problem) {
  const double scale = problem.scale != 0 ? std::abs(static_cast<double>(problem.scale))
                                          : 1 / std::sqrt(static_cast<double>(problem.head_dim));
  norms_ = scale * largest_norm(*tensors.q, {}) * largest_norm(*tensors.k, tensors.k_scale);
  const double row_flop = 2 * static_cast<double>(problem.heads_q) *
                          static_cast<double>(problem.seq_kv) *
                          static_cast<double>(problem.head_dim + problem.head_dim_v);
  const auto affordable = static_cast<int64_t>(std::max(1.0, kReferenceFlop / row_flop));
  const int64_t sequences = std::min(problem.batch, affordable);
  const int64_t rows = std::clamp<int64_t>(affordable / sequences, 1, problem.seq_q);
  const std::vector<int64_t>& keys = tensors.lengths.kv;
  all_rows_ = tensors.lengths.total_q();
  std::set<int64_t> chosen = {std::max_element(keys.begin(), keys.end()) - keys.begin()};
  for (int64_t n = 0; n < sequences; ++n) chosen.insert(n * problem.batch / sequences);
  for (const int64_t b : chosen) evaluate(tensors, b, rows);
  double sum = 0, count = 0;
  for (const Row& row : rows_) {
    for (const double value : row.exact) sum += value * value;
    count += static_cast<double>(row.exact.size());
  }
  rms_ = std::sqrt(sum / std::max(1.0, count));
}

// Evaluates some rows of one sequence, at most so many, as a problem with fewer queries. Each row
// has to keep its diagonal there. So they are the last rows if the diagonal ends at the bottom
// right, and the first ones if it starts at the top left.
void ReferenceCheck::evaluate(const Tensors& tensors, int64_t b, int64_t most_rows) {
  const core::Problem& p = problem_;
  const bool packed = p.varlen != 0;
  kernels::Problem problem;
  kernels::Args all;
  attnrt_error error = ATTNRT_ERROR_INIT;
  // The problem is checked, and the tensors are made for it, so neither of these fails. check_args
  // gives scales the dimensions that they lack.
  attnrt_args given = tensors.args();
  core::Extents extents;
  (void)core::check_args(p, given, &extents, &error);
  (void)attnrt_plugins::translate(p, p.device_type, &problem, &error);
  (void)attnrt_plugins::translate(given, &all, &error);
  const kernels::Sequence s = kernels::sequence(problem, all, b);
  const int64_t rows = std::min(most_rows, s.q_length);
  const int64_t first = p.align == ATTNRT_ALIGN_TOP_LEFT ? 0 : s.q_length - rows;
  problem.batch = 1, problem.seq_q = rows;
  int32_t offsets_q[] = {0, static_cast<int32_t>(rows)};
  int32_t offsets_kv[] = {0, static_cast<int32_t>(s.kv_length)};
  const kernels::Args args = slice_sequence(p, all, b, s, first, rows, offsets_q, offsets_kv);

  const auto width = static_cast<size_t>(p.head_dim_v);
  std::vector<double> exact(static_cast<size_t>(rows * p.heads_q) * width),
      lse(static_cast<size_t>(rows * p.heads_q));
  kernels::reference::attention(problem, args, exact.data(), lse.data());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t h = 0; h < p.heads_q; ++h) {
      const int64_t query = first + i;
      const auto from = exact.begin() + (i * p.heads_q + h) * p.head_dim_v;
      rows_.push_back(
          {(packed ? s.q_first + query : b * p.seq_q + query) * p.heads_q + h,
           packed ? h * all_rows_ + s.q_first + query : (b * p.heads_q + h) * p.seq_q + query,
           {from, from + p.head_dim_v},
           lse[static_cast<size_t>(h * rows + i)]});
    }
  }
}

double ReferenceCheck::allowed(double keys) const {
  const kernels::reference::RowSize largest{
      .norms = norms_, .score = norms_ + kLargestPenalty, .keys = keys};
  const double u = kernels::reference::unit_roundoff(attnrt_plugins::translate(problem_.dtype));
  return 4 * u + kernels::reference::weights_error(largest);
}

std::string ReferenceCheck::extent() const {
  const int64_t checked = static_cast<int64_t>(rows_.size()) / problem_.heads_q;
  return checked == all_rows_ ? fmt::format("all {} rows", all_rows_)
                              : fmt::format("{} of {} rows", checked, all_rows_);
}

std::string ReferenceCheck::row_name(int64_t row) const {
  return fmt::format("row {} of head {}", row / problem_.heads_q, row % problem_.heads_q);
}

// Returns the distance of one row of out from expected(0), expected(1), ...
template <class Expected>
double ReferenceCheck::distance(const Tensor& out, int64_t row, const Expected& expected) const {
  const int64_t width = problem_.head_dim_v;
  double error = 0, size = 0;
  for (int64_t x = 0; x < width; ++x) {
    const double exact = expected(x);
    error += square(element(out, row * width + x) - exact);
    size += square(exact);
  }
  const double rms = std::max(std::sqrt(size / static_cast<double>(width)), rms_);
  return rms > 0 ? std::sqrt(error / static_cast<double>(width)) / rms : error;
}

std::string ReferenceCheck::check(const Tensor& out, const Tensor* lse, const Tensor* other,
                                  std::string_view other_name) const {
  const int64_t width = problem_.head_dim_v;
  const double bound = allowed(static_cast<double>(problem_.seq_kv));
  for (int64_t i = 0; i < out.elements(); ++i) {
    if (!std::isfinite(element(out, i)))
      return fmt::format("{} has an element {}, expected finite numbers", row_name(i / width),
                         element(out, i));
  }
  for (const Row& row : rows_) {
    const auto exact = [&](int64_t x) { return row.exact[static_cast<size_t>(x)]; };
    const double error = distance(out, row.index, exact);
    if (!(error <= bound))
      return fmt::format("{} has a relative error of {:.1e}, expected at most {:.1e}",
                         row_name(row.index), error, bound);
    if (lse == nullptr) continue;
    const double found = element(*lse, row.lse_index);
    const double lse_bound = bound + kEpsilon * 4 * std::abs(row.lse);
    if (found != row.lse && !(std::abs(found - row.lse) <= lse_bound))
      return fmt::format("lse of {} is {}, expected {:.7g}", row_name(row.index), found, row.lse);
  }
  for (int64_t row = 0; other != nullptr && row < out.elements() / width; ++row) {
    const auto expected = [&](int64_t x) { return element(*other, row * width + x); };
    const double error = distance(out, row, expected);
    if (!(error <= 2 * bound))
      return fmt::format("{} differs from the output of {} by {:.1e}, expected at most {:.1e}",
                         row_name(row), other_name, error, 2 * bound);
  }
  return {};
}

}  // namespace attnrt::cli::bench
