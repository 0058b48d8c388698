// runtime/cli/bench/table.cpp: a benchmark's report into a table for people and JSON for scripts
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench/bench.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

std::string value_text(const core::Word& word, const core::Problem& problem) {
  return core::to_text(word, core::value_of(word, problem, ""));
}

// Columns that are as wide as they must be.
std::string aligned(const Table& table) {
  std::vector<size_t> widths;
  for (const std::string& cell : table.head) widths.push_back(cell.size());
  const auto is_sentence = [&](const auto& row, size_t n) {
    return n + 1 == row.size() && n + 1 < widths.size();
  };
  for (const auto& row : table.rows)
    for (size_t n = 0; n < row.size(); ++n)
      if (!is_sentence(row, n)) widths[n] = std::max(widths[n], row[n].size());
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t n = 0; n < row.size(); ++n) {
      const std::string gap = n == 0 ? "" : "  ";
      line += gap + (is_sentence(row, n) ? row[n]
                     : n < table.left    ? fmt::format("{:<{}}", row[n], widths[n])
                                         : fmt::format("{:>{}}", row[n], widths[n]));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add(table.head);
  for (const auto& row : table.rows) add(row);
  return text;
}

std::string percent(std::optional<double> part) {
  return part ? fmt::format("{:.0f} %", 100 * *part) : "-";
}

nlohmann::json number(std::optional<double> value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json device_json(const core::Device& device) {
  return {
      {"device", core::device_name(device.type)}, {"device_id", device.id}, {"arch", device.arch}};
}

nlohmann::json measurement_json(const Measurement& m, const Comparison& result, const Peak* peak) {
  nlohmann::json json = device_json(m.device);
  json["threads"] = result.threads;
  json["backend"] = m.backend;
  json["version"] = m.version;
  json["kernel"] = m.kernel;
  json["state"] = state_name(m.state);
  json["reason"] = m.reason;
  json["checked"] = m.checked;
  json["time"] = nullptr;
  for (const char* name : {"flop_s", "bytes_s", "of_compute", "of_memory"}) json[name] = nullptr;
  if (m.state != State::measured) return json;
  json["time"] = {{"samples", m.seconds.size()},
                  {"runs", m.runs},
                  {"clock", m.device_clock ? "device" : "host"},
                  {"median_us", m.median() * 1e6},
                  {"quartile_low_us", m.quantile(0.25) * 1e6},
                  {"quartile_high_us", m.quantile(0.75) * 1e6},
                  {"fastest_us", m.seconds.front() * 1e6}};
  const Shares shares = shares_of(m, result, peak);
  json["flop_s"] = result.work.flop / m.median();
  json["bytes_s"] = result.work.bytes / m.median();
  json["of_compute"] = number(shares.compute);
  json["of_memory"] = number(shares.memory);
  return json;
}

}  // namespace

Shares shares_of(const Measurement& m, const Comparison& result, const Peak* peak) {
  if (peak == nullptr || m.state != State::measured) return {};
  const auto share = [&](double amount, std::optional<double> best) {
    return best ? std::optional(amount / m.median() / *best) : std::nullopt;
  };
  return {share(result.work.flop, peak->compute(result.problem.dtype)),
          share(result.work.bytes, peak->memory())};
}

Columns columns_of(const std::vector<core::Problem>& problems) {
  Columns columns;
  const auto all = [&](auto&& holds) {
    return std::all_of(problems.begin(), problems.end(), holds);
  };
  const auto alike = [&](std::string_view one, std::string_view two) {
    return all([&](const core::Problem& problem) {
      return value_text(*core::find_word(one), problem) ==
             value_text(*core::find_word(two), problem);
    });
  };
  const bool one_seq = alike("seq_q", "seq_kv"), one_count = alike("heads_q", "heads_kv");
  for (const core::Word& word : core::vocabulary()) {
    if (word.name == "device" || word.name == "arch" || word.name == "mask_dtype" ||
        word.name == "alignment_bytes" || (word.name == "seq_kv" && one_seq) ||
        (word.name == "heads_kv" && one_count) ||
        (word.name == "head_dim_v" && alike("head_dim", "head_dim_v")) ||
        (word.name == "scale" &&
         all([](const core::Problem& problem) { return problem.scale == 0; })))
      continue;
    std::string name(word.name);
    if (name == "seq_q" && one_seq) name = "seq";
    if (name == "heads_q" && one_count) name = "heads";
    const std::string first = problems.empty() ? "" : value_text(word, problems.front());
    if (!all([&](const core::Problem& problem) { return value_text(word, problem) == first; })) {
      columns.words.push_back(&word), columns.names.push_back(name);
    } else if (first != value_text(word, core::default_problem()) || name == "dtype" ||
               name == "batch") {
      columns.shared += fmt::format("{}{}={}", columns.shared.empty() ? "" : " ", name, first);
    }
  }
  return columns;
}

std::string Columns::text(const core::Problem& problem) const {
  std::string text;
  const std::vector<std::string> values = cells(problem);
  for (size_t n = 0; n < values.size(); ++n)
    text += fmt::format("{}{}={}", n == 0 ? "" : " ", names[n], values[n]);
  return text;
}

