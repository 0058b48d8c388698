// runtime/src/trace.cpp: writes decisions, plugins and policies as text and as JSON
#include "trace.hpp"

#include <algorithm>
#include <ctime>
#include <limits>

#include "base/bytes.hpp"
#include "base/text.hpp"

namespace attnrt::core {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Returns "flash 1.0.0", followed by the file if another plugin of the decision has the same name,
// version and kinds of device.
std::string unique_label(const FoundPlugin& plugin, const Decision& decision) {
  const auto is_duplicate = [&plugin](const FoundPlugin& other) {
    return &other != &plugin && twins(plugin, other);
  };
  const bool ambiguous =
      std::any_of(
          decision.verdicts.begin(), decision.verdicts.end(),
          [&](const Verdict& verdict) { return is_duplicate(*verdict.candidate.plugin); }) ||
      std::any_of(decision.excluded.begin(), decision.excluded.end(),
                  [&](const ExcludedPlugin& excluded) { return is_duplicate(*excluded.plugin); });
  return plugin_label(plugin) + (ambiguous ? " (" + plugin.path + ")" : "");
}

const char* answer_name(Answer answer) {
  switch (answer) {
    case Answer::yes: return "yes";
    case Answer::no: return "no";
    case Answer::not_asked: break;
  }
  return "not asked";
}

// Whether the candidate was judged by its manifest alone, because this machine does not have its
// device. A candidate that the policy excludes was not judged at all.
bool is_supposed(const Verdict& verdict) {
  return !verdict.candidate.backend && !verdict.out_of_memory &&
         verdict.answer != Answer::not_asked;
}

std::string reason_text(const Verdict& verdict, bool wins, const Decision& decision) {
  std::vector<std::string> notes = verdict.reasons;
  if (wins) notes.push_back(decision.why);
  if (verdict.answer == Answer::yes && verdict.staged)
    notes.emplace_back("tensors are copied to the device and back");
  if (is_supposed(verdict)) notes.emplace_back("judged by its manifest alone");
  return joined(notes);
}

Json verdict_json(const Verdict& verdict, bool wins) {
  const Manifest& manifest = *verdict.candidate.plugin->manifest;
  const Device& device = verdict.candidate.device;
  return {{"name", manifest.name},
          {"version", manifest.version_text},
          {"path", verdict.candidate.plugin->path},
          {"device", device_name(device.type)},
          {"device_id", device.id},
          {"arch", device.arch},
          {"answer", answer_name(verdict.answer)},
          {"chosen", wins},
          {"staged", verdict.staged},
          {"supposed", is_supposed(verdict)},
          {"priority", verdict.rank.priority},
          {"reasons", verdict.reasons}};
}

// "3 min": how long ago, in the largest unit of which one has passed.
std::string age_text(int64_t at_seconds) {
  const int64_t seconds =
      std::max<int64_t>(0, static_cast<int64_t>(std::time(nullptr)) - at_seconds);
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 60 * 60) return fmt::format("{} min", seconds / 60);
  if (seconds < 24 * 60 * 60) return fmt::format("{} h", seconds / (60 * 60));
  return fmt::format("{} d", seconds / (24 * 60 * 60));
}

std::string admission_text(const Admission& admission) {
  if (admission.state == Admission::State::off) return "off";
  if (admission.state == Admission::State::unknown) return "-";
  if (admission.state == Admission::State::waiting) return "running";
  return fmt::format("{}, {} ago", level_name(admission.level), age_text(admission.at_seconds));
}

Json admission_json(const Admission& admission) {
  static constexpr const char* kStates[] = {"off", "admitted", "refused", "waiting", "unknown"};
  const bool known =
      admission.state == Admission::State::admitted || admission.state == Admission::State::refused;
  return {{"state", kStates[static_cast<size_t>(admission.state)]},
          {"level", known ? Json(level_name(admission.level)) : nullptr},
          {"at_seconds", known ? Json(admission.at_seconds) : nullptr},
          {"reason", admission.reason}};
}

// "canary 1/20 (policy.yaml:4:14), 17 of 1000 clean runs"
std::string rollout_text(const RolloutReport& report) {
  const std::string count = report.count();
  return one_line(report.text() + (count.empty() ? "" : ", " + count));
}

// That of the winner, or of the version that gets a part of the calls instead.
Json rollout_of(const Decision& decision) {
  const Decision& which = decision.challenge != nullptr ? *decision.challenge : decision;
  const Rollout* rollout = which.rollout();
  return rollout != nullptr && rollout->is_open() ? rollout_json(rollout->report()) : Json(nullptr);
}

struct PolicyLine {
  std::string key, value;
  std::string source;  // where the value comes from
};

