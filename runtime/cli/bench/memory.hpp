// runtime/cli/bench/memory.hpp: how much memory a problem needs, and how much there is
#pragma once

#include <cstdint>
#include <limits>

#include "base/result.hpp"
#include "cli/bench/lengths.hpp"

namespace attnrt::cli::bench {

// Returns the bytes of host memory that measuring the problem takes: all its tensors, and the copy
// of out that outputs are compared with. INT64_MAX if that is more.
int64_t bytes_needed(const GridProblem& grid_problem);

// Returns the bytes that this process can still get: what the machine has available, or what its
// control group leaves, if that is less. INT64_MAX if neither is known.
int64_t bytes_available();

// Fails with OUT_OF_MEMORY, and says how much is needed, if that is more than is available. Linux
// gives memory that it does not have, and the process is killed when it fills it.
core::Result<void> check_memory(const GridProblem& grid_problem, int64_t available);

// How many copies of q, k and v the runs of `bench --cold` use in turn.
struct ColdCopies {
  int64_t count;
  bool enough;  // together they are larger than any cache; otherwise the runs are not cold
};

// bytes: of q, k and v together.
ColdCopies cold_copies(int64_t bytes);

}  // namespace attnrt::cli::bench
