// runtime/cli/verify/command.cpp: attnrt verify: plugins into a table of numbered rules, each passed, failed or skipped
#include "cli/command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "conformance/rules.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

using verify::RuleResult;
using verify::Settings;
using verify::State;

struct Request {
  std::string backend, plugin;
  Settings settings;
};

// A command line that checks the failed rule on the failed case alone.
std::string reproduction(const std::string& path, const RuleResult& result,
                         const Settings& settings) {
  std::string line = fmt::format("attnrt verify --plugin {} --rule {}", path, result.rule->id);
  if (result.outcome.died)
    return line + fmt::format(" --cases {} --seed {} --in-process", settings.cases, settings.seed);
  if (result.outcome.seed) return line + fmt::format(" --cases 1 --seed {}", *result.outcome.seed);
  return line;
}

int64_t count(const std::vector<RuleResult>& results, State state) {
  return std::count_if(results.begin(), results.end(),
                       [state](const auto& r) { return r.outcome.state == state; });
}

std::string to_text(const std::string& path, const std::vector<RuleResult>& results,
                    const Settings& settings) {
  std::string text = one_line(path) + "\n";
  for (auto next = results.begin(); next != results.end();) {
    // Rules that one cause skips are one line.
    const auto last = std::find_if_not(next, results.end(), [next](const RuleResult& other) {
      return other.outcome.state == State::skipped && other.outcome.detail == next->outcome.detail;
    });
    if (last - next > 2) {
      text += fmt::format("  {} to {}: {}, {}\n", next->rule->id, (last - 1)->rule->id,
                          verify::state_name(State::skipped), one_line(next->outcome.detail));
      next = last;
      continue;
    }
    const RuleResult& result = *next++;
    const State state = result.outcome.state;
    const std::string detail = one_line(result.outcome.detail);
    text += fmt::format("  {:<7} {:<8} {}\n", result.rule->id, verify::state_name(state),
                        state == State::skipped ? detail : result.rule->requirement);
    if (state != State::failed) continue;
    text += fmt::format("{:18}{}\n", "", detail);
    text += fmt::format("{:18}so: {}\n", "", result.rule->failing);
    text += fmt::format("{:18}again: {}\n", "", one_line(reproduction(path, result, settings)));
  }
  return text + fmt::format("  {} passed, {} failed, {} skipped\n", count(results, State::passed),
                            count(results, State::failed), count(results, State::skipped));
}

nlohmann::json to_json(const std::string& path, const std::vector<RuleResult>& results,
                       const Settings& settings) {
  nlohmann::json list = nlohmann::json::array();
  for (const RuleResult& result : results) {
    nlohmann::json row = {{"id", result.rule->id},
                          {"requirement", result.rule->requirement},
                          {"state", verify::state_name(result.outcome.state)}};
    if (result.outcome.state != State::passed) row["detail"] = result.outcome.detail;
    if (result.outcome.state == State::failed) {
      row["failing"] = result.rule->failing;
      row["reproduce"] = reproduction(path, result, settings);
    }
    list.push_back(std::move(row));
  }
  return {{"path", path},
          {"rules", std::move(list)},
          {"passed", count(results, State::passed)},
          {"failed", count(results, State::failed)},
          {"skipped", count(results, State::skipped)}};
}

std::vector<RuleResult> check_one(const std::string& path, const Settings& settings,
                                  bool with_bar) {
  const ProgressBar bar(with_bar);
  const auto progress = [&bar](const verify::Rule& rule, int64_t done, int64_t all) {
    bar.show(done, all, rule.id);
  };
  if (!settings.in_process) return verify::check_rules_in_children(path, settings, progress);
  std::vector<RuleResult> results;
  verify::check_rules(
      path, settings, {},
      {[](const verify::Rule&) {},
       [&results](const RuleResult& result) { results.push_back(result); }, progress});
  return results;
}

// The files that were asked for: one, those of one name, or all that are found.
core::Result<std::vector<std::string>> paths_of(const Common& common, const Request& request) {
  if (!request.plugin.empty()) {
    std::error_code error;
    const auto refuse = [&](const char* why) {
      return core::fail(ATTNRT_INVALID_ARGUMENT, "--plugin {}: {}", request.plugin, why);
    };
    if (!std::filesystem::exists(request.plugin, error)) return refuse("there is no such file");
    if (!std::filesystem::is_regular_file(request.plugin, error))
      return refuse("it is no file; --plugins takes directories");
    if (!request.plugin.ends_with(".so"))
      return refuse("its name does not end in .so, as a plugin's does");
    return std::vector{request.plugin};
  }
  const auto runtime = open_runtime(common);
  if (!runtime) return tl::unexpected(runtime.error());
  const auto snapshot = (*runtime)->snapshot();
  std::vector<std::string> paths;
  for (const auto& entry : snapshot->entries) {
    const auto& manifest = entry->plugin->manifest;
    if (request.backend.empty() || (manifest && manifest->name == request.backend))
      paths.push_back(entry->plugin->path);
  }
  if (!paths.empty()) return paths;
  return core::fail(ATTNRT_NOT_FOUND, "no plugin{} in {}",
                    request.backend.empty() ? "" : " named " + request.backend,
                    fmt::join(snapshot->directories, ", "));
}

int run_verify(const Common& common, const Request& request) {
  for (const std::string& id : request.settings.only) {
    if (verify::find_rule(id) != nullptr) continue;
    std::vector<std::string_view> known;
    for (const auto& rule : verify::rules()) known.push_back(rule.id);
    return complain(common, exit_usage,
                    fmt::format("there is no rule {}, expected one of {}", core::shown(id),
                                fmt::join(known, ", ")));
  }
  const auto paths = paths_of(common, request);
  if (!paths) return complain(common, paths.error());
  nlohmann::json document = core::document("verification");
  document["plugins"] = nlohmann::json::array();
  int64_t failures = 0;
  for (const std::string& path : *paths) {
    std::vector<RuleResult> results;
    try {
      results = check_one(path, request.settings, !common.json);
    } catch (const std::exception& error) {
      return complain(common, exit_failed, error.what());
    }
    failures += count(results, State::failed);
    if (common.json) {
      document["plugins"].push_back(to_json(path, results, request.settings));
    } else {
      print(to_text(path, results, request.settings));
    }
  }
  if (common.json) print_json(document);
  return failures == 0 ? exit_ok : exit_no;
}

}  // namespace

void add_verify(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("verify", "Try plugins against the rules that a conforming one keeps");
  const auto request = std::make_shared<Request>();
  Settings& settings = request->settings;
  CLI::Option* backend = command->add_option("--backend", request->backend,
                                             "The found plugins of this name (default: all)");
  backend->type_name("NAME");
  command->add_option("--plugin", request->plugin, "This file")
      ->type_name("FILE")
      ->excludes(backend);
  command->add_option("--cases", settings.cases, "How many random problems")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command
      ->add_option("--seed", settings.seed,
                   "Of the first random problem; the next one has the next seed")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 62))
      ->capture_default_str();
  command->add_option("--rule", settings.only, "Only these rules, and those that they need")
      ->type_name("ID...");
  command
      ->add_option("--deadline", settings.deadline_seconds,
                   "Seconds before a plugin's process is ended")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
  command->add_flag("--in-process", settings.in_process, "No child process: for a debugger");
  add_runtime_options(*command, common);
  command->callback([&common, request] {
    common.command = "verify";
    common.exit = run_verify(common, *request);
  });

  app.add_subcommand("verify-child", "")->group("")->callback([&common] {
    common.command = "verify-child";
    common.exit = verify::serve_as_child();
  });
}

}  // namespace attnrt::cli
