// runtime/src/problem/infer.hpp: derives a problem from one run's tensors
#pragma once

#include "problem/problem.hpp"

namespace attnrt::core {

// Fills in what tensors can say (see attnrt_problem_infer), and leaves the rest of *problem as it
// is. With v_in_k, head_dim_v is that of out, if out is given. On an error *problem does not
// change. Errors: INVALID_ARGUMENT where tensors disagree with each other. Allocates nothing unless
// it fails.
// REQUIRES: byte_offset is 0 in all tensors (read_args sees to it).
attnrt_status infer_problem(const attnrt_args& args, Problem* problem, attnrt_error* error);

}  // namespace attnrt::core
