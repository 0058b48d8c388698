// runtime/src/problem/infer.hpp: reads off one run's tensors the problem that they pose
#pragma once

#include "problem/problem.hpp"

namespace attnrt::core {

// Fills in what tensors can say: see attnrt_problem_infer. The rest of *problem keeps its value,
// and all of it does on an error. Errors: INVALID_ARGUMENT where tensors disagree with each other.
// Allocates nothing unless it fails.
attnrt_status infer_problem(const attnrt_args& args, Problem* problem, attnrt_error* error);

}  // namespace attnrt::core
