// kernels/reference/lengths.hpp: draws the lengths of a batch's sequences, and the pages of their
// keys
//
// `attnrt verify` and `attnrt bench` draw theirs here. Every draw comes from the caller's
// generator, so a seed gives the same lengths and pages with every standard library.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace kernels::reference {

using Random = std::mt19937_64;

// Draws a whole number from low to high, both included. Unlike std::uniform_int_distribution, this
// gives the same numbers with every standard library.
inline int64_t between(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
}
inline bool one_in(Random& random, int64_t n) { return between(random, 1, n) == 1; }

// How the lengths of a batch's sequences differ.
enum class Lengths {
  full,      // all have the largest length
  one_long,  // one sequence has the largest length, all others have the least
  ragged,    // one sequence has the largest length, all others have any
  edges,     // none, one, all, or a number beside which a tile or a page ends
};

// What lengths to draw.
struct LengthRange {
  int64_t least, most;  // keys; 0 <= least <= most. `edges` draws from 0, whatever `least` is
  int64_t page = 0;     // keys of a page, whose ends `edges` draws, too; 0: there are no pages
};

// Draws the lengths of `count` sequences. full draws nothing from the generator.
std::vector<int64_t> draw_lengths(Random& random, Lengths lengths, int64_t count,
                                  const LengthRange& range);

// Gives each sequence pages of its own for so many keys, in random order.
// RETURNS a table [lengths.size(), columns] in row-major order. Entries past a sequence's last page
// are 0.
// REQUIRES: the sequences need at most `pages` pages in all, and at most `columns` each.
std::vector<int32_t> draw_page_table(Random& random, const std::vector<int64_t>& lengths,
                                     int64_t page_size, int64_t columns, int64_t pages);

// Returns how many pages hold so many keys.
inline int64_t pages_for(int64_t keys, int64_t page_size) {
  return (keys + page_size - 1) / page_size;
}

}  // namespace kernels::reference
