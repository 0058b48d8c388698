// runtime/src/decide.hpp: one decision from a snapshot: policy, candidates, selection, rollouts
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "decision_cache.hpp"
#include "select.hpp"
#include "snapshot.hpp"

namespace attnrt::core {

// Decides, notes the rollout of each candidate, and decides once more as if nothing was in rollout:
// if a version in rollout wins then, that is the challenge; if nothing else serves, the decision.
Decision decide_with_rollouts(const Snapshot& snapshot, const Problem& problem,
                              const std::string& arch, const Call& call, bool suppose_device,
                              const Quarantine& quarantine);

// Returns the bounds between which the decision holds for every problem of its key: up to those
// that the winner accepts; and no smaller ones, if a better ranked candidate would accept them.
Choice choice_of(std::shared_ptr<const Decision> decision, const CacheKey& key,
                 uint64_t generation);

}  // namespace attnrt::core
