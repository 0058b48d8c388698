// runtime/src/stats_trace.cpp: writes counters as text and as JSON
#include "stats_trace.hpp"

#include <vector>

#include "base/bytes.hpp"
#include "trace.hpp"

namespace attnrt::core {
namespace {

using Rows = std::vector<std::vector<std::string>>;

Json failure_json(const FailureReport& failure) {
  return {{"stage", failure.stage},
          {"status", failure.status},
          {"count", failure.count},
          {"last_time", failure.last_time.empty() ? nullptr : Json(failure.last_time)},
          {"message", failure.message}};
}

std::vector<Json::Member> counts_json(const CandidateCounts& counts) {
  std::vector<Json> failures;
  for (const FailureReport& each : counts.failures) failures.push_back(failure_json(each));
  return {{"plans", counts.plans},
          {"runs", counts.runs},
          {"failovers", counts.failovers},
          {"failures", failures},
          {"quarantine",
           {{"opened", counts.opened}, {"trials", counts.trials}, {"closed", counts.closed}}}};
}

Json candidate_json(const CandidateReport& candidate) {
  std::vector<Json::Member> members = counts_json(candidate.counts);
  members.push_back({"name", candidate.name});
  members.push_back({"version", candidate.version});
  members.push_back({"sha256", candidate.sha256});
  members.push_back({"device", candidate.device});
  members.push_back({"device_id", candidate.device_id});
  members.push_back({"arch", candidate.arch});
  members.push_back({"present", candidate.present});
  members.push_back({"held_bytes", candidate.held_bytes});
  members.push_back({"idle_bytes", candidate.idle_bytes});
  return members;
}

int64_t failures_of(const CandidateCounts& counts) {
  uint64_t sum = 0;  // wraps if a file that somebody else wrote has nonsense
  for (const FailureReport& each : counts.failures) sum += static_cast<uint64_t>(each.count);
  return static_cast<int64_t>(sum);
}

std::string device_of(const CandidateReport& candidate) {
  std::string text = candidate.device;
  if (candidate.device != "cpu") text += fmt::format(":{}", candidate.device_id);
  return candidate.arch.empty() ? text : text + " " + candidate.arch;
}

// The label and the numbers of one row.
std::vector<std::string> row_of(const std::string& label, const std::string& device,
                                const CandidateCounts& counts) {
  return {label,
          device,
          std::to_string(counts.plans),
          std::to_string(counts.runs),
          std::to_string(failures_of(counts)),
          std::to_string(counts.failovers),
          std::to_string(counts.opened),
          std::to_string(counts.trials),
          std::to_string(counts.closed)};
}

std::string label_of(const CandidateReport& candidate) {
  return fmt::format("{} {} {}", candidate.name, candidate.version,
                     candidate.sha256.substr(0, 12));  // enough to tell files apart
}

void add_failure_rows(const std::string& label, const std::string& device,
                      const CandidateCounts& counts, Rows& rows) {
  for (const FailureReport& each : counts.failures) {
    rows.push_back({label, device, each.stage, each.status, std::to_string(each.count),
                    each.last_time.empty() ? "-" : each.last_time,
                    each.message.empty() ? "-" : each.message});
  }
}

void add_rollouts(const StatsReport& report, std::string& text) {
  if (report.rollouts.empty()) return;
  Rows rows = {
      {"rollout", "phase", "calls", "taken", "clean", "of", "since", "reason", "settings"}};
  for (const RolloutReport& each : report.rollouts) {
    rows.push_back({fmt::format("{} {} {}", each.name, each.version, each.sha256.substr(0, 12)),
                    name_of(each.phase), std::to_string(each.calls), std::to_string(each.taken),
                    std::to_string(each.clean), each.after == 0 ? "-" : std::to_string(each.after),
                    each.since, each.reason.empty() ? "-" : each.reason,
                    fmt::format("{} ({})", each.settings, each.origin)});
  }
  text += table(rows);
}

std::string earlier_label(const StatsReport& report) {
  return fmt::format("({} earlier ones)", report.earlier_candidates);
}

}  // namespace

Json stats_json(const StatsReport& report) {
  std::vector<Json> candidates;
  for (const CandidateReport& each : report.candidates) candidates.push_back(candidate_json(each));
  std::vector<Json> rollouts;
  for (const RolloutReport& each : report.rollouts) rollouts.push_back(rollout_json(each));
  std::vector<Json::Member> earlier = counts_json(report.earlier);
  earlier.push_back({"candidates", report.earlier_candidates});
  return document(
      "stats",
      {{"version", report.version},
       {"pid", report.pid},
       {"opened", report.opened},
       {"written", report.written},
       {"reloads", report.reloads},
       {"failed_reloads", report.failed_reloads},
       {"decisions", report.decisions},
       {"mapped_plugins", report.mapped_plugins},
       {"decision_cache", {{"hits", report.decision_hits}, {"misses", report.decision_misses}}},
       {"plan_cache",
        {{"hits", report.plan_hits},
         {"misses", report.plan_misses},
         {"evictions", report.plan_evictions},
         {"idle_plans", report.idle_plans},
         {"idle_bytes", report.idle_bytes}}},
       {"candidates", candidates},
       {"rollouts", rollouts},
       {"earlier", report.earlier_candidates == 0 ? Json(nullptr) : Json(earlier)}});
}

std::string stats_text(const StatsReport& report) {
  std::string text = fmt::format(
      "process    {}, attnrt {}; opened {}, written {}\n"
      "reloads    {}, and {} failed; mapped plugins: {}\n"
      "decisions  {}; cache: {} hits, {} misses\n"
      "plans      cache: {} hits, {} misses, {} evictions; {} idle plans hold {}\n",
      report.pid, one_line(report.version), one_line(report.opened), one_line(report.written),
      report.reloads, report.failed_reloads, report.mapped_plugins, report.decisions,
      report.decision_hits, report.decision_misses, report.plan_hits, report.plan_misses,
      report.plan_evictions, report.idle_plans, bytes_text(report.idle_bytes));
  add_rollouts(report, text);
  if (report.candidates.empty() && report.earlier_candidates == 0)
    return text + "  no candidate has planned or failed\n";
  Rows rows = {{"candidate", "device", "plans", "runs", "failures", "failovers", "quarantined",
                "trials", "recovered", "holds", "idle", "file"}};
  Rows failures = {{"failed", "device", "in", "with", "times", "last", "message of the last"}};
  for (const CandidateReport& each : report.candidates) {
    const std::string label = label_of(each), device = device_of(each);
    rows.push_back(row_of(label, device, each.counts));
    for (const std::string& cell : {bytes_text(each.held_bytes), bytes_text(each.idle_bytes),
                                    std::string(each.present ? "present" : "gone")})
      rows.back().push_back(cell);
    add_failure_rows(label, device, each.counts, failures);
  }
  if (report.earlier_candidates != 0) {
    rows.push_back(row_of(earlier_label(report), "-", report.earlier));
    for (const char* cell : {"-", "-", "gone"}) rows.back().emplace_back(cell);
    add_failure_rows(earlier_label(report), "-", report.earlier, failures);
  }
  text += table(rows);
  return failures.size() == 1 ? text : text + table(failures);
}

}  // namespace attnrt::core
