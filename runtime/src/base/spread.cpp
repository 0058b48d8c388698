// runtime/src/base/spread.cpp: parallel_for on the threads of a oneTBB arena
//
// In a file of its own because it is never compiled with ThreadSanitizer (runtime/CMakeLists.txt):
// oneTBB is not built with it either, so what its headers do would look like data races.
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
  // If more threads call than the arena has slots, another thread runs this one's call.
  arena.execute([&] {
    tbb::parallel_for(tbb::blocked_range<int64_t>(0, count, 1), run, tbb::simple_partitioner());
  });
}

}  // namespace attnrt::core
