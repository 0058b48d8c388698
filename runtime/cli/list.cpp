// runtime/cli/list.cpp: attnrt list: shows every plugin that is found, and its state
#include <memory>

#include "cli/command.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

int list(const Common& common, bool retry) {
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());
  std::vector<core::PluginRow> rows = (*runtime)->plugins(false);  // no warnings: the rows say it
  if (retry) {
    (*runtime)->retry();
    rows = (*runtime)->plugins(false);
  }
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
  auto retry = std::make_shared<bool>(false);
  command->add_flag("--retry", *retry,
                    "Look a second time for devices that are missing, in the same process");
  command->callback([&common, retry] {
    common.command = "list";
    common.exit = list(common, *retry);
  });
}

}  // namespace attnrt::cli
