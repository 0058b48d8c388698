// kernels/cpu/merge.cpp: cuts a merge into tasks of rows for the caller's threads
#include "kernels/cpu/merge.hpp"

#include <algorithm>

#include "kernels/cpu/targets.hpp"
#include "kernels/cpu/workspace.hpp"

namespace kernels::cpu {
namespace {

// Bytes of partials that one task reads: enough to make handing it out cheap beside the work.
constexpr int64_t kTaskBytes = int64_t{1} << 17;

struct Call {
  const Merge& merge;
  const Target& target;
  int64_t rows, rows_per_task;
};

void merge_task(void* arg, int64_t index, int32_t) {
  const Call& call = *static_cast<const Call*>(arg);
  const int64_t first = index * call.rows_per_task;
  call.target.merge_rows(call.merge, first, std::min(first + call.rows_per_task, call.rows));
}

}  // namespace

void merge(const Merge& merge, const Target& target, const Workers& workers) {
  int64_t rows = 1;
  for (int32_t n = 0; n + 1 < merge.out.ndim; ++n) rows *= merge.out.shape[n];
  const int64_t dim = merge.out.shape[merge.out.ndim - 1];
  const int64_t row_bytes =
      std::max<int64_t>(dim, 1) * merge.count * static_cast<int64_t>(sizeof(float));
  Call call{merge, target, rows, std::max<int64_t>(kTaskBytes / row_bytes, 1)};
  const int64_t tasks = ceil_div(rows, call.rows_per_task);
  if (workers.parallel_for == nullptr || tasks <= 1) {
    target.merge_rows(merge, 0, rows);
  } else {
    workers.parallel_for(workers.self, tasks, merge_task, &call);
  }
}

}  // namespace kernels::cpu
