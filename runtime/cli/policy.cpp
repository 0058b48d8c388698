// runtime/cli/policy.cpp: attnrt policy: shows the effective policy and the source of each value

#include "cli/command.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

int policy(const Common& common) {
  const auto runtime = open_runtime(common);
  if (!runtime) return report_error(common, runtime.error());
  const auto snapshot = (*runtime)->snapshot();
  if (common.json) {
    print_json(core::policy_json(*snapshot));
  } else {
    print(core::policy_text(*snapshot));
  }
  return exit_ok;
}

}  // namespace

void add_policy(CLI::App& app, Common& common) {
  CLI::App* command =
      app.add_subcommand("policy", "Show the effective policy, and where each value comes from");
  add_runtime_options(*command, common);
  command->callback([&common] {
    common.command = "policy";
    common.exit = policy(common);
  });
}

}  // namespace attnrt::cli
