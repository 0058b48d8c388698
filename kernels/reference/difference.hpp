// kernels/reference/difference.hpp: whether two results of one run can both be right
//
// Nothing is evaluated, so this costs little beside a run. The bound of each row comes from sizes
// of its inputs that are at least those of tolerance.hpp's RowSize:
//   norms   scale |q||k|, with the largest |k| of the row's sequence and head
//   score   the same, or softcap if that is less, and the largest |mask - ALiBi's penalty| of the
//           keys that may count: a key does not count if even its largest score is negligible
//           beside the least that the row's largest score may be
//   value   the largest |v| of the sequence and head
//   out     the largest |out| of the row in the first result
//   keys    all keys of the sequence
// A larger size makes the bound larger, so two right results never differ by more. Wrong results
// may: where few keys of many are left out, or one value of v is much larger than the others, the
// difference stays within the bound.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/common/problem.hpp"

namespace kernels::reference {

struct Difference {
  int64_t b, i, head;
  int64_t x;  // the column of out; -1: it is in lse
  double first, second, bound;
};

// Compares the result in args.out and args.lse with another one. RETURNS the first value of the
// second result that no right result has beside the first one. A value that is not finite in the
// first result is not compared, except that -inf in lse, which a row without keys has, must be
// -inf.
// REQUIRES: as attention(). out and lse have the shapes of args.out and args.lse; lse is looked at
// only if the problem has it.
std::optional<Difference> difference(const Problem& problem, const Args& args, const Tensor& out,
                                     const Tensor& lse);

}  // namespace kernels::reference
