// kernels/reference/expectation.hpp: the exact answer to a run, and how far off each row may be
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/common/problem.hpp"

namespace kernels::reference {

// One query of one head of one sequence.
struct ExpectedRow {
  int64_t b, i, head;
  int64_t out_at;  // where its head_dim_v values begin in Expectation::out
  int64_t lse_at;  // where its value lies in Expectation::lse
  bool empty;      // it sees no key
  double out_floor, lse_floor;
};

// The plain evaluation's errors over the values of all rows that are finite in the exact answer. An
// error that is not finite adds nothing to largest and sum.
struct PlainErrors {
  double largest = 0, sum = 0;
  double floor_sum = 0;  // of the floors, one for each of `values`
  int64_t values = 0;

  void add(double plain, double exact, double floor);
};

struct Expectation {
  std::vector<double> out, lse;   // dense, as attention() writes them
  std::vector<ExpectedRow> rows;  // of all sequences
  PlainErrors out_errors, lse_errors;
  double largest_out = 0;  // the largest finite |out|

  // The largest error that a right result may have. A value of out must be exactly 0 if its row
  // sees nothing. lse differs in size from row to row, so the plain evaluation's largest error
  // counts up to the row's floor only.
  double out_bound(const ExpectedRow& row) const;
  double lse_bound(const ExpectedRow& row) const;
};

// Evaluates the run exactly and plainly.
// at_work: called before each row, for those who wait; may be empty.
// REQUIRES: as attention().
Expectation expect(const Problem& problem, const Args& args,
                   const std::function<void()>& at_work = {});

}  // namespace kernels::reference
