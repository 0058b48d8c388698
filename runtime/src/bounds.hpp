// runtime/src/bounds.hpp: batch, seq_q and seq_kv of a problem, and how far they are rounded up
//
// A one-shot call derives its problem from the tensors, so a decode loop would ask for a slightly
// larger problem each time. What is cached for it is therefore looked up, and planned, with these
// three bounds rounded up to powers of two.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "candidates.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

struct Config;

struct Bounds {
  int64_t batch = 0, seq_q = 0, seq_kv = 0;
  bool operator==(const Bounds&) const = default;
};
Bounds bounds_of(const Problem& problem);
Problem with_bounds(Problem problem, const Bounds& bounds);
// Whether each bound of a is at most b's.
bool within(const Bounds& a, const Bounds& b);
// Returns each bound's next power of two; one that has none in int64_t stays.
Bounds rounded_up(const Bounds& bounds);

// What decisions and plans are looked up by, together with the Call. Problems that have one key
// differ in their bounds only, and the policy answers the same for them.
struct CacheKey {
  static constexpr size_t kMostConditions = 256;
  Problem problem{};  // its bounds rounded up
  // One bit for each of the policy's conditions on bounds: whether the exact problem meets it.
  std::array<uint64_t, kMostConditions / 64> conditions{};
  uint64_t hash = 0;

  bool operator==(const CacheKey& other) const {
    return hash == other.hash && conditions == other.conditions &&
           same_problem(problem, other.problem);
  }
};
// Allocates nothing. If the policy has more conditions on bounds than kMostConditions, the bounds
// stay as they are.
CacheKey cache_key(const Config& config, const Problem& problem);

// FxHash, which compilers use for their tables: a rotation, an xor and a multiplication for each
// word.
uint64_t hash_of(const Problem& problem);

// Returns the problem that is planned for a one-shot call: the rounded one, cut at the maxima of
// the candidate's manifest; the exact one, if the candidate does not accept that.
// REQUIRES: the candidate accepts the exact problem.
Problem widest_accepted(const Candidate& candidate, const Problem& exact, const Problem& rounded);

// Whether the candidate, which refused the problem, would accept it with smaller bounds.
bool accepts_smaller(const Candidate& candidate, const Problem& problem);

}  // namespace attnrt::core
