// kernels/cpu/check.hpp: a Problem and a run's tensors into ok, or one line that says what does not fit
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

// Writes the message and returns Status::invalid_argument.
[[gnu::format(printf, 2, 3)]] Status fail(Error* error, const char* format, ...);

// Whether the tensors agree with the Problem and with each other, and every index is in range. Reads the index arrays and
// nothing else.
Status check_args(const Problem& problem, const Args& args, Error* error);

}  // namespace kernels::cpu