std::vector<std::string> constraint_texts(const Constraints& constraints) {
  std::vector<std::string> texts;
  for (const auto& constraint : constraints) texts.push_back(constraint.text());
  return texts;
}

void backend_lines(const std::string& name, const BackendSettings& backend,
                   std::vector<PolicyLine>& lines) {
  const std::string key = "backends." + name + ".";
  lines.push_back(
      {key + "priority", std::to_string(backend.priority.value), backend.priority.origin});
  lines.push_back(
      {key + "enabled", backend.enabled.value ? "true" : "false", backend.enabled.origin});
  if (!backend.version.value.text.empty()) {
    lines.push_back({key + "version", backend.version.value.text, backend.version.origin});
  }
  if (const auto& [rollout, origin] = backend.rollout; rollout)
    lines.push_back({key + "rollout", rollout->text(), origin});
  if (!backend.only.value.empty()) {
    lines.push_back({key + "only", "{" + joined(constraint_texts(backend.only.value), ", ") + "}",
                     backend.only.origin});
  }
  for (const auto& [option, value] : backend.options) {
    lines.push_back({key + "options." + option, value, backend.options_origin});
  }
}

void trust_lines(const TrustPolicy& trust, std::vector<PolicyLine>& lines) {
  std::vector<std::string> ids;
  for (const auto& key : trust.keys.value) ids.push_back(minisign::id_text(key.id));
  lines.push_back({"trust.keys", "[" + joined(ids, ", ") + "]", trust.keys.origin});
  if (!ids.empty()) {
    lines.push_back({"trust.signatures", trust.signatures_required.value ? "required" : "optional",
                     trust.signatures_required.origin});
  }
  for (const auto& [check, reason] : trust.allow)
    lines.push_back({"trust.allow." + check, reason.value, reason.origin});
}

void rule_line(size_t number, const Rule& rule, std::vector<PolicyLine>& lines) {
  std::string text = "when {" + joined(constraint_texts(rule.when), ", ") + "}";
  if (!rule.prefer.empty()) text += " prefer [" + joined(rule.prefer, ", ") + "]";
  if (!rule.deny.empty()) text += " deny [" + joined(rule.deny, ", ") + "]";
  lines.push_back({fmt::format("rules.{}", number), rule.name + ": " + text, rule.origin});
}

std::vector<PolicyLine> policy_lines(const Snapshot& snapshot) {
  const Config& config = *snapshot.config;
  static constexpr const char* kFallbacks[] = {"allow", "warn", "error"};
  static constexpr const char* kLevels[] = {"debug", "info", "warning", "error", "off"};
  std::vector<PolicyLine> lines;
  lines.push_back({"plugins.directories", "[" + joined(snapshot.directories, ", ") + "]",
                   snapshot.directories_origin});
  lines.push_back(
      {"plugins.load", config.load_by_path.value ? "path" : "memory", config.load_by_path.origin});
  lines.push_back({"threads", std::to_string(config.threads.value), config.threads.origin});
  lines.push_back({"staging", config.staging.value ? "allow" : "never", config.staging.origin});
  for (const auto& [name, backend] : config.backends) {
    backend_lines(name, backend, lines);
    const auto pins = config.trust.sha256.find(name);
    if (pins != config.trust.sha256.end()) {
      const auto& [hashes, origin] = pins->second;
      lines.push_back({"backends." + name + ".sha256", "[" + joined(hashes, ", ") + "]", origin});
    }
  }
  lines.push_back({"unlisted", config.unlisted.value ? "allow" : "deny", config.unlisted.origin});
  lines.push_back(
      {"default", config.default_backend.value.value_or("null"), config.default_backend.origin});
  size_t number = 0;
  for (const auto& rule : config.rules.value) rule_line(++number, rule, lines);
  lines.push_back({"on_fallback", kFallbacks[static_cast<size_t>(config.on_fallback.value)],
                   config.on_fallback.origin});
  lines.push_back(
      {"admission.level", level_name(config.admission_level.value), config.admission_level.origin});
  const std::string& registry = config.admission_registry.value;
  lines.push_back({"admission.registry", registry.empty() ? "null" : registry,
                   config.admission_registry.origin});
  lines.push_back({"admission.without_probe", name_of(config.without_probe.value),
                   config.without_probe.origin});
  lines.push_back({"plan_cache.bytes", bytes_text(config.plan_cache_bytes.value),
                   config.plan_cache_bytes.origin});
  trust_lines(config.trust, lines);
  lines.push_back({"watch", config.watch.value ? "true" : "false", config.watch.origin});
  if (config.forced_backend.value) {
    lines.push_back({"(backend)", *config.forced_backend.value, config.forced_backend.origin});
  }
  if (!config.disabled.value.empty()) {
    lines.push_back({"(disabled)", joined(config.disabled.value, ", "), config.disabled.origin});
  }
  const auto level = static_cast<size_t>(std::clamp(config.log_level.value, 0, 4));
  lines.push_back({"(log)",
                   std::string(kLevels[level]) + (config.log_decisions ? ", decision" : ""),
                   config.log_decisions ? "ATTNRT_LOG" : config.log_level.origin});
  return lines;
}

}  // namespace

