// kernels/reference/difference.hpp: whether two results of one run can both be right
//
// No attention is computed here, so this costs little beside a run. The bound of each row comes
// from upper limits of tolerance.hpp's RowSize:
//   norms   scale |q||k|, with the largest |k| of the row's sequence and head
//   score   the same, or softcap if that is less, plus the largest |mask - ALiBi's penalty| of the
//           keys that may count. The row's largest score is at least L; a key whose score is at
//           most U does not count if U is negligible beside L
//   value   the largest |v| of the sequence and head
//   out     the largest |out| of the row in the first result
//   keys    all keys of the sequence
// A larger size makes the bound larger, so two right results never differ by more. Wrong results
// may go unnoticed: if a few of many keys are left out, or one value of v is much larger than the
// rest.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/common/problem.hpp"

namespace kernels::reference {

struct Difference {
  int64_t b, i, head;  // sequence, query and head of the row
  int64_t x;           // the column of out; -1: it is in lse
  double first, second, bound;
};

// Compares the result in args.out and args.lse with another one. RETURNS the first value of the
// second result that is further from the first one than the bound. Rows are not compared if a
// number of their q, or of any k, v, scale, mask or sink of their sequence and head, is not finite
// (-inf in a mask or a sink is as good as a finite number). Nor is a value that is not finite in
// the first result, except lse = -inf (a row without keys): there the second must be -inf, too.
// REQUIRES: as attention(). out and lse have the shapes of args.out and args.lse; lse is looked at
// only if the problem has it.
std::optional<Difference> difference(const Problem& problem, const Args& args, const Tensor& out,
                                     const Tensor& lse);

}  // namespace kernels::reference
