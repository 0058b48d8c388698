// runtime/cli/stats.cpp: attnrt stats: shows the counters that an application saved
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/bytes.hpp"
#include "base/file.hpp"
#include "cli/command.hpp"
#include "stats_trace.hpp"

namespace attnrt::cli {
namespace {

using Document = nlohmann::json;

constexpr size_t kMostBytes = size_t{16} << 20;  // of a file; a real one has about 100 kB

// Reads the file, or stdin for "-".
core::Result<std::string> read_document(const std::string& file) {
  const std::unique_ptr<FILE, int (*)(FILE*)> opened(
      file == "-" ? nullptr : std::fopen(file.c_str(), "rbe"), [](FILE* f) { return fclose(f); });
  if (opened == nullptr && file != "-")
    return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be opened: {}", file,
                      core::errno_text());
  FILE* const stream = opened != nullptr ? opened.get() : stdin;
  std::string text;
  char part[65536];
  while (const size_t got = std::fread(part, 1, sizeof part, stream)) {
    text.append(part, got);
    if (text.size() > kMostBytes)
      return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: has more than {} bytes", file, kMostBytes);
  }
  if (std::ferror(stream) != 0)
    return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: cannot be read: {}", file, core::errno_text());
  return text;
}

// Reads the members of one object. Notes the first one that is missing or of another type.
class Members {
 public:
  Members(const Document& object, std::string path, std::string& fault)
      : object_(object), path_(std::move(path)), fault_(fault) {
    if (!object.is_object()) note(path_.substr(0, path_.size() - 1), "an object");
  }

  int64_t number(const char* name) const {
    const Document* found = find(name);
    if (found != nullptr && found->is_number_unsigned() && found->get<uint64_t>() <= INT64_MAX)
      return found->get<int64_t>();
    return note(path_ + name, "a whole number, at least 0"), 0;
  }
  // Also null, which is "".
  std::string text(const char* name) const {
    const Document* found = find(name);
    if (found != nullptr && found->is_null()) return "";
    if (found != nullptr && found->is_string()) return found->get<std::string>();
    return note(path_ + name, "text"), "";
  }
  bool flag(const char* name) const {
    const Document* found = find(name);
    if (found != nullptr && found->is_boolean()) return found->get<bool>();
    return note(path_ + name, "true or false"), false;
  }
  bool is_null(const char* name) const {
    const Document* found = find(name);
    return found != nullptr && found->is_null();
  }
  Members object(const char* name) const {
    const Document* found = find(name);
    if (found != nullptr) return {*found, path_ + name + ".", fault_};
    note(path_ + name, "an object");
    return *this;  // whose members are of no interest any more
  }
  template <class Each>
  void list(const char* name, Each&& each) const {
    const Document* found = find(name);
    if (found == nullptr || !found->is_array()) return note(path_ + name, "a list");
    size_t number = 0;
    for (const Document& item : *found)
      each(Members(item, fmt::format("{}{}[{}].", path_, name, number++), fault_));
  }

 private:
  const Document* find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(name);
    return found != object_.end() ? &*found : nullptr;
  }
  void note(const std::string& where, const char* expected) const {
    if (fault_.empty()) fault_ = fmt::format("{}: expected {}", where, expected);
  }

  const Document& object_;
  std::string path_;
  std::string& fault_;
};

core::CandidateCounts read_counts(const Members& members) {
  core::CandidateCounts counts;
  counts.plans = members.number("plans");
  counts.runs = members.number("runs");
  counts.failovers = members.number("failovers");
  const Members quarantine = members.object("quarantine");
  counts.opened = quarantine.number("opened");
  counts.trials = quarantine.number("trials");
  counts.closed = quarantine.number("closed");
  members.list("failures", [&](const Members& failure) {
    counts.failures.push_back({failure.text("stage"), failure.text("status"),
                               failure.number("count"), failure.text("last_time"),
                               failure.text("message")});
  });
  return counts;
}

core::CandidateReport read_candidate(const Members& members) {
  core::CandidateReport candidate;
  candidate.name = members.text("name");
  candidate.version = members.text("version");
  candidate.sha256 = members.text("sha256");
  candidate.device = members.text("device");
  candidate.device_id = members.number("device_id");
  candidate.arch = members.text("arch");
  candidate.present = members.flag("present");
  candidate.held_bytes = members.number("held_bytes");
  candidate.idle_bytes = members.number("idle_bytes");
  candidate.counts = read_counts(members);
  return candidate;
}

