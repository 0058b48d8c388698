// runtime/src/run.hpp: the run step: calls a Plan's backend on one run's tensors
#pragma once

#include "plan.hpp"

namespace attnrt::core {

// Checks args against the plan's problem and calls the backend. For device tensors it enqueues and
// returns. A run without batch or queries has nothing to do and is OK. Allocates nothing unless it
// fails.
attnrt_status run(const Plan& plan, const attnrt_args& args, attnrt_error* error);

}  // namespace attnrt::core