std::string table(Rows rows) {
  for (auto& row : rows) {
    for (auto& cell : row) cell = one_line(cell);
  }
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t i = 0; i < row.size(); ++i)
      line += fmt::format(" {:<{}} ", row[i], i + 1 < row.size() ? widths[i] : 0);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

Json problem_json(const Problem& problem) {
  std::vector<Json::Member> words;
  for (const Word& word : vocabulary()) {
    if (word.name == "arch") continue;
    const Value value = value_of(word, problem, "");
    if (const auto* number = std::get_if<int64_t>(&value)) {
      if (word.kind == WordKind::flag)
        words.push_back({word.name, *number != 0});
      else if (*number == std::numeric_limits<int64_t>::max())
        words.push_back({word.name, nullptr});
      else
        words.push_back({word.name, *number});
    } else if (const auto* real = std::get_if<double>(&value)) {
      words.push_back({word.name, *real});
    } else {
      words.push_back({word.name, std::get<std::string>(value)});
    }
  }
  return words;
}

Json rollout_json(const RolloutReport& rollout) {
  return {{"name", rollout.name},
          {"version", rollout.version},
          {"sha256", rollout.sha256},
          {"settings", rollout.settings},
          {"origin", rollout.origin},
          {"phase", name_of(rollout.phase)},
          {"since", rollout.since},
          {"calls", rollout.calls},
          {"taken", rollout.taken},
          {"clean", rollout.clean},
          {"after", rollout.after == 0 ? Json(nullptr) : Json(rollout.after)},
          {"reason", rollout.reason}};
}

Json document(const char* kind, std::vector<Json::Member> members) {
  members.push_back({"schema", "attnrt/1"});
  members.push_back({"kind", kind});
  return members;
}

std::string decision_text(const Decision& decision) {
  std::string text = fmt::format("problem   {}\n", describe(decision.problem, decision.arch));
  if (const Verdict* winner = decision.winner()) {
    text += fmt::format(
        "decision  {} on {}: {}{}\n", unique_label(*winner->candidate.plugin, decision),
        device_text(winner->candidate.device), decision.why,
        decision.supposed ? "; judged by its manifest, this machine has no such device" : "");
  } else {
    text += fmt::format("decision  none: {}\n", status_name(decision.status));
    // If no backend supports the problem, the table says the same as the message.
    const bool table_says_it = decision.status == ATTNRT_UNSUPPORTED && decision.fallback.empty();
    if (!table_says_it) text += fmt::format("          {}\n", one_line(decision.message));
  }
  if (!decision.fallback.empty())
    text += fmt::format("fallback  passed over: {}\n", one_line(decision.fallback));
  if (const Decision* other = decision.challenge.get()) {
    text += fmt::format(
        "rollout   {} on {}: {}\n", unique_label(*other->winner()->candidate.plugin, decision),
        device_text(other->winner()->candidate.device), rollout_text(other->rollout()->report()));
  } else if (const Rollout* rollout = decision.rollout();
             rollout != nullptr && rollout->is_open()) {
    text += fmt::format("rollout   {}: {}; serves all, since nothing else can\n",
                        unique_label(*decision.winner()->candidate.plugin, decision),
                        rollout_text(rollout->report()));
  }
  Rows rows = {{"backend", "device", "priority", "answer", "reason"}};
  for (const auto& verdict : decision.verdicts) {
    const bool wins = &verdict == decision.winner();
    rows.push_back({unique_label(*verdict.candidate.plugin, decision),
                    device_text(verdict.candidate.device), std::to_string(verdict.rank.priority),
                    wins ? "chosen" : answer_name(verdict.answer),
                    reason_text(verdict, wins, decision)});
  }
  for (const auto& excluded : decision.excluded) {
    rows.push_back(
        {unique_label(*excluded.plugin, decision), "-", "-", "not asked", excluded.reason});
  }
  if (rows.size() == 1) return text + "  no plugin was found\n";
  return text + table(rows);
}

