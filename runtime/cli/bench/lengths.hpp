// runtime/cli/bench/lengths.hpp: the lengths of a measured problem's sequences
#pragma once

#include <string>
#include <vector>

#include "kernels/reference/lengths.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// One problem of a grid. The vocabulary has no word for the lengths of single sequences, of which
// seq_q and seq_kv are bounds, nor for a group.
struct GridProblem {
  core::Problem problem{};
  kernels::reference::Lengths lengths = kernels::reference::Lengths::full;
  std::string group;  // "": none
};

// The word of a grid that says how the lengths differ: full, one_long or ragged. core::parse_value
// parses its values.
const core::Word& lengths_word();
std::string lengths_text(kernels::reference::Lengths lengths);
kernels::reference::Lengths find_lengths(std::string_view text);  // REQUIRES: a value of the word

// Fails if the problem cannot have sequences of other lengths: without kv_lengths, varlen and
// pages, or with more sequences than lengths are drawn for.
core::Result<void> check_lengths(const GridProblem& grid_problem);

// The queries and keys of each sequence.
struct SequenceLengths {
  std::vector<int64_t> q, kv;
  int64_t total_q() const;
  int64_t total_kv() const;
};

// Returns the lengths of each sequence, always the same ones for the same problem:
//
//   full      seq_q queries and seq_kv keys
//   one_long  one sequence has seq_kv keys, every other one a sixteenth of that
//   ragged    one sequence has seq_kv keys, every other one any number from a sixteenth of that
//
// With varlen, a sequence of one_long or ragged has at most as many queries as keys. So it is a
// whole prompt where seq_q is seq_kv, and the last part of a prompt where seq_q is less.
SequenceLengths lengths_of(const GridProblem& grid_problem);

}  // namespace attnrt::cli::bench
