// kernels/cpu/check.hpp: checks a Problem and a run's tensors, and names what does not fit
#pragma once

#include "kernels/common/problem.hpp"
#include "kernels/cpu/attention.hpp"

namespace kernels::cpu {

// Writes the message and returns Status::invalid_argument.
[[gnu::format(printf, 2, 3)]] Status fail(Error* error, const char* format, ...);

// Whether the tensors agree with the Problem and with each other, and every index is in range.
// Of the tensors' data it reads the index arrays only.
Status check_args(const Problem& problem, const Args& args, Error* error);

}  // namespace kernels::cpu
