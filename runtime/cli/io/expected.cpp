// runtime/cli/io/expected.cpp: compares a run's results with the file's expected tensors
#include "cli/io/expected.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/expectation.hpp"
#include "kernels/reference/plain.hpp"
#include "kernels/reference/tolerance.hpp"
#include "plugins/common/translate.hpp"

namespace attnrt::cli {
namespace {

constexpr double kReferenceFlop = 2e8;  // what the reference computes in about a second
constexpr double kOtherRows = 4;        // factor of the bounds of rows that are not evaluated
constexpr size_t kEvaluations = 2;      // of a row: the exact one and the plain one
constexpr double kUnbounded = std::numeric_limits<double>::infinity();

// REQUIRES: floating-point tensors of the same shape.
Accuracy accuracy_of(const Tensor& found, const Tensor& expected) {
  Accuracy accuracy;
  const int64_t count = expected.elements();
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double a = element(found, i), b = element(expected, i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    double distance = std::abs(a - b);
    if (std::isnan(distance)) distance = kUnbounded;
    accuracy.max = std::max(accuracy.max, distance);
    sum += distance;
  }
  if (count > 0) accuracy.mean = sum / static_cast<double>(count);
  return accuracy;
}

bool is_close(double found, double expected, double bound) {
  if (std::isnan(expected)) return std::isnan(found);
  if (std::isinf(expected)) return found == expected;
  return std::abs(found - expected) <= bound;
}

// Whether the index arrays name only rows and pages that exist. A backend of a device may take
// others, but the reference must not.
bool indices_are_in_range(const kernels::Problem& p, const kernels::Args& a) {
  for (int64_t b = 0; b < kernels::real_batch(p, a); ++b) {
    const kernels::Sequence s = kernels::sequence(p, a, b);
    const bool packed_kv = p.varlen && p.page_size == 0;
    const int64_t rows_q = p.varlen ? a.q.shape[0] : a.q.shape[1];
    int64_t rows_kv = packed_kv ? a.k.shape[0] : a.k.shape[1];
    if (p.page_size > 0) rows_kv = a.page_table.shape[1] * p.page_size;
    if (s.q_first < 0 || s.q_length < 0 || s.q_first > rows_q - s.q_length) return false;
    if (s.kv_first < 0 || s.kv_length < 0 || s.kv_first > rows_kv - s.kv_length) return false;
    for (int64_t page = 0; p.page_size > 0 && page * p.page_size < s.kv_length; ++page) {
      const int64_t at = kernels::index_at(a.page_table, b, page);
      if (at < 0 || at >= a.k.shape[0]) return false;
    }
  }
  return true;
}

// One row of out, with its bounds.
struct Row {
  int64_t b, i, head;
  double out_bound = kUnbounded, lse_bound = kUnbounded;
};

class Judge {
 public:
  explicit Judge(const Inputs& inputs) : inputs_(inputs) {
    attnrt_error error = ATTNRT_ERROR_INIT;
    // The problem and the tensors have been checked, so they can always be translated.
    (void)attnrt_plugins::translate(inputs.problem, inputs.problem.device_type, &problem_, &error);
    (void)attnrt_plugins::translate(inputs.args, &args_, &error);
    if (!indices_are_in_range(problem_, args_)) return;  // there is no right answer
    find_rows();
    bound_rows();
  }

  // Returns the first value that is off, or "". Either tensor may be nullptr.
  std::string first_off(const Tensor* expected, const Tensor* expected_lse) const {
    for (const Row& row : rows_) {
      const kernels::Sequence s = kernels::sequence(problem_, args_, row.b);
      const int64_t at = kernels::reference::out_index(problem_, args_, s, row.b, row.i, row.head);
      for (int64_t x = 0; expected != nullptr && x < problem_.head_dim_v; ++x) {
        const double found = element(inputs_.out, at + x), wanted = element(*expected, at + x);
        if (!is_close(found, wanted, row.out_bound))
          return text(fmt::format("out, element {}", x), row, found, wanted, row.out_bound);
      }
      if (expected_lse == nullptr) continue;
      const int64_t lse_at =
          kernels::reference::lse_index(problem_, args_, s, row.b, row.i, row.head);
      const double found = element(*inputs_.lse, lse_at), wanted = element(*expected_lse, lse_at);
      if (!is_close(found, wanted, row.lse_bound))
        return text("lse", row, found, wanted, row.lse_bound);
    }
    return {};
  }

