// runtime/conformance/children.cpp: checks the rules in child processes, which may crash
#include "conformance/children.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/file.hpp"
#include "conformance/child.hpp"

namespace attnrt::conformance {
namespace {

using core::write_all;
using nlohmann::json;
using Clock = Child::Clock;

constexpr int kBadRequest = 2;
constexpr std::string_view kOutputRule = "ROB-12", kEndRule = "ABI-13";

// The least time between two reports of progress by the child.
constexpr std::chrono::milliseconds kProgressInterval{100};

json to_json(const RuleResult& result) {
  json text = {{"rule", result.rule->id},
               {"state", static_cast<int>(result.outcome.state)},
               {"detail", result.outcome.detail},
               {"died", result.outcome.died}};
  if (result.outcome.seed) text["seed"] = *result.outcome.seed;
  return text;
}

RuleResult from_json(const json& text) {
  RuleResult result{find_rule(text.at("rule").get<std::string>()), {}};
  result.outcome.state = static_cast<State>(text.at("state").get<int>());
  result.outcome.detail = text.at("detail").get<std::string>();
  result.outcome.died = text.at("died").get<bool>();
  if (text.contains("seed")) result.outcome.seed = text.at("seed").get<uint64_t>();
  return result;
}

std::string dump(const json& text) {
  return text.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

// The time after which a child is killed that does not end.
double shorter_deadline(const Settings& settings) {
  return std::min(settings.deadline_seconds, settings.silence_seconds);
}

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// What the parent learned from one child.
struct Heard {
  const Rule* running = nullptr;  // the rule that was being checked when the child ended
  bool complete = false;          // the child said that it has checked every rule
  std::string printed;            // what was printed by the end of the last rule that it answered
};

// Takes the child's answers until it has ended.
Heard listen(Child& child, const Settings& settings, std::vector<RuleResult>& results,
             const Progress& progress) {
  const auto deadline = Clock::now() + duration_of(settings.deadline_seconds);
  Heard heard;
  const Rule*& running = heard.running;
  while (const auto line = child.next_answer(
             std::min(deadline, Clock::now() + duration_of(settings.silence_seconds)))) {
    const json answer = json::parse(*line, nullptr, false);
    try {
      if (answer.contains("start")) running = find_rule(answer["start"].get<std::string>());
      if (answer.contains("done") && answer["done"] >= 0 && running != nullptr && progress)
        progress(*running, answer["done"], answer["all"]);
      if (answer.contains("rule")) {
        RuleResult result = from_json(answer);
        running = nullptr;
        if (result.rule != nullptr && results.size() < rules().size())
          results.push_back(std::move(result));
        if (heard.printed.empty()) heard.printed = child.printed();
      }
      if (answer.contains("complete")) heard.complete = true;
      if (heard.complete) break;
    } catch (const json::exception&) {
      continue;  // not an answer: the plugin wrote to the descriptor
    }
  }
  return heard;
}

// Decides the rule on output from what the children printed.
void decide_output_rule(const std::string& printed, std::vector<RuleResult>& results) {
  for (RuleResult& result : results) {
    if (result.rule->id != kOutputRule) continue;
    if (!printed.empty()) {
      result.outcome = failed("it printed: " + printed);
    } else if (result.outcome.detail == kNeedsParent) {
      result.outcome = passed();
    }
  }
}

// Decides the rule on the end of a process by that of a child that had checked every rule.
void decide_end_rule(const Child& child, const std::string& ending, double seconds,
                     std::vector<RuleResult>& results) {
  for (RuleResult& result : results) {
    if (result.rule->id != kEndRule || result.outcome.detail != kNeedsParent) continue;
    if (child.timed_out) {
      result.outcome = failed(fmt::format("it did not end within {} s", seconds));
      result.outcome.timed_out = true;
    } else if (!child.ended_well) {
      result.outcome = failed(fmt::format("the process {} after the plugin was closed", ending));
    } else if (child.left_processes) {
      result.outcome = failed("it left a process behind");
    } else {
      result.outcome = passed();
    }
  }
}

}  // namespace

std::vector<RuleResult> check_rules_in_children(const std::string& path, const Settings& settings,
                                                const std::vector<std::string>& command,
                                                const Progress& progress) {
  std::vector<RuleResult> results;
  std::string first_printed;  // by any child. What it prints as it dies belongs to its death
  // Each child that dies adds the result of one rule. A plugin may write to the descriptor of the
  // answers, so the number of children is bounded whatever they say.
  for (size_t children = 0; children <= rules().size(); ++children) {
    json request = {{"path", path},
                    {"cases", settings.cases},
                    {"seed", settings.seed},
                    {"only", settings.only},
                    {"until_failure", settings.until_failure},
                    {"options", settings.options},
                    {"library", settings.library >= 0 ? kLibrary : -1},
                    {"before", json::array()}};
    for (const RuleResult& result : results) request["before"].push_back(to_json(result));
    Child child(command, dump(request), settings.library);
    const size_t answered = results.size();
    const Heard heard = listen(child, settings, results, progress);
    const Rule* running = heard.running;
    std::optional<Clock::time_point> deadline;
    if (!child.timed_out && !child.is_flooding)
      deadline = Clock::now() + duration_of(shorter_deadline(settings));
    const std::string ending = child.wait(deadline), printed = child.printed();
    if (first_printed.empty()) first_printed = heard.complete ? printed : heard.printed;
    if (running == nullptr) {
      if (!heard.complete) {
        throw std::runtime_error(fmt::format(
            "the child process {} {}{}{}", ending,
            results.size() > answered ? "between two rules" : "before it checked a rule",
            printed.empty() ? "" : ": ", printed));
      }
      decide_output_rule(first_printed, results);
      decide_end_rule(child, ending, shorter_deadline(settings), results);
      return results;
    }
    Outcome outcome = failed(
        child.timed_out ? fmt::format("it did not end within {} s", shorter_deadline(settings))
        : child.is_flooding
            ? "it wrote to the descriptor of its process's answers"
            : fmt::format("the process {}{}{}", ending, printed.empty() ? "" : ": ", printed));
    outcome.timed_out = child.timed_out;
    outcome.seed = settings.seed;
    outcome.died = true;
    results.push_back({running, std::move(outcome)});
    if (settings.until_failure) return results;
  }
  throw std::runtime_error("more child processes died than there are rules");
}

int serve_as_child() {
  std::string text;
  std::array<char, 4096> bytes{};
  for (ssize_t got; (got = read(kRequest, bytes.data(), bytes.size())) > 0;)
    text.append(bytes.data(), static_cast<size_t>(got));
  close(kRequest);
  fcntl(kAnswers, F_SETFD, FD_CLOEXEC);
  const json request = json::parse(text, nullptr, false);
  if (request.is_discarded()) return kBadRequest;
  // Again, since exec has undone it where the effective user is not the real one. The leader of the
  // group is the parent.
  die_with(getpgrp());
  Settings settings;
  settings.cases = request.at("cases");
  settings.seed = request.at("seed");
  settings.only = request.at("only").get<std::vector<std::string>>();
  settings.until_failure = request.at("until_failure");
  settings.options = request.at("options").get<std::vector<std::pair<std::string, std::string>>>();
  settings.library = request.at("library");
  if (settings.library >= 0) fcntl(settings.library, F_SETFD, FD_CLOEXEC);
  std::vector<RuleResult> before;
  for (const json& result : request.at("before")) before.push_back(from_json(result));
  const auto answer = [](const json& line) { write_all(kAnswers, dump(line)); };
  std::atomic<int64_t> last = 0;
  Listener listener;
  listener.started = [&](const Rule& rule) { answer(json{{"start", rule.id}}); };
  listener.finished = [&](const RuleResult& result) {
    std::fflush(nullptr);  // what the plugin printed counts, even if it is still in a buffer
    answer(to_json(result));
  };
  listener.progress = [&](const Rule&, int64_t done, int64_t all) {
    const int64_t now = Clock::now().time_since_epoch() / std::chrono::milliseconds(1);
    int64_t sent = last;
    if (now - sent < kProgressInterval.count() || !last.compare_exchange_strong(sent, now)) return;
    answer(json{{"done", done}, {"all", all}});
  };
  listener.completed = [&] {
    std::fflush(nullptr);
    answer(json{{"complete", true}});
  };
  check_rules(request.at("path"), settings, before, listener);
#if defined(__SANITIZE_ADDRESS__)
  _exit(0);  // else leaks are reported, of which some belong to the loader
#else
  std::exit(0);
#endif
}

}  // namespace attnrt::conformance
