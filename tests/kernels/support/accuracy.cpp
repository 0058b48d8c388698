// tests/kernels/support/accuracy.cpp: see accuracy.hpp
#include "tests/kernels/support/accuracy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/half.hpp"
#include "kernels/reference/attention.hpp"

namespace kernels::test {
namespace {

// One quantity's errors, of the kernel and of the plain evaluation.
struct Errors {
  double plain_max = 0, plain_sum = 0, kernel_sum = 0, floor_sum = 0;
  int64_t count = 0;

  void expect_mean(const char* what) const {
    if (count == 0) return;
    const double n = static_cast<double>(count);
    EXPECT_LE(kernel_sum / n, 1.5 * plain_sum / n + 0.25 * floor_sum / n) << what << ": mean error";
  }
};

int64_t dense_lse(const Case& c, int64_t b, const Sequence& s, int64_t i, int64_t head) {
  if (c.problem.varlen) return head * c.args.q.shape[0] + s.q_first + i;
  return (b * c.problem.heads_q + head) * c.args.q.shape[1] + i;
}

}  // namespace

Expected expected_of(const Case& c) {
  const size_t rows = static_cast<size_t>(c.dense_rows());
  Exact exact{std::vector<double>(rows * static_cast<size_t>(c.problem.head_dim_v)),
              std::vector<double>(rows)};
  reference::attention(c.problem, c.args, exact.out.data(), exact.lse.data());
  return {std::move(exact), plain_attention(c)};
}

void expect_accurate(const Case& c, const Expected& expected) {
  const Exact& exact = expected.exact;
  const Plain& plain = expected.plain;
  const Problem& p = c.problem;
  Errors out, lse;
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t row) {
    for (int64_t n = row * p.head_dim_v; n < (row + 1) * p.head_dim_v; ++n) {
      const size_t at = static_cast<size_t>(n);
      out.plain_max = std::max(out.plain_max, std::abs(double{plain.out[at]} - exact.out[at]));
    }
    const double want = exact.lse[static_cast<size_t>(dense_lse(c, b, s, i, head))];
    if (!std::isinf(want))
      lse.plain_max =
          std::max(lse.plain_max, std::abs(double{plain.lse[static_cast<size_t>(row)]} - want));
  });

  int64_t reported = 0;
  c.for_each_row([&](int64_t b, const Sequence& s, int64_t i, int64_t head, int64_t row) {
    const size_t r = static_cast<size_t>(row);
    const int64_t offset = query_row(p, c.args.out, s, b, i, head);
    for (int64_t x = 0; x < p.head_dim_v; ++x) {
      const size_t at = static_cast<size_t>(row * p.head_dim_v + x);
      const double got = load_float(p.dtype, c.args.out.data, offset + x);
      const double error = std::abs(got - exact.out[at]);
      out.kernel_sum += error;
      out.plain_sum += std::abs(double{plain.out[at]} - exact.out[at]);
      out.floor_sum += plain.out_floor[r];
      ++out.count;
      if (!(error <= 2 * out.plain_max + plain.out_floor[r]) && reported++ < 3) {
        ADD_FAILURE() << "out[b " << b << ", i " << i << ", head " << head << ", " << x
                      << "]: " << got << ", exact " << exact.out[at] << ", error " << error
                      << ", plain error " << out.plain_max << ", floor " << plain.out_floor[r];
      }
    }
    if (!p.lse) return;
    const double want = exact.lse[static_cast<size_t>(dense_lse(c, b, s, i, head))];
    const double got =
        static_cast<const float*>(c.args.lse.data)[lse_element(p, c.args.lse, s, b, i, head)];
    if (std::isinf(want)) {
      if (got != want && reported++ < 3)
        ADD_FAILURE() << "lse[b " << b << ", head " << head << ", i " << i << "]: " << got;
      return;
    }
    lse.kernel_sum += std::abs(got - want);
    lse.plain_sum += std::abs(double{plain.lse[r]} - want);
    lse.floor_sum += plain.lse_floor[r];
    ++lse.count;
    if (!(std::abs(got - want) <= 2 * lse.plain_max + plain.lse_floor[r]) && reported++ < 3) {
      ADD_FAILURE() << "lse[b " << b << ", head " << head << ", i " << i << "]: " << got
                    << ", exact " << want << ", plain error " << lse.plain_max << ", floor "
                    << plain.lse_floor[r];
    }
  });
  out.expect_mean("out");
  lse.expect_mean("lse");
}

}  // namespace kernels::test
