// runtime/conformance/case.hpp: a manifest and a seed into one attention problem with a run's real extents
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "load.hpp"
#include "manifest.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::verify {

using Random = std::mt19937_64;
inline int64_t between(Random& random, int64_t low, int64_t high) {  // both included
  return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
}
inline bool one_in(Random& random, int64_t n) { return between(random, 1, n) == 1; }

// What is special in the numbers of a case; each is there to show one kind of mistake.
enum class Style {
  plain,
  long_rows,    // few queries, many keys
  empty_rows,   // some rows see nothing
  huge_logits,  // scores of thousands
  lowest_mask,  // an additive mask of the least finite number
  nan_outside,  // NaN in what does not exist: past kv_lengths, between rows, in unused pages
  nan_masked,   // NaN in k where no query may look
  nan_visible   // NaN in k that some rows see
};
constexpr int kStyles = 8;

// problem has the bounds, the rest is one run within them.
struct Case {
  uint64_t seed = 0;
  Style style = Style::plain;
  int entry = 0;  // of the manifest
  core::Problem problem{};
  int64_t batch = 0, seq_q = 0, seq_kv = 0;    // of the tensors, where they are not packed
  std::vector<int64_t> q_lengths, kv_lengths;  // of each sequence
  int64_t spare_rows = 0;                      // varlen: rows past the last offset
  int64_t pages = 0, max_pages = 0;
};

// The case of this seed, by one entry of the manifest, for the device; nullopt where none could be drawn.
std::optional<Case> draw(const core::Manifest& manifest, const core::Device& device, uint64_t seed);

// The entry fits the problem: its constraints and its features.
bool fits(const core::Manifest::Entry& entry, const core::Problem& problem,
          const std::string& arch);

// Gives the case these extents in place of its own, and bounds that fit them exactly or are larger.
void set_extents(Case& drawn, std::vector<int64_t> q_lengths, std::vector<int64_t> kv_lengths);

}  // namespace attnrt::cli::verify
