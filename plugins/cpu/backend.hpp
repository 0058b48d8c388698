// plugins/cpu/backend.hpp: the calls of the CPU backend, and what it keeps between them
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "attnrt/plugin.h"
#include "kernels/cpu/attention.hpp"

namespace attnrt_cpu {

// Lets `new (std::nothrow)` of a type fail without an exception inside: an exception's thread-local
// state is allocated when a thread first needs it, and libc ends the process if it cannot be.
struct MadeByMalloc {
  static void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    return std::malloc(bytes);
  }
  static void operator delete(void* memory) { std::free(memory); }
};

// What open makes.
struct Instance : MadeByMalloc {
  kernels::cpu::Workers workers;  // the host's threads
  const kernels::cpu::Target* target;
};

// What plan makes.
struct Plan : MadeByMalloc {
  explicit Plan(const kernels::Problem& planned) : problem(planned) {}
  kernels::Problem problem;
};

// Converts a problem for the kernels and checks it; INVALID_ARGUMENT if its numbers make no sense
// together. supports and plan both ask this function, so they cannot disagree.
attnrt_status checked_problem(const attnrt_problem& problem, kernels::Problem* to,
                              attnrt_error* error);

// Converts the result of a kernel call; `reason` is what the call reported.
attnrt_status status_of(kernels::cpu::Status status, const kernels::cpu::Error& reason,
                        attnrt_error* error);

attnrt_status supports(void* instance, const attnrt_problem* problem, attnrt_add_reason add,
                       void* sink);
attnrt_status plan(void* instance, const attnrt_problem* problem, attnrt_plan_info* info,
                   void** plan, attnrt_error* error);
attnrt_status run(void* instance, void* plan, const attnrt_problem* problem,
                  const attnrt_args* args, attnrt_error* error);
void plan_destroy(void* instance, void* plan);

extern const attnrt_merging merging;  // the extension attnrt.merge/1

}  // namespace attnrt_cpu
