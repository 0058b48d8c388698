// runtime/src/base/spread.hpp: parallel_for on the threads of a oneTBB arena
#pragma once

#include <attnrt/plugin.h>
#include <tbb/task_arena.h>

#include <cstdint>

namespace attnrt::core {

// Calls body(arg, index, worker) for each index in [0, count), and returns when all calls have
// returned. worker is the calling thread's slot in the arena.
void spread(tbb::task_arena& arena, int64_t count, attnrt_parallel_body body, void* arg);

}  // namespace attnrt::core
