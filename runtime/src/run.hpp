// runtime/src/run.hpp: the run step: calls a Plan's backend on one run's tensors
#pragma once

#include "plan.hpp"

namespace attnrt::core {

class Schedule;  // schedule.hpp

// Checks args against the plan's problem and calls the backend. For device tensors it enqueues and
// returns. A run without batch or queries has nothing to do and is OK. Allocates nothing unless it
// fails.
// schedule: built for tensors of these sizes; nullptr: the backend divides the work itself.
attnrt_status run(const Plan& plan, const attnrt_args& args, attnrt_error* error,
                  const Schedule* schedule = nullptr);

// Refuses a stream that is being captured, if the plan cannot be captured. where: the step, as the
// message begins.
attnrt_status check_capture(const Plan& plan, void* stream, attnrt_error* error, const char* where);

}  // namespace attnrt::core
