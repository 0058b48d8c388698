// runtime/src/decide.cpp: one decision from a snapshot: policy, candidates, selection, rollouts
#include "decide.hpp"

#include <algorithm>
#include <utility>

#include "candidates.hpp"
#include "policy.hpp"
#include "rollout.hpp"

namespace attnrt::core {
namespace {

Decision decide_uncached(const Snapshot& snapshot, const Problem& problem, const std::string& arch,
                         const Call& call, bool suppose_device, const Quarantine& quarantine) {
  const Policy policy(snapshot.config, call);
  const Candidates candidates = find_candidates(snapshot, problem, arch, suppose_device);
  return select(policy, candidates, problem, arch, quarantine);
}

}  // namespace

Decision decide_with_rollouts(const Snapshot& snapshot, const Problem& problem,
                              const std::string& arch, const Call& call, bool suppose_device,
                              const Quarantine& quarantine) {
  const auto decided = [&](const Quarantine& applied) {
    Decision made = decide_uncached(snapshot, problem, arch, call, suppose_device, applied);
    for (Verdict& verdict : made.verdicts)
      verdict.rollout = find_rollout(snapshot.rollouts, verdict.candidate.plugin->hash);
    return made;
  };
  Decision decision = decided(quarantine);
  const bool any_held = std::any_of(decision.verdicts.begin(), decision.verdicts.end(),
                                    [](const Verdict& verdict) { return verdict.in_rollout; });
  if (!any_held) return decision;
  Quarantine lifted = quarantine;
  std::erase_if(lifted.held_back, [](const auto& each) { return each.is_open; });
  Decision other = decided(lifted);
  const Rollout* tried = other.rollout();
  if (tried == nullptr || !tried->is_open() || other.winner()->candidate.backend == nullptr)
    return decision;
  if (decision.status != ATTNRT_OK) return other;
  decision.challenge = std::make_shared<const Decision>(std::move(other));
  return decision;
}

Choice choice_of(std::shared_ptr<const Decision> decision, const CacheKey& key,
                 uint64_t generation) {
  const Problem& problem = decision->problem;
  Choice choice{nullptr, bounds_of(problem), bounds_of(problem), generation};
  if (const Verdict* winner = decision->winner()) {
    Problem widest =
        widest_accepted(winner->candidate, problem, with_bounds(problem, bounds_of(key.problem)));
    // The same decision says which calls the version in rollout gets.
    if (decision->challenge != nullptr)
      widest = widest_accepted(decision->challenge->winner()->candidate, problem, widest);
    choice.most = bounds_of(widest);
    // A version in rollout serves only what no other candidate does, however that ranks.
    const Rollout* rollout = decision->rollout();
    const bool is_last = rollout != nullptr && rollout->phase() != Phase::promoted;
    const bool smaller_may_differ = std::any_of(
        decision->verdicts.begin(), decision->verdicts.end(), [&](const Verdict& verdict) {
          return (verdict.answer == Answer::no || verdict.in_rollout) &&
                 (is_last || verdict.rank <= winner->rank) &&
                 accepts_smaller(verdict.candidate, problem);
        });
    if (!smaller_may_differ) choice.least = {};
  }
  choice.decision = std::move(decision);
  return choice;
}

}  // namespace attnrt::core
