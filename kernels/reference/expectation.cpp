// kernels/reference/expectation.cpp: the exact answer to a run, and how far off each row may be
#include "kernels/reference/expectation.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/sequence.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/plain.hpp"
#include "kernels/reference/tolerance.hpp"

namespace kernels::reference {

void PlainErrors::add(double plain, double exact, double floor) {
  if (!std::isfinite(exact)) return;
  ++values;
  floor_sum += floor;
  const double error = std::abs(plain - exact);
  if (!std::isfinite(error)) return;
  largest = std::max(largest, error);
  sum += error;
}

double Expectation::out_bound(const ExpectedRow& row) const {
  return row.empty ? 0 : largest_bound(out_errors.largest, row.out_floor);
}

double Expectation::lse_bound(const ExpectedRow& row) const {
  return largest_bound(std::min(lse_errors.largest, row.lse_floor), row.lse_floor);
}

Expectation expect(const Problem& problem, const Args& args, const std::function<void()>& at_work) {
  const int64_t rows = problem.varlen ? args.q.shape[0] : args.q.shape[0] * args.q.shape[1];
  Expectation expected;
  expected.out.assign(static_cast<size_t>(rows * problem.heads_q * problem.head_dim_v), 0);
  expected.lse.assign(static_cast<size_t>(rows * problem.heads_q), 0);
  for (int64_t b = 0; b < real_batch(problem, args); ++b) {
    const Sequence s = sequence(problem, args, b);
    for (int64_t i = 0; i < s.q_length; ++i) {
      for (int64_t head = 0; head < problem.heads_q; ++head) {
        if (at_work) at_work();
        const PlainRow plain = plain_row(problem, args, s, b, i, head);
        const ExpectedRow row{b,
                              i,
                              head,
                              out_index(problem, args, s, b, i, head),
                              lse_index(problem, args, s, b, i, head),
                              plain.empty(),
                              plain.empty() ? 0 : out_floor(out_dtype(problem), plain.size),
                              lse_floor(plain.size)};
        expected.lse[static_cast<size_t>(row.lse_at)] =
            attend(problem, args, s, b, i, head, &expected.out[static_cast<size_t>(row.out_at)]);
        for (size_t x = 0; x < plain.out.size(); ++x) {
          const double exact = expected.out[static_cast<size_t>(row.out_at) + x];
          expected.out_errors.add(double{plain.out[x]}, exact, row.out_floor);
          if (std::isfinite(exact))
            expected.largest_out = std::max(expected.largest_out, std::abs(exact));
        }
        const double exact = expected.lse[static_cast<size_t>(row.lse_at)];
        if (!std::isinf(exact)) expected.lse_errors.add(double{plain.lse}, exact, row.lse_floor);
        expected.rows.push_back(row);
      }
    }
  }
  return expected;
}

}  // namespace kernels::reference
