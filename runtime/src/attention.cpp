// runtime/src/attention.cpp: one-shot calls: finds or makes a plan for the tensors and runs it
//
// A one-shot call derives its problem from the tensors, so a decode loop would ask for a slightly
// larger problem each time. batch, seq_q and seq_kv are therefore rounded up to powers of two. A
// plan serves every run within its bounds, so such a loop makes one plan for each doubling and
// reuses it in between. Cached plans run without an allocation.
#include <algorithm>
#include <bit>

#include "base/structs.hpp"
#include "problem/infer.hpp"
#include "runtime.hpp"

namespace attnrt::core {
namespace {

int64_t rounded_up(int64_t bound) {
  constexpr int64_t kLargestPower = int64_t{1} << 62;  // the next one does not fit into int64_t
  if (bound >= kLargestPower) return bound;
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bound, 1))));
}

// Whether a graph is being captured on the stream that the plan runs on. Staged plans use a stream
// of their own.
bool is_capturing(const Plan& plan, void* stream) {
  const attnrt_memory* memory = plan.backend().memory();
  if (plan.device().type == ATTNRT_DEVICE_CPU || plan.staging() != nullptr || memory == nullptr)
    return false;
  int32_t capturing = 0;
  uint64_t capture_id = 0;
  const auto status = memory->is_capturing(plan.backend().instance(), plan.device().id, stream,
                                           &capturing, &capture_id, nullptr);
  return status == ATTNRT_OK && capturing != 0;
}

}  // namespace

attnrt_status Runtime::attention(const Problem& attributes, const attnrt_args& given,
                                 const Call& call, attnrt_error* error) {
  attnrt_args args{};
  if (const auto read = read_struct(given, &args); !read) return fill_error(error, read.error());
  args.workspace = nullptr;  // each plan has its own
  Problem problem = attributes;
  if (const attnrt_status status = infer_problem(args, &problem, error); status != ATTNRT_OK)
    return status;
  problem.batch = rounded_up(problem.batch);
  problem.seq_q = rounded_up(problem.seq_q);
  problem.seq_kv = rounded_up(problem.seq_kv);

  const auto snapshot = this->snapshot();
  PlanCache::Taken taken = plans_.take(snapshot.get(), problem, call, args.stream);
  if (taken.empty()) {
    const auto checked = check_problem(&problem);
    if (!checked) return fill_error(error, checked.error());
    auto decision = decide(*checked, call);
    if (decision->status != ATTNRT_OK)
      return fill_error(error, {decision->status, decision->message});
    auto planned = failover_.plan(*decision, 0, *snapshot->services);
    if (!planned) return fill_error(error, planned.error());
    taken.push_back({hash_of(problem), snapshot, problem, call, args.stream, std::move(decision),
                     std::move(planned->plan), planned->candidate});
  }
  PlanCache::Entry& entry = taken.front();
  const bool capturing = is_capturing(*entry.plan, args.stream);
  const attnrt_status status = failover_.run(entry, args, capturing, error);
  if (entry.plan != nullptr) plans_.put_back(std::move(taken), capturing);
  return status;
}

}  // namespace attnrt::core
