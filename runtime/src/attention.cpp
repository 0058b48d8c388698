// runtime/src/attention.cpp: one call's tensors into a result: infer, find or make a plan, run, fail over
#include <algorithm>
#include <bit>

#include "base/structs.hpp"
#include "cache.hpp"
#include "problem/infer.hpp"
#include "run.hpp"
#include "runtime.hpp"

namespace attnrt::core {
namespace {

int64_t rounded_up(int64_t bound) {
  constexpr int64_t kLargest = int64_t{1} << 62;
  return bound >= kLargest ? bound
                           : static_cast<int64_t>(
                                 std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bound, 1))));
}

bool is_capturing(const Plan& plan, void* stream) {
  const attnrt_memory* memory = plan.backend().memory();
  if (plan.device().type == ATTNRT_DEVICE_CPU || plan.staging() != nullptr || memory == nullptr)
    return false;
  int32_t capturing = 0;
  const auto status = memory->is_capturing(plan.backend().instance(), plan.device().id, stream,
                                           &capturing, nullptr);
  return status == ATTNRT_OK && capturing != 0;
}

}  // namespace

attnrt_status Runtime::attention(const Problem& attributes, const attnrt_args& given,
                                 const Call& call, attnrt_error* error) {
  attnrt_args args{};
  if (const auto read = read_struct(given, &args); !read) return fill_error(error, read.error());
  args.workspace = nullptr;  // each plan brings its own
  Problem problem = attributes;
  if (const attnrt_status status = infer_problem(args, &problem, error); status != ATTNRT_OK)
    return status;
  problem.batch = rounded_up(problem.batch);
  problem.seq_q = rounded_up(problem.seq_q);
  problem.seq_kv = rounded_up(problem.seq_kv);

  const auto snapshot = this->snapshot();
  PlanCache::Taken taken = plans_->take(snapshot.get(), problem, call, args.stream);
  if (taken.empty()) {
    const auto checked = check_problem(&problem);
    if (!checked) return fill_error(error, checked.error());
    auto decision = decide(*checked, call);
    if (decision->status != ATTNRT_OK)
      return fill_error(error, {decision->status, decision->message});
    auto placed = plan_from(*decision, 0);
    if (!placed) return fill_error(error, placed.error());
    taken.push_back({hash_of(problem), snapshot, problem, call, args.stream, std::move(decision),
                     std::move(placed->plan), placed->candidate});
  }
  PlanCache::Entry& entry = taken.front();
  const bool capturing = is_capturing(*entry.plan, args.stream);
  attnrt_error found = ATTNRT_ERROR_INIT;
  attnrt_status status = run(*entry.plan, args, &found);
  bool failed_over = false;
  while (status != ATTNRT_OK && !capturing &&
         may_fail_over(status, *entry.decision, entry.candidate)) {
    snapshot->services->log(ATTNRT_LOG_WARNING, fmt::format("{} ({}); the next candidate is taken",
                                                            found.message, status_name(status)));
    auto placed = plan_from(*entry.decision, entry.candidate + 1);
    if (!placed) return fill_error(error, placed.error());
    entry.plan = std::move(placed->plan);  // later calls begin where this one succeeds
    entry.candidate = placed->candidate;
    failed_over = true;
    found = ATTNRT_ERROR_INIT;
    status = run(*entry.plan, args, &found);
  }
  if (status != ATTNRT_OK) (void)attnrt_fail(error, status, "%s", found.message);
  const bool nobody_could =
      failed_over && status != ATTNRT_OK;  // then the next call asks them all again
  if (!nobody_could) plans_->put_back(std::move(taken), capturing);
  return status;
}

}  // namespace attnrt::core
