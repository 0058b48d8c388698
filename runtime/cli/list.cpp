// runtime/cli/list.cpp: attnrt list: shows every plugin that is found, and its state
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

int list(const Common& common) {
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());
  const std::vector<core::PluginRow> rows =
      (*runtime)->plugins(false);  // no warnings: the rows say it
  const auto snapshot = (*runtime)->snapshot();
  if (common.json) {
    print_json(core::plugins_json(*snapshot, rows));
  } else {
    print(core::plugins_text(*snapshot, rows));
  }
  return exit_ok;
}

}  // namespace

void add_list(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("list", "Show every plugin that is found: its version, devices and state");
  add_runtime_options(*command, common);
  command->callback([&common] {
    common.command = "list";
    common.exit = list(common);
  });
}

}  // namespace attnrt::cli
