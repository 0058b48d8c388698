// kernels/common/visibility.hpp: the interval of keys that a query sees: causal, window, length
#pragma once

#include "kernels/common/sequence.hpp"

namespace kernels {

// Keys [begin, end); empty if begin >= end.
struct KeyRange {
  int64_t begin;
  int64_t end;
};

// The keys that exist and that neither causal nor the window hides from query i of a sequence.
// Without a mask tensor these are the visible keys. Neither end decreases as i grows.
KERNELS_HD constexpr KeyRange visible_keys(const Problem& problem, int64_t i,
                                           const Sequence& sequence) {
  const int64_t kv_length = sequence.kv_length;
  const int64_t d = i + sequence.diagonal;
  KeyRange keys{0, kv_length};
  // Distances are compared, not positions, so that no window overflows, however large.
  if (problem.window_left >= 0 && d > 0 && problem.window_left < d)
    keys.begin = d - problem.window_left;
  if (problem.window_right >= 0 && problem.window_right < kv_length - 1 - d)
    keys.end = d + problem.window_right + 1;
  if (problem.causal && d + 1 < keys.end) keys.end = d + 1;
  return keys;
}

}  // namespace kernels
