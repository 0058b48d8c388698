// runtime/src/base/spread.cpp: a count into calls of a body on the threads of an arena (oneTBB)
//
// Alone in its file because it is never built with ThreadSanitizer (runtime/CMakeLists.txt).
#include "base/spread.hpp"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>

namespace attnrt::core {

void spread(tbb::task_arena& arena, int64_t count, attnrt_parallel_body body, void* arg) {
  const auto run = [body, arg](const tbb::blocked_range<int64_t>& range) {
    const int32_t worker = tbb::this_task_arena::current_thread_index();
    for (int64_t index = range.begin(); index != range.end(); ++index) body(arg, index, worker);
  };
  arena.execute([&] {  // in another thread, where more callers than slots are in the arena
    tbb::parallel_for(tbb::blocked_range<int64_t>(0, count, 1), run, tbb::simple_partitioner());
  });
}

}  // namespace attnrt::core
