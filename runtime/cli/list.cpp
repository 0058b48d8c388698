// runtime/cli/list.cpp: attnrt list: shows every plugin that is found, and its state
#include <algorithm>
#include <memory>

#include "cli/command.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

struct Request {
  bool retry = false, wait = false;
};

int list(const Common& common, const Request& request) {
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());
  const auto wait = request.wait ? core::Probes::Wait::until_done : core::Probes::Wait::some_time;
  auto rows = (*runtime)->plugins(false, wait);  // no warnings: the rows say it
  if (request.retry) {
    (*runtime)->retry();
    rows = (*runtime)->plugins(false, wait);
  }
  const auto snapshot = (*runtime)->snapshot();
  if (common.json) {
    print_json(core::plugins_json(*snapshot, rows));
  } else {
    print(core::plugins_text(*snapshot, rows));
  }
  const bool refused = rows.empty() || std::any_of(rows.begin(), rows.end(), [](const auto& row) {
                         return row.state == "refused" || row.state == "broken";
                       });
  return request.wait && refused ? exit_failed : exit_ok;
}

}  // namespace

void add_list(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("list", "Show every plugin that is found: its version, devices and state");
  add_runtime_options(*command, common);
  auto request = std::make_shared<Request>();
  command->add_flag("--retry", request->retry,
                    "Probe refused plugins again, and look again for devices that are missing");
  command->add_flag("--wait", request->wait,
                    "Wait until every plugin is probed; exit with 3 if one is refused or broken, "
                    "or there is none");
  command->callback([&common, request] {
    common.command = "list";
    common.exit = list(common, *request);
  });
}

}  // namespace attnrt::cli