 private:
  static std::string text(const std::string& what, const Row& row, double found, double expected,
                          double bound) {
    const std::string within = std::isfinite(expected) ? fmt::format(" within {:.1e}", bound) : "";
    return fmt::format(
        "{} of sequence {}, query {}, head {} is {:.8g}, and the file expects {:.8g}{}", what,
        row.b, row.i, row.head, found, expected, within);
  }

  void find_rows() {
    for (int64_t b = 0; b < kernels::real_batch(problem_, args_); ++b) {
      const kernels::Sequence s = kernels::sequence(problem_, args_, b);
      most_keys_ = std::max(most_keys_, s.kv_length);
      for (int64_t i = 0; i < s.q_length; ++i)
        for (int64_t head = 0; head < problem_.heads_q; ++head) rows_.push_back({b, i, head});
    }
  }

  // Returns the distance of the rows that are evaluated: 1 if all can be. It has no divisor in
  // common with the number of heads, so that each head has its turn.
  size_t step() const {
    const double row_flop = 2 * static_cast<double>(most_keys_) *
                            static_cast<double>(problem_.head_dim + problem_.head_dim_v);
    const double flop = row_flop * kEvaluations * static_cast<double>(rows_.size());
    auto step = static_cast<int64_t>(std::ceil(flop / kReferenceFlop));
    if (step <= 1) return 1;
    while (std::gcd(step, problem_.heads_q) != 1) ++step;
    return static_cast<size_t>(step);
  }

  void bound_rows() {
    namespace reference = kernels::reference;
    struct Floors {
      size_t row;
      double out, lse;
      bool empty;
    };
    std::vector<Floors> evaluated;
    reference::PlainErrors out_errors, lse_errors;
    std::vector<double> exact(static_cast<size_t>(problem_.head_dim_v));
    const size_t distance = step();
    for (size_t n = 0; n < rows_.size(); n += distance) {
      const Row& row = rows_[n];
      const kernels::Sequence s = kernels::sequence(problem_, args_, row.b);
      const auto plain = reference::plain_row(problem_, args_, s, row.b, row.i, row.head);
      const double lse =
          reference::attend(problem_, args_, s, row.b, row.i, row.head, exact.data());
      const kernels::DType dtype = kernels::out_dtype(problem_);
      const double out_floor = plain.empty() ? 0 : reference::out_floor(dtype, plain.size);
      const double lse_floor = reference::lse_floor(plain.size);
      for (size_t x = 0; x < exact.size(); ++x)
        out_errors.add(double{plain.out[x]}, exact[x], out_floor);
      lse_errors.add(double{plain.lse}, lse, lse_floor);
      evaluated.push_back({n, out_floor, lse_floor, plain.empty()});
    }
    double largest_out = 0, largest_lse = 0;
    for (const Floors& floors : evaluated) {
      Row& row = rows_[floors.row];
      row.out_bound = floors.empty ? 0 : reference::largest_bound(out_errors.largest, floors.out);
      row.lse_bound =
          reference::largest_bound(std::min(lse_errors.largest, floors.lse), floors.lse) +
          reference::rounded_sum_error(problem_.dtype);
      largest_out = std::max(largest_out, row.out_bound);
      largest_lse = std::max(largest_lse, row.lse_bound);
    }
    for (Row& row : rows_) {
      if (std::isfinite(row.out_bound)) continue;
      row.out_bound = kOtherRows * largest_out, row.lse_bound = kOtherRows * largest_lse;
    }
  }

  const Inputs& inputs_;
  kernels::Problem problem_;
  kernels::Args args_;
  std::vector<Row> rows_;
  int64_t most_keys_ = 0;
};

}  // namespace

Comparison compare_with_expected(const Inputs& inputs) {
  const auto find = [&](const char* name) {
    const auto found = inputs.tensors.find(name);
    return found != inputs.tensors.end() ? &found->second : nullptr;
  };
  const Tensor* const out = find("expected");
  const Tensor* const lse = inputs.lse ? find("expected_lse") : nullptr;
  Comparison comparison;
  if (out == nullptr && lse == nullptr) return comparison;
  if (out != nullptr) comparison.out = accuracy_of(inputs.out, *out);
  if (lse != nullptr) comparison.lse = accuracy_of(*inputs.lse, *lse);
  comparison.off = Judge(inputs).first_off(out, lse);
  return comparison;
}

}  // namespace attnrt::cli
