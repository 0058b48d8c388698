// kernels/cpu/attention.hpp: scaled dot-product attention on the CPU's SIMD units and AMX tiles
#pragma once

#include <cstdint>

#include "kernels/common/problem.hpp"

namespace kernels::cpu {

enum class Status : int32_t { ok, invalid_argument };

// One line: where, what was found, what was expected. Owned by the caller; set only if a call
// fails.
struct Error {
  char message[256] = {};
};

// The caller's threads. parallel_for calls body(arg, index, worker) once for every index in [0,
// count), with worker in [0, thread_count), and returns when all calls have returned. No two calls
// of one worker overlap. parallel_for == nullptr: everything runs on the calling thread.
struct Workers {
  void* self = nullptr;
  int32_t thread_count = 1;
  void (*parallel_for)(void* self, int64_t count,
                       void (*body)(void* arg, int64_t index, int32_t worker), void* arg) = nullptr;
};

// Bytes: a cache line, and the widest vector.
inline constexpr int64_t kWorkspaceAlignment = 64;

// An instruction set that the kernels were compiled for.
struct Target;

// Returns the best target that this processor has and this operating system enables, or, given one,
// the best of the others that follow it. null: there is none. Looked up each time.
const Target* next_target(const Target* after);

// The target of that name ("avx2"), or null if it is unknown or not available here. `name` ==
// nullptr: the best.
const Target* find_target(const char* name);

const char* target_name(const Target& target);

// The name of the kernel that run() uses, for people and traces.
const char* kernel_name(const Target& target);

// Whether the numbers of a Problem make sense together. Pure.
Status check_problem(const Problem& problem, Error* error);

// Bytes of scratch memory that run() needs for any tensors within the Problem's bounds.
// REQUIRES: check_problem says ok; thread_count >= 1.
int64_t workspace_bytes(const Problem& problem, const Target& target, int32_t thread_count);

// Computes attention as kernels/reference defines it, with scores and sums in float32. Allocates
// nothing. On target amx with f16, an infinite K or V gives NaN where the exact result may be
// infinite or finite. Checks the tensors and reads the index arrays first; if it fails, it has
// written nothing. The same inputs give the same bits on one target, whatever thread_count is. If
// the problem is batch_invariant, a sequence's bits follow from its own rows and lengths alone.
// REQUIRES: check_problem says ok; workspace holds workspace_bytes(problem, target,
//           workers.thread_count), aligned to kWorkspaceAlignment; no output overlaps an input.
// THREADS: calls with different workspaces and outputs may overlap.
Status run(const Problem& problem, const Args& args, const Target& target, const Workers& workers,
           void* workspace, int64_t bytes, Error* error);

}  // namespace kernels::cpu
