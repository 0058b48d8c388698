// runtime/cli/verify/command.cpp: the command `attnrt verify`
#include "cli/command.hpp"

#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <memory>

#include "cli/verify/report.hpp"
#include "conformance/children.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

using conformance::RuleResult;
using conformance::Settings;

struct Request {
  std::string backend, plugin;
  Settings settings;
  bool in_process = false;
};

std::vector<RuleResult> check_one(const std::string& path, const Request& request, bool with_bar) {
  const ProgressBar bar(with_bar);
  const auto progress = [&bar](const conformance::Rule& rule, int64_t done, int64_t all) {
    if (done >= 0) bar.show(done, all, rule.id);
  };
  if (!request.in_process) {
    return conformance::check_rules_in_children(path, request.settings,
                                                {"/proc/self/exe", "verify-child"}, progress);
  }
  std::vector<RuleResult> results;
  conformance::Listener listener;
  listener.started = [](const conformance::Rule&) {};
  listener.finished = [&results](const RuleResult& result) { results.push_back(result); };
  listener.progress = progress;
  conformance::check_rules(path, request.settings, {}, listener);
  return results;
}

// Returns the files that were asked for: one file, the found plugins of one name, or all that are
// found.
core::Result<std::vector<std::string>> paths_of(const Common& common, const Request& request) {
  if (!request.plugin.empty()) {
    std::error_code error;
    const auto refuse = [&](const char* why) {
      return core::fail(ATTNRT_INVALID_ARGUMENT, "--plugin {}: {}", request.plugin, why);
    };
    if (!std::filesystem::exists(request.plugin, error)) return refuse("there is no such file");
    if (!std::filesystem::is_regular_file(request.plugin, error))
      return refuse("it is not a file; --plugins takes directories");
    if (!request.plugin.ends_with(".so"))
      return refuse("its name does not end in .so, as a plugin's must");
    return std::vector{request.plugin};
  }
  const std::string backend =
      request.backend.empty() ? backend_of_environment("checked") : request.backend;
  const auto runtime = open_runtime(common);
  if (!runtime) return tl::unexpected(runtime.error());
  const auto snapshot = (*runtime)->snapshot();
  std::vector<std::string> paths;
  for (const auto& entry : snapshot->entries) {
    const auto& manifest = entry->plugin->manifest;
    if (!backend.empty() && (!manifest || manifest->name != backend)) continue;
    if (entry->plugin->fault.starts_with("not trusted: ")) {
      return core::fail(ATTNRT_INVALID_ARGUMENT,
                        "{}: {}; --plugin FILE checks a file whoever may write it",
                        entry->plugin->path, entry->plugin->fault);
    }
    paths.push_back(entry->plugin->path);
  }
  if (!paths.empty()) return paths;
  return core::fail(ATTNRT_NOT_FOUND, "no plugin{} in {}",
                    backend.empty() ? "" : " named " + backend,
                    fmt::join(snapshot->directories, ", "));
}

int run_verify(const Common& common, const Request& request) {
  for (const std::string& id : request.settings.only) {
    if (conformance::find_rule(id) != nullptr) continue;
    std::vector<std::string_view> known;
    for (const auto& rule : conformance::rules()) known.push_back(rule.id);
    return report_error(common, exit_usage,
                        fmt::format("there is no rule {}, expected one of {}", core::shown(id),
                                    fmt::join(known, ", ")));
  }
  // Whoever started this command may ignore SIGCHLD, and then a child's ending would not be known.
  std::signal(SIGCHLD, SIG_DFL);
  const auto paths = paths_of(common, request);
  if (!paths) return report_error(common, paths.error());
  std::vector<core::Json> plugins;
  int64_t failures = 0;
  for (const std::string& path : *paths) {
    std::vector<RuleResult> results;
    try {
      results = check_one(path, request, !common.json);
    } catch (const std::exception& error) {
      return report_error(common, exit_failed, error.what());
    }
    failures += verify::count(results, conformance::State::failed);
    if (common.json) {
      plugins.push_back(verify::to_json(path, results, request.settings));
    } else {
      print(verify::to_text(path, results, request.settings));
    }
  }
  if (common.json) print_json(core::document("verification", {{"plugins", plugins}}));
  return failures == 0 ? exit_ok : exit_no;
}

}  // namespace

void add_verify(CLI::App& app, Common& common) {
  CLI::App* command = app.add_subcommand("verify", "Check plugins against the conformance rules");
  const auto request = std::make_shared<Request>();
  Settings& settings = request->settings;
  CLI::Option* backend = command->add_option("--backend", request->backend,
                                             "Check the found plugins of this name (default: all)");
  backend->type_name("NAME");
  command->add_option("--plugin", request->plugin, "Check this file")
      ->type_name("FILE")
      ->excludes(backend);
  command->add_option("--cases", settings.cases, "Number of random problems")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command
      ->add_option("--seed", settings.seed,
                   "Seed of the first random problem; each further one has the next seed")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 62))
      ->capture_default_str();
  command->add_option("--rule", settings.only, "Check only these rules, and those that they need")
      ->type_name("ID...");
  command
      ->add_option("--deadline", settings.deadline_seconds,
                   "Seconds after which a plugin's process is killed")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
  command->add_flag("--in-process", request->in_process, "Start no child process, for a debugger");
  add_runtime_options(*command, common);
  command->callback([&common, request] {
    common.command = "verify";
    common.exit = run_verify(common, *request);
  });

  app.add_subcommand("verify-child", "")->group("")->callback([&common] {
    common.command = "verify-child";
    common.exit = conformance::serve_as_child();
  });
}

}  // namespace attnrt::cli
