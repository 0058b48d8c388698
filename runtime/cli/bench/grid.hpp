// runtime/cli/bench/grid.hpp: reads the problems of a benchmark from options or from a YAML file
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/bench/lengths.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// A word and the values that it takes: a word of the vocabulary; seq or heads, which name both
// sides at once (seq_q and seq_kv, heads_q and heads_kv); or lengths.
struct Axis {
  std::string word;
  std::vector<std::string> values;
};

// Returns the words that a grid may name: seq, heads, lengths, and the vocabulary without device
// and arch, because every backend brings its own device.
std::vector<std::string_view> grid_words();

// Parses "512,2048", or "both" for a flag. REQUIRES: word is one of grid_words(). An error says
// what was found and what was expected, but not where.
core::Result<Axis> parse_axis(std::string_view word, std::string_view values);

// Returns every combination of the values; the last axis changes fastest.
core::Result<std::vector<GridProblem>> problems_of(const std::vector<Axis>& axes);

// Reads the problems of a YAML file, in its order. Errors begin with file:line:column.
core::Result<std::vector<GridProblem>> read_grid(std::string_view text, const std::string& file);

// Returns the problems of these groups, in the order of the problems. Errors: INVALID_ARGUMENT,
// without --group, if there is no such group.
core::Result<std::vector<GridProblem>> in_groups(const std::vector<GridProblem>& problems,
                                                 const std::vector<std::string>& groups);

}  // namespace attnrt::cli::bench
