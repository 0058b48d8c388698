// runtime/src/base/spread.hpp: a count into calls of a body on the threads of an arena (oneTBB)
#pragma once

#include <attnrt/plugin.h>
#include <tbb/task_arena.h>

#include <cstdint>

namespace attnrt::core {

// body(arg, index, worker) for each index below count; returns when all are done. worker is the thread's place in the arena.
void spread(tbb::task_arena& arena, int64_t count, attnrt_parallel_body body, void* arg);

}  // namespace attnrt::core
