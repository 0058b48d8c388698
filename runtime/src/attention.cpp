// runtime/src/attention.cpp: one-shot calls: finds or makes a plan for the tensors and runs it
//
// The steps of a call:
//     infer     the exact problem, from the tensors
//     key       its bounds rounded up to powers of two, and what the policy says of the exact ones
//     decide    on the exact problem, once for each key and bounds that the decision holds for
//     plan      for the rounded problem, once for each key, backend and run that is in flight
//     run
// So a decode loop decides and plans once for each doubling, and its other calls allocate nothing.
#include <algorithm>

#include "problem/check_args.hpp"
#include "problem/infer.hpp"
#include "runtime.hpp"

namespace attnrt::core {

attnrt_status Runtime::attention(const Problem& attributes, const attnrt_args& given,
                                 const Call& call, attnrt_error* error) {
  attnrt_args args{};
  if (const auto read = read_args(given, &args); !read) return fill_error(error, read.error());
  args.workspace = nullptr;  // each plan has its own
  Problem problem = attributes;
  if (const attnrt_status status = infer_problem(args, &problem, error); status != ATTNRT_OK)
    return status;
  for (int64_t* bound : {&problem.batch, &problem.seq_q, &problem.seq_kv})
    *bound = std::max<int64_t>(*bound, 1);

  const auto snapshot = this->snapshot();
  const CacheKey key = cache_key(*snapshot->config, problem);
  const Bounds bounds = bounds_of(problem);
  auto decision = decisions_.find(snapshot.get(), key, call, bounds, generation(), false);
  if (decision == nullptr) {
    const auto checked = check_problem(&problem);  // of equal problems, the first only
    if (!checked) return fill_error(error, checked.error());
    decision = decide_anew(snapshot, key, *checked, call);
  }
  if (decision->status != ATTNRT_OK)
    return fill_error(error, {decision->status, decision->message});
  return failover_.attend({snapshot, std::move(decision), call, key, bounds, args.stream}, args,
                          error);
}

}  // namespace attnrt::core