Json decision_json(const Decision& decision) {
  const Verdict* winner = decision.winner();
  std::vector<Json> candidates, others;
  for (const auto& verdict : decision.verdicts)
    candidates.push_back(verdict_json(verdict, &verdict == winner));
  for (const auto& excluded : decision.excluded) {
    const auto& manifest = excluded.plugin->manifest;
    others.push_back({{"path", excluded.plugin->path},
                      {"name", manifest ? Json(manifest->name) : nullptr},
                      {"version", manifest ? Json(manifest->version_text) : nullptr},
                      {"reason", excluded.reason}});
  }
  return document(
      "decision",
      {{"problem", problem_json(decision.problem)},
       {"arch", decision.arch},
       {"status", status_name(decision.status)},
       {"message", decision.message},
       {"why", decision.why},
       {"fallback", decision.fallback},
       {"supposed", decision.supposed},
       {"rollout", rollout_of(decision)},
       {"chosen", winner != nullptr ? Json(winner->candidate.plugin->manifest->name) : nullptr},
       {"candidates", candidates},
       {"others", others}});
}

std::string plugins_text(const Snapshot& snapshot, const std::vector<PluginRow>& rows) {
  std::string text = fmt::format("plugins in {}\n", one_line(joined(snapshot.directories, ", ")));
  if (rows.empty()) return text + "  none\n";
  Rows cells = {{"name", "version", "abi", "devices", "state", "probe", "file", "reason"}};
  for (const auto& row : rows) {
    const auto& manifest = row.plugin->manifest;
    std::vector<std::string> devices;
    for (const auto& device : row.devices) devices.push_back(device_text(device));
    if (devices.empty() && manifest) devices.push_back("(" + joined(manifest->devices, ", ") + ")");
    const bool ambiguous = std::any_of(rows.begin(), rows.end(), [&row](const PluginRow& other) {
      return &other != &row && twins(*row.plugin, *other.plugin);
    });
    const std::string file =
        ambiguous ? row.plugin->path : row.plugin->path.substr(row.plugin->path.rfind('/') + 1);
    std::string reason = row.reason;
    if (!row.plugin->present_fault.empty()) {
      reason +=
          fmt::format("{}the last good version; the file has new bytes, which do not serve: {}",
                      reason.empty() ? "" : "; ", row.plugin->present_fault);
    }
    if (!row.notes.empty()) reason += (reason.empty() ? "note: " : "; note: ") + joined(row.notes);
    cells.push_back({manifest ? manifest->name : "-", manifest ? manifest->version_text : "-",
                     manifest ? std::to_string(manifest->abi) : "-",
                     devices.empty() ? "-" : joined(devices, ", "), row.state,
                     admission_text(row.admission), file, reason});
  }
  return text + table(cells);
}

Json plugins_json(const Snapshot& snapshot, const std::vector<PluginRow>& rows) {
  std::vector<Json> plugins;
  for (const auto& row : rows) {
    const auto& manifest = row.plugin->manifest;
    const auto& key = row.plugin->grounds.signed_by;
    std::vector<Json> devices;
    for (const auto& device : row.devices) {
      devices.push_back({{"device", device_name(device.type)},
                         {"device_id", device.id},
                         {"arch", device.arch},
                         {"name", device.name},
                         {"total_memory_bytes", device.total_memory_bytes}});
    }
    const std::vector<std::string> none;
    plugins.push_back({{"path", row.plugin->path},
                       {"sha256", row.plugin->hash},
                       {"name", manifest ? Json(manifest->name) : nullptr},
                       {"version", manifest ? Json(manifest->version_text) : nullptr},
                       {"abi", manifest ? Json(manifest->abi) : nullptr},
                       {"summary", manifest ? Json(manifest->summary) : nullptr},
                       {"unloadable", manifest ? Json(manifest->unloadable) : nullptr},
                       {"for_devices", manifest ? manifest->devices : none},
                       {"needed", row.plugin->links.needed},
                       {"rpath", row.plugin->links.run_path},
                       {"signed_by", key ? Json(minisign::id_text(key->id)) : nullptr},
                       {"notes", row.notes},
                       {"devices", devices},
                       {"state", row.state},
                       {"admission", admission_json(row.admission)},
                       {"reason", row.reason},
                       {"present_fault", row.plugin->present_fault}});
  }
  return document("plugins", {{"directories", snapshot.directories}, {"plugins", plugins}});
}

std::string policy_text(const Snapshot& snapshot) {
  std::string text =
      fmt::format("policy {}\n", snapshot.policy_file.empty() ? "built-in" : snapshot.policy_file);
  Rows rows = {{"key", "value", "source"}};
  for (const auto& line : policy_lines(snapshot))
    rows.push_back({line.key, line.value, line.source});
  return text + table(rows);
}

Json policy_json(const Snapshot& snapshot) {
  std::vector<Json> values;
  for (const auto& line : policy_lines(snapshot))
    values.push_back({{"key", line.key}, {"value", line.value}, {"from", line.source}});
  return document("policy",
                  {{"file", snapshot.policy_file.empty() ? nullptr : Json(snapshot.policy_file)},
                   {"warnings", snapshot.config->warnings},
                   {"values", values}});
}

}  // namespace attnrt::core
