// runtime/cli/bench/json.cpp: writes a benchmark's report as JSON for scripts
#include "cli/bench/json.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "cli/bench/table.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

using core::Json;
using Members = std::vector<Json::Member>;

Members device_members(const core::Device& device) {
  return {
      {"device", core::device_name(device.type)}, {"device_id", device.id}, {"arch", device.arch}};
}

Json measurement_json(const Measurement& m, const Comparison& comparison, const Peak* peak) {
  Json time = nullptr, flop_s = nullptr, bytes_s = nullptr, kv_bytes_s = nullptr;
  Shares shares;
  if (m.state == State::measured) {
    time = {{"samples", m.seconds.size()},
            {"runs", m.runs},
            {"clock", m.device_clock ? "device" : "host"},
            {"median_us", m.median() * 1e6},
            {"quartile_low_us", m.quantile(0.25) * 1e6},
            {"quartile_high_us", m.quantile(0.75) * 1e6},
            {"fastest_us", m.seconds.front() * 1e6}};
    flop_s = comparison.work.flop / m.median();
    bytes_s = comparison.work.bytes / m.median();
    kv_bytes_s = comparison.work.kv_bytes / m.median();
    shares = shares_of(m, comparison, peak);
  }
  Members members = device_members(m.device);
  members.insert(members.end(), {{"threads", comparison.threads},
                                 {"backend", m.backend},
                                 {"version", m.version},
                                 {"kernel", m.kernel},
                                 {"state", state_name(m.state)},
                                 {"reason", m.reason},
                                 {"checked", m.checked},
                                 {"time", time},
                                 {"flop_s", flop_s},
                                 {"bytes_s", bytes_s},
                                 {"kv_bytes_s", kv_bytes_s},
                                 {"of_compute", shares.compute},
                                 {"of_memory", shares.memory}});
  return members;
}

Json peak_json(const Peak& peak) {
  Members members = device_members(peak.device);
  members.insert(members.end(), {{"threads", peak.threads > 0 ? Json(peak.threads) : nullptr},
                                 {"name", peak.device.name},
                                 {"fma_flop_s", peak.fma},
                                 {"amx_bf16_flop_s", peak.amx},
                                 {"copy_bytes_s", peak.copy},
                                 {"read_bytes_s", peak.read}});
  return members;
}

// One problem: its comparisons, one for each thread count.
Json problem_json(const Report& report, std::span<const Comparison> comparisons) {
  std::vector<Json> measurements;
  for (const Comparison& comparison : comparisons) {
    for (const Measurement& m : comparison.measurements)
      measurements.push_back(
          measurement_json(m, comparison, report.peak_of(m.device, comparison.threads)));
  }
  const Comparison& first = comparisons.front();
  return {{"group", first.group.empty() ? Json(nullptr) : Json(first.group)},
          {"problem", core::problem_json(first.problem)},
          {"lengths", lengths_text(first.lengths)},
          {"flop", first.work.flop},
          {"bytes", first.work.bytes},
          {"kv_bytes", first.work.kv_bytes},
          {"measurements", measurements}};
}

}  // namespace

Json to_json(const Report& report) {
  std::vector<Json> peaks, problems;
  for (const Peak& peak : report.peaks) peaks.push_back(peak_json(peak));
  const std::span<const Comparison> all = report.comparisons;
  for (size_t first = 0; first < all.size(); first += report.threads.size()) {
    problems.push_back(problem_json(
        report, all.subspan(first, std::min(report.threads.size(), all.size() - first))));
  }
  return core::document("bench",
                        {{"version", ATTNRT_VERSION},
                         {"processor", report.processor},
                         {"threads", report.threads.front()},
                         {"thread_counts", report.threads},
                         {"cold", report.cold},
                         {"ok", report.count(State::failed) + report.count(State::wrong) == 0 &&
                                    !report.has_unserved()},
                         {"peaks", peaks},
                         {"problems", problems}});
}

}  // namespace attnrt::cli::bench
