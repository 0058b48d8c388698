// runtime/src/bounds.cpp: batch, seq_q and seq_kv of a problem, and how far they are rounded up
#include "bounds.hpp"

#include <algorithm>
#include <bit>

#include "config.hpp"
#include "select.hpp"

namespace attnrt::core {
namespace {

int64_t next_power(int64_t bound) {
  constexpr int64_t kLargestPower = int64_t{1} << 62;  // the next one does not fit into int64_t
  if (bound >= kLargestPower) return bound;
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bound, 1))));
}

uint64_t mixed(uint64_t hash, uint64_t word) {
  return ((hash << 5 | hash >> 59) ^ word) * 0x517CC1B727220A95;
}

bool accepts(const Candidate& candidate, const Problem& problem) {
  const Problem asked = problem_on(candidate.device, problem);
  if (!candidate.plugin->manifest->refusals(asked, candidate.device.arch).empty()) return false;
  std::vector<std::string> ignored;
  return candidate.backend == nullptr || candidate.backend->supports(asked, &ignored) == ATTNRT_OK;
}

// Cuts the bounds at an entry's maxima.
Bounds cut(Bounds bounds, const Manifest::Entry& entry) {
  for (const Constraint& constraint : entry.constraints) {
    if (!constraint.is_on_bounds() || !constraint.max) continue;
    int64_t& bound = constraint.word->name == "batch"   ? bounds.batch
                     : constraint.word->name == "seq_q" ? bounds.seq_q
                                                        : bounds.seq_kv;
    if (static_cast<double>(bound) > *constraint.max) bound = static_cast<int64_t>(*constraint.max);
  }
  return bounds;
}

}  // namespace

Bounds bounds_of(const Problem& problem) { return {problem.batch, problem.seq_q, problem.seq_kv}; }

Problem with_bounds(Problem problem, const Bounds& bounds) {
  problem.batch = bounds.batch;
  problem.seq_q = bounds.seq_q;
  problem.seq_kv = bounds.seq_kv;
  return problem;
}

bool within(const Bounds& a, const Bounds& b) {
  return a.batch <= b.batch && a.seq_q <= b.seq_q && a.seq_kv <= b.seq_kv;
}

Bounds rounded_up(const Bounds& bounds) {
  return {next_power(bounds.batch), next_power(bounds.seq_q), next_power(bounds.seq_kv)};
}

uint64_t hash_of(const Problem& problem) {
  static_assert(sizeof(Problem) % sizeof(uint64_t) == 0);
  uint64_t words[sizeof(Problem) / sizeof(uint64_t)];
  std::memcpy(words, &problem, sizeof problem);
  uint64_t hash = 0x9E3779B97F4A7C15;
  for (const uint64_t word : words) hash = mixed(hash, word);
  return hash;
}

CacheKey cache_key(const Config& config, const Problem& problem) {
  CacheKey key;
  key.problem = problem;
  const auto& conditions = config.conditions_on_bounds;
  if (conditions.size() <= CacheKey::kMostConditions) {
    key.problem = with_bounds(problem, rounded_up(bounds_of(problem)));
    for (size_t i = 0; i < conditions.size(); ++i) {
      if (conditions[i].met(problem, "")) key.conditions.at(i / 64) |= uint64_t{1} << (i % 64);
    }
  }
  key.hash = hash_of(key.problem);
  if (!conditions.empty()) {
    for (const uint64_t word : key.conditions) key.hash = mixed(key.hash, word);
  }
  return key;
}

Problem widest_accepted(const Candidate& candidate, const Problem& exact, const Problem& rounded) {
  if (same_problem(exact, rounded) || accepts(candidate, rounded)) return rounded;
  const Bounds least = bounds_of(exact);
  for (const auto& entry : candidate.plugin->manifest->entries) {
    const Bounds bounds = cut(bounds_of(rounded), entry);
    if (bounds == bounds_of(rounded) || !within(least, bounds)) continue;
    const Problem narrowed = with_bounds(rounded, bounds);
    if (accepts(candidate, narrowed)) return narrowed;
  }
  return exact;
}

bool accepts_smaller(const Candidate& candidate, const Problem& problem) {
  return accepts(candidate, with_bounds(problem, {1, 1, 1}));
}

}  // namespace attnrt::core
