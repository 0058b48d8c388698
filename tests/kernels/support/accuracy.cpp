// tests/kernels/support/accuracy.cpp: compares what a kernel wrote with the exact answer
//
// The bounds are those of kernels/reference/tolerance.hpp without any allowance: 2 times the plain
// evaluation's largest error plus the row's floor for each value, and 1.5 times its mean error plus
// a quarter of the mean floor for the mean.
#include "tests/kernels/support/accuracy.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>

#include "kernels/common/half.hpp"
#include "kernels/reference/tolerance.hpp"

namespace kernels::test {
namespace {

constexpr int kMostReports = 3;  // values in one case that are reported one by one

// The comparison of one tensor, out or lse.
class Comparison {
 public:
  Comparison(const char* tensor, const reference::PlainErrors& plain)
      : tensor_(tensor), plain_(plain) {}

  // place: a function that gives the text for a report.
  template <class Place>
  void add(double found, double exact, double bound, const Place& place) {
    const double error = found == exact ? 0 : std::abs(found - exact);  // infinities are equal, too
    sum_ += error;
    if (error <= bound || reports_++ >= kMostReports) return;
    ADD_FAILURE() << tensor_ << place() << " is " << found << ", exactly " << exact << "; error "
                  << error << ", at most " << bound << " is right; the plain evaluation's is up to "
                  << plain_.largest;
  }

  void expect_mean() const {
    EXPECT_LE(sum_, reference::mean_bound(plain_.sum, plain_.floor_sum))
        << tensor_ << ": the mean error times " << plain_.values;
  }

 private:
  const char* tensor_;
  const reference::PlainErrors& plain_;
  double sum_ = 0;
  int reports_ = 0;
};

}  // namespace

void expect_accurate(const Case& c, const reference::Expectation& expected) {
  const Problem& p = c.problem;
  Comparison out("out", expected.out_errors), lse("lse", expected.lse_errors);
  for (const reference::ExpectedRow& row : expected.rows) {
    const auto place = [&row](int64_t x) {
      std::ostringstream text;
      text << "[b " << row.b << ", i " << row.i << ", head " << row.head;
      if (x >= 0) text << ", " << x;
      return text.str() + "]";
    };
    const Sequence s = sequence(p, c.args, row.b);
    const int64_t offset = query_row(p, c.args.out, s, row.b, row.i, row.head);
    for (int64_t x = 0; x < p.head_dim_v; ++x) {
      const double found = load_float(out_dtype(p), c.args.out.data, offset + x);
      out.add(found, expected.out[static_cast<size_t>(row.out_at + x)], expected.out_bound(row),
              [&] { return place(x); });
    }
    if (!p.lse) continue;
    const int64_t at = lse_element(p, c.args.lse, s, row.b, row.i, row.head);
    lse.add(static_cast<const float*>(c.args.lse.data)[at],
            expected.lse[static_cast<size_t>(row.lse_at)], expected.lse_bound(row),
            [&] { return place(-1); });
  }
  out.expect_mean();
  if (p.lse) lse.expect_mean();
}

}  // namespace kernels::test