std::vector<std::string> Columns::cells(const core::Problem& problem) const {
  std::vector<std::string> cells;
  for (const core::Word* word : words) cells.push_back(value_text(*word, problem));
  return cells;
}

std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.1f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

std::string rate_text(double per_second) {
  constexpr std::array kPrefixes = {"", "k", "M", "G", "T", "P"};
  size_t n = 0;
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

Table table_of(const Report& report) {
  const Columns columns = columns_of(report.problems());
  const bool scaled = report.threads.size() > 1;
  Table table{columns.names, {}, columns.names.size() + (scaled ? 2 : 1)};
  if (scaled) table.head.emplace_back("threads");
  for (const char* name : {"backend", "time", "+-", "FLOP/s", "of peak", "B/s", "of memory"})
    table.head.emplace_back(name);
  const bool several =
      std::any_of(report.comparisons.begin(), report.comparisons.end(),
                  [](const Comparison& result) { return result.measurements.size() > 1; });
  if (several) table.head.emplace_back("speed");
  if (scaled) table.head.emplace_back("scaling");
  for (size_t c = 0; c < report.comparisons.size(); ++c) {
    const Comparison& result = report.comparisons[c];
    const auto first =
        std::find_if(result.measurements.begin(), result.measurements.end(),
                     [](const Measurement& m) { return m.state == State::measured; });
    for (size_t n = 0; n < result.measurements.size(); ++n) {
      const Measurement& m = result.measurements[n];
      std::vector<std::string> row = columns.cells(result.problem);
      if (scaled) row.push_back(fmt::format("{}", result.threads));
      row.push_back(m.backend);
      if (m.state == State::measured) {
        const Shares shares = shares_of(m, result, report.peak_of(m.device, result.threads));
        const double median = m.median();
        row.push_back(time_text(median));
        row.push_back(
            fmt::format("{:.0f} %", 100 * (m.quantile(0.75) - m.quantile(0.25)) / 2 / median));
        row.push_back(rate_text(result.work.flop / median));
        row.push_back(percent(shares.compute));
        row.push_back(rate_text(result.work.bytes / median));
        row.push_back(percent(shares.memory));
        if (several) row.push_back(fmt::format("{:.2f} x", first->median() / median));
        const auto scaling = report.scaling(c, n);
        if (scaled) row.push_back(scaling ? fmt::format("{:.2f} x", *scaling) : "-");
      } else {
        const char* what = m.state == State::unsupported ? "no"
                           : m.state == State::wrong     ? "WRONG"
                                                         : "FAILED";
        row.push_back(fmt::format("{}: {}", what, m.reason));
      }
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

std::string conditions_text(const Report& report) {
  return fmt::format("{}, {}{}; medians of {} samples{}", report.processor,
                     fmt::join(report.threads, ", "),
                     report.threads == std::vector{1} ? " thread" : " threads", report.samples,
                     report.cold ? ", inputs out of no cache" : "");
}

std::string to_text(const Report& report) {
  std::string text = conditions_text(report) + "; +- half the quartiles' distance\n";
  for (const Peak& peak : report.peaks) text += peak_text(peak, report) + "\n";
  if (const std::string shared = columns_of(report.problems()).shared; !shared.empty())
    text += fmt::format("problems: {}\n", shared);
  return text + "\n" + aligned(table_of(report));
}

nlohmann::json to_json(const Report& report) {
  nlohmann::json document = core::document("bench");
  document["version"] = ATTNRT_VERSION;
  document["processor"] = report.processor;
  document["threads"] = report.threads.front();
  document["thread_counts"] = report.threads;
  document["cold"] = report.cold;
  document["ok"] =
      report.count(State::failed) + report.count(State::wrong) == 0 && !report.has_unserved();
  document["peaks"] = nlohmann::json::array();
  for (const Peak& peak : report.peaks) {
    nlohmann::json json = device_json(peak.device);
    json["threads"] = peak.threads > 0 ? nlohmann::json(peak.threads) : nlohmann::json();
    json["name"] = peak.device.name;
    json["fma_flop_s"] = number(peak.fma);
    json["amx_bf16_flop_s"] = number(peak.amx);
    json["copy_bytes_s"] = number(peak.copy);
    json["read_bytes_s"] = number(peak.read);
    document["peaks"].push_back(std::move(json));
  }
  document["problems"] = nlohmann::json::array();
  for (size_t c = 0; c < report.comparisons.size(); ++c) {
    const Comparison& result = report.comparisons[c];
    if (c % report.threads.size() == 0)
      document["problems"].push_back({{"problem", core::problem_json(result.problem)},
                                      {"flop", result.work.flop},
                                      {"bytes", result.work.bytes},
                                      {"measurements", nlohmann::json::array()}});
    for (const Measurement& m : result.measurements)
      document["problems"].back()["measurements"].push_back(
          measurement_json(m, result, report.peak_of(m.device, result.threads)));
  }
  return document;
}

}  // namespace attnrt::cli::bench
