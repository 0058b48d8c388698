// runtime/src/problem/check_args.hpp: checks one run's tensors against the problem
#pragma once

#include "problem/problem.hpp"

namespace attnrt::core {

// The real sizes of one run, read off its tensors; the problem's batch, seq_q and seq_kv are only
// bounds.
struct Extents {
  int64_t batch = 0;
  // Of one sequence. With offsets or pages, which are not read here, they are only bounds.
  int64_t seq_q = 0, seq_kv = 0;
  int64_t total_q = 0, total_kv = 0;  // rows of q and of k, over all sequences; pages if paged
  bool is_empty() const { return batch == 0 || total_q == 0; }  // there is nothing to do
};

// Reads a caller's struct (see base/structs.hpp), and adds each tensor's byte_offset to its data.
// Errors: INVALID_ARGUMENT for a struct_size that cannot be, a reserved field that is not zero, and
// a byte_offset that is negative or leads out of memory, and a schedule, which only the host sets.
// where: the step, as messages begin. Allocates nothing unless it fails.
Result<void> read_args(const attnrt_args& given, attnrt_args* args, const char* where = "run");

// Checks that exactly the tensors which the problem uses are given, that they fit it (ndim, shape,
// dtype, strides and alignment), and that no written tensor overlaps another one. Then gives every
// tensor the dimensions that plugins find, with stride 0 where the application gave fewer: the mask
// (also where its size is 1), slopes without a batch, scales of a tensor or of heads. Errors:
// INVALID_ARGUMENT that names the tensor, what was found and what was expected. Allocates nothing
// unless it fails.
attnrt_status check_args(const Problem& problem, attnrt_args& args, Extents* extents,
                         attnrt_error* error, const char* where = "run");

}  // namespace attnrt::core
