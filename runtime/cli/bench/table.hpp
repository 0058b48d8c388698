// runtime/cli/bench/table.hpp: a benchmark's report as text
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/bench/report.hpp"
#include "problem/problem.hpp"

namespace attnrt::cli::bench {

// The words that tell the problems apart, and those that all problems share.
struct Columns {
  std::vector<const core::Word*> words;
  std::vector<std::string> names;  // seq for seq_q, where seq_kv is always the same; heads likewise
  std::string shared;              // "dtype=f32 batch=1"
  std::vector<std::string> cells(const GridProblem& problem) const;  // one value for each word
  std::string text(const GridProblem& problem) const;                // "seq=512 causal=true"
};
Columns columns_of(const std::vector<GridProblem>& problems);

// The measured speed as a fraction of the device's limits, where these are known. 1 is the limit.
struct Shares {
  std::optional<double> compute, memory;
};
Shares shares_of(const Measurement& measurement, const Comparison& comparison, const Peak* peak);

// The measurements of one group of problems. One row for each measurement. The cells are the words
// that tell the problems apart, the thread count if there are several, the backend, and the
// numbers. A measurement without numbers has its reason as the last cell, and the row ends there.
struct Table {
  std::string group, shared;  // the group's name, and the words that all its problems share
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  size_t text_columns = 0;  // the first so many columns are words and not numbers
  bool is_reason(const std::vector<std::string>& row, size_t column) const {
    return column + 1 == row.size() && row.size() < head.size();
  }
};
std::vector<Table> tables_of(const Report& report);  // one for each group

std::string rate_text(double per_second);           // three digits and a prefix: "68.1 G"
std::string threads_text(int32_t threads);          // "1 thread", "2 threads"
std::string conditions_text(const Report& report);  // processor, threads, samples, caches
std::string peak_text(const Peak& peak, const Report& report);  // one line

std::string to_text(const Report& report);

}  // namespace attnrt::cli::bench
