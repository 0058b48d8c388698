// runtime/src/schedule.hpp: how the work of runs is divided, built once for many runs
#pragma once

#include <memory>
#include <optional>

#include "plan.hpp"
#include "problem/check_args.hpp"

namespace attnrt::core {

// Device memory that the backend fills by attnrt.schedule/1, and what it was filled for. Without
// that memory (the plan needs no schedule, its backend offers none, or it works on the cpu or on
// staged tensors) nothing is built, but all checks are the same.
//
// OWNERSHIP: owns the memory; shares the backend. REQUIRES: the plan outlives it.
// THREADS: a build counts as a run of the plan, and no run uses the schedule meanwhile.
class Schedule {
 public:
  // Allocates the memory, for use on any stream. Errors: the backend's, or OUT_OF_MEMORY.
  static Result<std::unique_ptr<Schedule>> make(const Plan& plan);
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  int64_t bytes() const { return memory_.bytes(); }  // 0: nothing is built

  // Checks args as run does, and enqueues what fills the memory on args.stream. Where there is no
  // sequence or no query, there is nothing to do, and the schedule stays as it was. Allocates
  // nothing unless it fails.
  attnrt_status build(const attnrt_args& args, attnrt_error* error);

  // Checks that a run of the plan may use the schedule, and gives it to the run; but not to one of
  // another version of the backend, which divides its work itself. args and extents:
  // as check_args left them. Errors: INVALID_ARGUMENT for a plan of another problem, backend or
  // device, and for sizes that are not those of the last build.
  attnrt_status give(const Plan& plan, const Extents& extents, attnrt_args& args,
                     attnrt_error* error) const;

 private:
  // The sizes of a run's tensors that the division of its work depends on.
  struct Sizes {
    Extents extents;
    int64_t page_columns = 0;  // of page_table
  };
  static Sizes sizes_of(const Extents& extents, const attnrt_args& args);
  attnrt_status check_plan(const Plan& plan, attnrt_error* error) const;
  bool is_of_other_version(const Plan& plan) const;

  explicit Schedule(const Plan& plan) : plan_(plan) {}
  const Plan& plan_;
  const attnrt_scheduling* scheduling_ = nullptr;  // nullptr: nothing is built
  DeviceMemory memory_;
  std::optional<Sizes> built_for_;  // absent: never built, or the last build failed
};

}  // namespace attnrt::core
