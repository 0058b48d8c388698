// runtime/cli/bench/json.cpp: writes a benchmark's report as JSON for scripts
#include "cli/bench/json.hpp"

#include <nlohmann/json.hpp>

#include "cli/bench/table.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

// Absent numbers are null.
nlohmann::json number(std::optional<double> value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json device_json(const core::Device& device) {
  return {
      {"device", core::device_name(device.type)}, {"device_id", device.id}, {"arch", device.arch}};
}

nlohmann::json measurement_json(const Measurement& m, const Comparison& comparison,
                                const Peak* peak) {
  nlohmann::json json = device_json(m.device);
  json["threads"] = comparison.threads;
  json["backend"] = m.backend;
  json["version"] = m.version;
  json["kernel"] = m.kernel;
  json["state"] = state_name(m.state);
  json["reason"] = m.reason;
  json["checked"] = m.checked;
  for (const char* name : {"time", "flop_s", "bytes_s", "of_compute", "of_memory"})
    json[name] = nullptr;
  if (m.state != State::measured) return json;
  json["time"] = {{"samples", m.seconds.size()},
                  {"runs", m.runs},
                  {"clock", m.device_clock ? "device" : "host"},
                  {"median_us", m.median() * 1e6},
                  {"quartile_low_us", m.quantile(0.25) * 1e6},
                  {"quartile_high_us", m.quantile(0.75) * 1e6},
                  {"fastest_us", m.seconds.front() * 1e6}};
  const Shares shares = shares_of(m, comparison, peak);
  json["flop_s"] = comparison.work.flop / m.median();
  json["bytes_s"] = comparison.work.bytes / m.median();
  json["of_compute"] = number(shares.compute);
  json["of_memory"] = number(shares.memory);
  return json;
}

nlohmann::json peak_json(const Peak& peak) {
  nlohmann::json json = device_json(peak.device);
  json["threads"] = peak.threads > 0 ? nlohmann::json(peak.threads) : nlohmann::json();
  json["name"] = peak.device.name;
  json["fma_flop_s"] = number(peak.fma);
  json["amx_bf16_flop_s"] = number(peak.amx);
  json["copy_bytes_s"] = number(peak.copy);
  json["read_bytes_s"] = number(peak.read);
  return json;
}

}  // namespace

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
  for (const Peak& peak : report.peaks) document["peaks"].push_back(peak_json(peak));
  document["problems"] = nlohmann::json::array();
  for (size_t c = 0; c < report.comparisons.size(); ++c) {
    const Comparison& comparison = report.comparisons[c];
    if (c % report.threads.size() == 0)  // the first thread count of the next problem
      document["problems"].push_back({{"problem", core::problem_json(comparison.problem)},
                                      {"flop", comparison.work.flop},
                                      {"bytes", comparison.work.bytes},
                                      {"measurements", nlohmann::json::array()}});
    for (const Measurement& m : comparison.measurements)
      document["problems"].back()["measurements"].push_back(
          measurement_json(m, comparison, report.peak_of(m.device, comparison.threads)));
  }
  return document;
}

}  // namespace attnrt::cli::bench
