// runtime/src/base/nearest.cpp: suggests the known name that a misspelled one probably means
#include "base/nearest.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>

namespace attnrt::core {
namespace {

constexpr size_t kLongestWord = 64;  // letters; longer words get no suggestion

bool same_letter(char a, char b) {
  const auto folded = [](char c) {
    return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  return folded(a) == folded(b);
}

// Returns the least number of insertions, removals, replacements and swaps of neighbours that turn
// a into b: the Damerau-Levenshtein distance with non-overlapping swaps. row[j] is the distance of
// a's first i letters from b's first j.
// REQUIRES: neither is longer than kLongestWord.
size_t edit_distance(std::string_view a, std::string_view b) {
  size_t rows[3][kLongestWord + 1] = {};  // the row of i, of i - 1 and of i - 2
  for (size_t i = 0; i <= a.size(); ++i) {
    size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      if (i == 0) {
        row[j] = j;
        continue;
      }
      const size_t replaced = above[j - 1] + (same_letter(a[i - 1], b[j - 1]) ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped =
          i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]);
      if (swapped) row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return rows[a.size() % 3][b.size()];
}

}  // namespace

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  std::string_view best;
  size_t best_distance = kLongestWord;
  if (word.empty() || word.size() > kLongestWord) return best;
  for (const std::string_view candidate : candidates) {
    if (candidate.size() > kLongestWord) continue;
    const size_t distance = edit_distance(word, candidate);
    const size_t close = (std::max(word.size(), candidate.size()) + 1) / 3;
    if (distance <= close && distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates) {
  const std::string_view near = nearest(word, candidates);
  return near.empty() ? "" : fmt::format("; did you mean {}?", near);
}

std::string expected_one_of(std::string_view word, std::span<const std::string_view> candidates) {
  const std::string hint = did_you_mean(word, candidates);
  return hint.empty() ? fmt::format("; expected one of {}", fmt::join(candidates, ", ")) : hint;
}

}  // namespace attnrt::core
