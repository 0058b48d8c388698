// runtime/cli/io/expected.hpp: compares a run's results with the file's expected tensors
#pragma once

#include <optional>
#include <string>

#include "cli/io/inputs.hpp"

namespace attnrt::cli {

// The absolute errors of a tensor's elements. They are infinite where only one of the two values is
// NaN, or where they are different infinities.
struct Accuracy {
  double max = 0, mean = 0;
};

struct Comparison {
  std::optional<Accuracy> out, lse;  // absent if the file has no such tensor
  // The first value that is off by more than rounding explains, with its place; "" if there is
  // none.
  std::string off;
};

// Compares out and lse, which a run has written, with the tensors expected and expected_lse. The
// bounds are those of kernels/reference/tolerance.hpp. They need an exact and a plain evaluation of
// each row. Where that would take more than about a second, only a part of the rows is evaluated,
// spread evenly, and the other rows have four times the largest bound of these.
Comparison compare_with_expected(const Inputs& inputs);

}  // namespace attnrt::cli