core::RolloutReport read_rollout(const Members& members, std::string& fault) {
  core::RolloutReport rollout;
  rollout.name = members.text("name");
  rollout.version = members.text("version");
  rollout.sha256 = members.text("sha256");
  rollout.settings = members.text("settings");
  rollout.origin = members.text("origin");
  rollout.since = members.text("since");
  rollout.calls = members.number("calls");
  rollout.taken = members.number("taken");
  rollout.clean = members.number("clean");
  rollout.after = members.is_null("after") ? 0 : members.number("after");
  rollout.reason = members.text("reason");
  const std::string phase = members.text("phase");
  for (const auto known : {core::Phase::shadow, core::Phase::canary, core::Phase::promoted,
                           core::Phase::rolled_back}) {
    if (phase != core::name_of(known)) continue;
    rollout.phase = known;
    return rollout;
  }
  if (fault.empty())
    fault = fmt::format(
        "rollouts: found the phase {}, expected shadow, canary, promoted or "
        "rolled back",
        core::shown(phase));
  return rollout;
}

core::Result<core::StatsReport> read_report(const std::string& file, const std::string& text) {
  const Document document = Document::parse(text, nullptr, false);
  std::string fault;
  const Members members(document, "", fault);
  if (document.is_discarded() || members.text("kind") != "stats" ||
      members.text("schema") != "attnrt/1") {
    return core::fail(ATTNRT_INVALID_ARGUMENT,
                      "{}: expected a document of schema attnrt/1 and kind stats, as ATTNRT_STATS "
                      "and attnrt_stats write it",
                      file);
  }
  core::StatsReport report;
  report.version = members.text("version");
  report.pid = members.number("pid");
  report.opened = members.text("opened");
  report.written = members.text("written");
  report.reloads = members.number("reloads");
  report.failed_reloads = members.number("failed_reloads");
  report.decisions = members.number("decisions");
  report.mapped_plugins = members.number("mapped_plugins");
  const Members decisions = members.object("decision_cache"), plans = members.object("plan_cache");
  report.decision_hits = decisions.number("hits");
  report.decision_misses = decisions.number("misses");
  report.plan_hits = plans.number("hits");
  report.plan_misses = plans.number("misses");
  report.plan_evictions = plans.number("evictions");
  report.idle_plans = plans.number("idle_plans");
  report.idle_bytes = plans.number("idle_bytes");
  members.list("rollouts", [&](const Members& rollout) {
    report.rollouts.push_back(read_rollout(rollout, fault));
  });
  members.list("candidates", [&](const Members& candidate) {
    report.candidates.push_back(read_candidate(candidate));
  });
  if (!members.is_null("earlier")) {
    const Members earlier = members.object("earlier");
    report.earlier_candidates = earlier.number("candidates");
    report.earlier = read_counts(earlier);
  }
  if (!fault.empty()) return core::fail(ATTNRT_INVALID_ARGUMENT, "{}: {}", file, fault);
  return report;
}

int stats(const Common& common, const std::string& file) {
  const auto text = read_document(file);
  if (!text) return report_error(common, text.error());
  const auto report = read_report(file, *text);
  if (!report) return report_error(common, report.error());
  if (common.json) {
    print_json(core::stats_json(*report));
  } else {
    print(core::stats_text(*report));
  }
  return exit_ok;
}

}  // namespace

void add_stats(CLI::App& app, Common& common) {
  CLI::App* command = app.add_subcommand(
      "stats", "Show the counters that an application saved: who ran, what failed, and why");
  const auto file = std::make_shared<std::string>();
  command
      ->add_option("file", *file,
                   "What ATTNRT_STATS or attnrt_stats (as JSON) wrote; -: read it from stdin")
      ->required()
      ->type_name("FILE");
  add_json_option(*command, common);
  command->callback([&common, file] {
    common.command = "stats";
    if (common.policy || common.plugins) {
      common.exit = report_error(common, exit_usage, "--policy and --plugins have no effect here");
      return;
    }
    common.exit = stats(common, *file);
  });
}

}  // namespace attnrt::cli
