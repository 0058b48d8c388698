// runtime/cli/bench/table.cpp: writes a benchmark's report as an aligned table
//
//     PROCESSOR, 16 threads; medians of 11 samples; spread: half the ...       conditions
//     cpu: FMA ... FLOP/s, copy ... B/s, read ... B/s                          peaks
//
//     decode: dtype=f32 batch=1 heads=8                                        shared words
//     seq   causal  backend       time  spread  FLOP/s  of peak  ...           head
//     512   true    cpu         ... ms   ... %     ...    ... %  ...           numbers
//     2048  true    hip_flash  unsupported: uses causal, ...                   reason
//
// There is a table for each group of problems; without a group its title is "problems". A word is a
// column if it differs between the problems of the group. A word that all of them share is in the
// title, unless it has its default value.
#include "cli/bench/table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "cli/command.hpp"

namespace attnrt::cli::bench {
namespace {

std::string value_text(const core::Word& word, const GridProblem& problem) {
  if (&word == &lengths_word()) return lengths_text(problem.lengths);
  return core::to_text(word, core::value_of(word, problem.problem, ""));
}

// The words of a table: those of the vocabulary, and lengths beside kv_lengths.
std::vector<const core::Word*> table_words() {
  std::vector<const core::Word*> words;
  for (const core::Word& word : core::vocabulary()) {
    words.push_back(&word);
    if (word.name == "kv_lengths") words.push_back(&lengths_word());
  }
  return words;
}

// Lays out the table in columns, words to the left and numbers to the right.
std::string aligned(const Table& table) {
  std::vector<size_t> widths;
  for (const std::string& cell : table.head) widths.push_back(cell.size());
  for (const auto& row : table.rows)
    for (size_t n = 0; n < row.size(); ++n)
      if (!table.is_reason(row, n)) widths[n] = std::max(widths[n], row[n].size());
  std::string text;
  const auto add_line = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t n = 0; n < row.size(); ++n) {
      if (n > 0) line += "  ";
      if (table.is_reason(row, n)) {
        line += row[n];
      } else if (n < table.text_columns) {
        line += fmt::format("{:<{}}", row[n], widths[n]);
      } else {
        line += fmt::format("{:>{}}", row[n], widths[n]);
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add_line(table.head);
  for (const auto& row : table.rows) add_line(row);
  return text;
}

std::string percent(std::optional<double> part) {
  return part ? fmt::format("{:.0f} %", 100 * *part) : "-";
}

// The words that never are a column, and never a shared word: the backend brings its own device,
// and the others follow from words that are shown.
bool is_left_out(const core::Word& word) {
  return word.name == "device" || word.name == "arch" || word.name == "mask_dtype" ||
         word.name == "alignment_bytes";
}

constexpr std::array kNumberNames = {"time",   "spread", "FLOP/s",   "of peak",
                                     "KV B/s", "B/s",    "of memory"};

// The numbers of one measurement, by kNumberNames.
std::vector<std::string> number_cells(const Measurement& m, const Comparison& comparison,
                                      const Peak* peak) {
  const Shares shares = shares_of(m, comparison, peak);
  const double median = m.median();
  const double spread = (m.quantile(0.75) - m.quantile(0.25)) / 2;
  return {time_text(median),
          percent(spread / median),
          rate_text(comparison.work.flop / median),
          percent(shares.compute),
          rate_text(comparison.work.kv_bytes / median),
          rate_text(comparison.work.bytes / median),
          percent(shares.memory)};
}

std::string reason_text(const Measurement& m) {
  const char* state = m.state == State::unsupported ? "unsupported"
                      : m.state == State::wrong     ? "WRONG"
                                                    : "FAILED";
  return fmt::format("{}: {}", state, m.reason);
}

}  // namespace

Shares shares_of(const Measurement& m, const Comparison& comparison, const Peak* peak) {
  if (peak == nullptr || m.state != State::measured) return {};
  const auto share = [&](double amount, std::optional<double> best) {
    return best ? std::optional(amount / m.median() / *best) : std::nullopt;
  };
  return {share(comparison.work.flop, peak->compute(comparison.problem.dtype)),
          share(comparison.work.bytes, peak->memory())};
}

Columns columns_of(const std::vector<GridProblem>& problems) {
  const auto in_all = [&](auto&& holds) {
    return std::all_of(problems.begin(), problems.end(), holds);
  };
  const auto always_equal = [&](std::string_view one, std::string_view other) {
    return in_all([&](const GridProblem& problem) {
      return value_text(*core::find_word(one), problem) ==
             value_text(*core::find_word(other), problem);
    });
  };
  const bool one_seq = always_equal("seq_q", "seq_kv");
  const bool one_heads = always_equal("heads_q", "heads_kv");
  const bool one_dim = always_equal("head_dim", "head_dim_v");
  const bool own_scale =
      in_all([](const GridProblem& problem) { return problem.problem.scale == 0; });
  Columns columns;
  for (const core::Word* each : table_words()) {
    const core::Word& word = *each;
    if (is_left_out(word) || (word.name == "seq_kv" && one_seq) ||
        (word.name == "heads_kv" && one_heads) || (word.name == "head_dim_v" && one_dim) ||
        (word.name == "scale" && own_scale))
      continue;
    std::string name(word.name);
    if (name == "seq_q" && one_seq) name = "seq";
    if (name == "heads_q" && one_heads) name = "heads";
    const std::string first = problems.empty() ? "" : value_text(word, problems.front());
    const bool shared =
        in_all([&](const GridProblem& problem) { return value_text(word, problem) == first; });
    const bool is_default = first == value_text(word, {core::default_problem(), {}, {}});
    if (!shared) {
      columns.words.push_back(&word);
      columns.names.push_back(name);
    } else if (!is_default || name == "dtype" || name == "batch" || name == "seq_q") {
      columns.shared += fmt::format("{}{}={}", columns.shared.empty() ? "" : " ", name, first);
    }
  }
  return columns;
}

std::string Columns::text(const GridProblem& problem) const {
  std::string text;
  const std::vector<std::string> values = cells(problem);
  for (size_t n = 0; n < values.size(); ++n)
    text += fmt::format("{}{}={}", n == 0 ? "" : " ", names[n], values[n]);
  return text;
}

std::vector<std::string> Columns::cells(const GridProblem& problem) const {
  std::vector<std::string> cells;
  for (const core::Word* word : words) cells.push_back(value_text(*word, problem));
  return cells;
}

std::string rate_text(double per_second) {
  constexpr std::array kPrefixes = {"", "k", "M", "G", "T", "P"};
  size_t n = 0;
  // The bounds are those from which a number would be rounded to one digit more.
  for (; per_second >= 999.5 && n + 1 < kPrefixes.size(); ++n) per_second /= 1000;
  const int digits = per_second < 9.995 ? 2 : per_second < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", per_second, digits, kPrefixes[n]);
}

std::string threads_text(int32_t threads) {
  return fmt::format("{} thread{}", threads, threads == 1 ? "" : "s");
}

std::string peak_text(const Peak& peak, const Report& report) {
  std::string text = core::device_text(peak.device);
  if (peak.threads > 0 && report.threads.size() > 1) text += ", " + threads_text(peak.threads);
  if (peak.device.type != ATTNRT_DEVICE_CPU && !peak.device.name.empty())
    text += fmt::format(" ({})", peak.device.name);
  std::vector<std::string> parts;
  if (peak.fma) parts.push_back("FMA " + rate_text(*peak.fma) + "FLOP/s");
  if (peak.amx) parts.push_back("AMX bf16 " + rate_text(*peak.amx) + "FLOP/s");
  if (peak.copy) parts.push_back("copy " + rate_text(*peak.copy) + "B/s");
  if (peak.read) parts.push_back("read " + rate_text(*peak.read) + "B/s");
  return fmt::format(
      "{}: {}", text,
      parts.empty() ? "nothing measured" : fmt::format("{}", fmt::join(parts, ", ")));
}

namespace {

// Returns the table of one group.
Table table_of(const Report& report, const std::string& group) {
  const Columns columns = columns_of(report.problems_of(group));
  const bool several_threads = report.threads.size() > 1;
  const bool several_backends =
      std::any_of(report.comparisons.begin(), report.comparisons.end(),
                  [](const Comparison& comparison) { return comparison.measurements.size() > 1; });
  Table table;
  table.group = group, table.shared = columns.shared;
  table.head = columns.names;
  if (several_threads) table.head.emplace_back("threads");
  table.head.emplace_back("backend");
  table.text_columns = table.head.size();
  for (const char* name : kNumberNames) table.head.emplace_back(name);
  if (several_backends) table.head.emplace_back("speed");
  if (several_threads) table.head.emplace_back("scaling");

  for (size_t c = 0; c < report.comparisons.size(); ++c) {
    const Comparison& comparison = report.comparisons[c];
    if (comparison.group != group) continue;
    const auto& measurements = comparison.measurements;
    const auto first =
        std::find_if(measurements.begin(), measurements.end(),
                     [](const Measurement& m) { return m.state == State::measured; });
    for (size_t n = 0; n < measurements.size(); ++n) {
      const Measurement& m = measurements[n];
      std::vector<std::string> row = columns.cells(comparison);
      if (several_threads) row.push_back(fmt::format("{}", comparison.threads));
      row.push_back(m.backend);
      if (m.state != State::measured) {
        row.push_back(reason_text(m));
        table.rows.push_back(std::move(row));
        continue;
      }
      const Peak* peak = report.peak_of(m.device, comparison.threads);
      for (std::string& cell : number_cells(m, comparison, peak)) row.push_back(std::move(cell));
      if (several_backends) row.push_back(fmt::format("{:.2f} x", first->median() / m.median()));
      const auto scaling = report.scaling(c, n);
      if (several_threads) row.push_back(scaling ? fmt::format("{:.2f} x", *scaling) : "-");
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

}  // namespace

std::vector<Table> tables_of(const Report& report) {
  std::vector<Table> tables;
  for (const std::string& group : report.groups()) tables.push_back(table_of(report, group));
  return tables;
}

std::string conditions_text(const Report& report) {
  return fmt::format("{}, {} thread{}; medians of {} samples{}", report.processor,
                     fmt::join(report.threads, ", "), report.threads == std::vector{1} ? "" : "s",
                     report.samples, report.cold ? "; inputs not in any cache" : "");
}

std::string to_text(const Report& report) {
  std::string text =
      conditions_text(report) + "; spread: half the distance between the quartiles\n";
  for (const Peak& peak : report.peaks) text += peak_text(peak, report) + "\n";
  for (const Table& table : tables_of(report)) {
    text += fmt::format("\n{}{}{}\n", table.group.empty() ? "problems" : table.group,
                        table.shared.empty() ? "" : ": ", table.shared);
    text += aligned(table);
  }
  return text;
}

}  // namespace attnrt::cli::bench
