// runtime/src/run.hpp: a Plan and one run's tensors into a result
#pragma once

#include "plan.hpp"

namespace attnrt::core {

// Checks args against the plan's problem and calls the backend. Allocates nothing unless it fails; for device tensors it
// enqueues and returns. A run without batch or queries has nothing to do and is OK.
attnrt_status run(const Plan& plan, const attnrt_args& args, attnrt_error* error);

// The real extents of one run, read off its tensors.
struct Extents {
  int64_t batch = 0, seq_q = 0,
          seq_kv = 0;                 // of one sequence: bounds where offsets or pages decide
  int64_t total_q = 0, total_kv = 0;  // rows of q and k as packed
};

// A caller's struct into ours, field by field within its struct_size; what it does not reach is absent, and what it says
// past the fields known here is INVALID_ARGUMENT unless it is zero.
attnrt_status copy_args(const attnrt_args* given, attnrt_args* args, attnrt_error* error);

// INVALID_ARGUMENT with what disagrees: ndim, shape, dtype, stride, alignment, an absent or a surplus tensor, an out or
// lse that overlaps another tensor. The mask is broadcast to its four dimensions (stride 0 for one that is missing or 1).
attnrt_status check_args(const Problem& problem, attnrt_args& args, Extents* extents,
                         attnrt_error* error);

// Fills in what tensors can say: see attnrt_problem_infer. infer.cpp
attnrt_status infer_problem(const attnrt_args& args, Problem* problem, attnrt_error* error);

}  // namespace attnrt::core
