// kernels/cpu/attention.cpp: a run into blocks of query rows, handed to the caller's threads
#include "kernels/cpu/attention.hpp"

#include <cmath>

#include "kernels/cpu/block.hpp"
#include "kernels/cpu/check.hpp"
#include "kernels/cpu/targets.hpp"

namespace kernels::cpu {
namespace {

int64_t largest_block(const Problem& problem) {
  const int64_t group = problem.heads_q / problem.heads_kv;
  if (problem.seq_q >= kBlockRows / group + 1) return kBlockRows;  // before the product below could overflow
  return std::min(kBlockRows, round_up(problem.seq_q * group, kRowGroup));
}

// Large blocks amortize the packing of K and V, small ones keep every thread busy.
int64_t choose_block_rows(const Problem& problem, int64_t rows, int64_t pairs, int32_t thread_count) {
  constexpr int64_t kLeast = kBlockRows / 8;
  int64_t block_rows = largest_block(problem);
  if (thread_count > 1) {
    const auto tasks = [&] { return pairs * ((rows + block_rows - 1) / block_rows); };
    while (block_rows > kLeast && tasks() < 3 * int64_t{thread_count}) {
      block_rows = round_up(block_rows / 2, kRowGroup);
    }
  }
  return block_rows;
}

void attend_one(void* arg, int64_t index, int32_t worker) {
  attend_block(*static_cast<const Run*>(arg), index, worker);
}

}  // namespace

int64_t workspace_bytes(const Problem& problem, int32_t thread_count) {
  return thread_count * carve(problem, largest_block(problem), nullptr).bytes;
}

Status run(const Problem& problem, const Args& args, const Workers& workers, void* workspace, int64_t bytes,
           Error* error) {
  const Status status = check_args(problem, args, error);
  if (status != Status::ok) return status;
  const int32_t thread_count = workers.parallel_for == nullptr ? 1 : workers.thread_count;
  if (bytes < workspace_bytes(problem, thread_count) || workspace == nullptr ||
      reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    return fail(error, "workspace: found %jd bytes at %p, expected %jd aligned to %jd", bytes, workspace,
                workspace_bytes(problem, thread_count), kWorkspaceAlignment);
  }

  const int64_t batch = real_batch(problem, args);
  int64_t longest = 0;
  for (int64_t b = 0; b < batch; ++b) longest = std::max(longest, sequence(problem, args, b).q_length);
  const int64_t group = problem.heads_q / problem.heads_kv;
  const int64_t pairs = batch * problem.heads_kv;
  if (pairs == 0 || longest == 0) return Status::ok;

  Run run{};
  run.problem = &problem;
  run.args = &args;
  run.scale =
      problem.scale != 0 ? problem.scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(problem.head_dim)));
  run.group = group;
  run.block_rows = choose_block_rows(problem, longest * group, pairs, thread_count);
  run.blocks_per_kv_head = (longest * group + run.block_rows - 1) / run.block_rows;
  run.workspace = workspace;
  run.worker_bytes = carve(problem, largest_block(problem), nullptr).bytes;

  const int64_t count = pairs * run.blocks_per_kv_head;
  if (workers.parallel_for != nullptr && thread_count > 1) {
    workers.parallel_for(workers.self, count, attend_one, &run);
  } else {
    for (int64_t index = 0; index < count; ++index) attend_one(&run, index, 0);
  }
  return Status::ok;
}

}  // namespace kernels::cpu
