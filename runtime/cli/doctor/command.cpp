// runtime/cli/doctor/command.cpp: attnrt doctor: what is here, what is wrong, and what mends it
#include "cli/command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "base/bytes.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "cli/doctor/findings.hpp"
#include "environment.hpp"
#include "own_file.hpp"
#include "probe.hpp"
#include "registry.hpp"
#include "trace.hpp"

namespace attnrt::cli {
namespace {

using core::Json;
using namespace doctor;

std::map<std::string, std::string> read_variables() {
  std::map<std::string, std::string> found;
  const auto drivers = variables_of_drivers();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    const std::string name(text.substr(0, equals));
    const bool matters = name.starts_with("ATTNRT_") ||
                         std::find(drivers.begin(), drivers.end(), name) != drivers.end();
    if (matters && equals != std::string_view::npos) found[name] = text.substr(equals + 1);
  }
  return found;
}

// Why the registry of the policy, or of the user, cannot be used; "": it can.
std::string registry_error(const core::Config& config) {
  const std::string& named = config.admission_registry.value;
  const auto folder =
      named.empty() ? core::default_registry_folder() : std::filesystem::path(named);
  if (folder.empty()) return "this user has no folder for them";
  const auto opened = core::Registry::open(folder);
  return opened ? "" : opened.error().message;
}

Report examine(const Common& common) {
  Report report;
  report.machine = read_machine();
  report.environment = read_variables();
  report.probe_program = core::probe_program();
  report.policy_file = policy_file(common).path.value_or("");
  core::RuntimeOptions options;
  options.policy_path = common.policy;
  options.plugin_path = common.plugins;
  options.never_watch = true;
  options.log = [&report](int32_t severity, const std::string& line) {
    if (severity >= ATTNRT_LOG_WARNING) report.warnings.push_back(line);
  };
  const auto runtime = core::Runtime::open(std::move(options));
  if (!runtime) {
    report.policy_error = runtime.error().message;
    return report;
  }
  report.plugins = (*runtime)->plugins(false);
  report.snapshot = (*runtime)->snapshot();
  report.registry_error = registry_error(*report.snapshot->config);
  for (size_t i = 0; i < report.plugins.size(); ++i) {
    if (report.plugins[i].state != "ready") continue;
    const auto& entry = report.snapshot->entries[i];
    for (const core::Device& device : report.plugins[i].devices)
      report.self_tests.push_back(self_test(entry->plugin, entry->backend(), device));
  }
  return report;
}

std::string gpus_text(const Gpus& gpus) {
  if (gpus.driver.empty() && gpus.models.empty()) return "none";
  std::vector<std::string> nodes;
  for (const Node& node : gpus.nodes)
    nodes.push_back(node.path + (node.usable ? "" : " (not for this user)"));
  return fmt::format("{}; driver {}{}",
                     gpus.models.empty() ? "none" : core::joined(gpus.models, ", "),
                     gpus.driver.empty() ? "not found" : gpus.driver,
                     nodes.empty() ? "" : "; " + core::joined(nodes, ", "));
}

std::string text_of(const Report& report, const std::vector<Finding>& found) {
  const Machine& machine = report.machine;
  std::string text = fmt::format(
      "attnrt     {}, plugin ABI {}.{}; {}\n"
      "system     {}; Linux {}, {}, {}\n"
      "processor  {}; {} of {} CPUs; {}; {}\n"
      "NVIDIA     {}\n"
      "AMD        {}\n"
      "policy     {}\n",
      ATTNRT_VERSION, ATTNRT_ABI_MAJOR, ATTNRT_ABI_MINOR, one_line(core::own_file()),
      machine.system, machine.kernel, machine.architecture, machine.libc, machine.processor,
      core::usable_cpus(), machine.cpus, core::bytes_text(machine.memory_bytes),
      machine.features.empty() ? "no SIMD that kernels know" : core::joined(machine.features, " "),
      gpus_text(machine.nvidia), gpus_text(machine.amd),
      report.policy_file.empty() ? "built-in" : one_line(report.policy_file));
  for (const auto& [name, value] : report.environment)
    text += fmt::format("variable   {}={}\n", one_line(name), one_line(value));
  if (report.snapshot != nullptr) text += core::plugins_text(*report.snapshot, report.plugins);
  if (!report.self_tests.empty()) {
    std::vector<std::vector<std::string>> rows = {
        {"self-test", "device", "result", "kernel", "reason"}};
    for (const SelfTest& test : report.self_tests) {
      rows.push_back({test.backend + " " + test.version, core::device_text(test.device),
                      name_of(test.state), test.kernel.empty() ? "-" : test.kernel, test.reason});
    }
    text += core::table(std::move(rows));
  }
  if (found.empty()) return text + "\nnothing is wrong\n";
  text += "\n";
  for (size_t i = 0; i < found.size(); ++i) {
    text += fmt::format("{}. {}: {}\n   mend: {}\n", i + 1, name_of(found[i].severity),
                        one_line(found[i].what), one_line(found[i].mend));
  }
  return text;
}

Json gpus_json(const Gpus& gpus) {
  std::vector<Json> nodes;
  for (const Node& node : gpus.nodes)
    nodes.push_back({{"path", node.path}, {"usable", node.usable}, {"group", node.group}});
  return {{"driver", gpus.driver.empty() ? Json(nullptr) : Json(gpus.driver)},
          {"models", gpus.models},
          {"nodes", nodes}};
}

Json json_of(const Report& report, const std::vector<Finding>& found, bool ok) {
  const Machine& machine = report.machine;
  std::vector<Json> tests, all;
  std::vector<Json::Member> variables;
  for (const SelfTest& test : report.self_tests) {
    tests.push_back({{"backend", test.backend},
                     {"version", test.version},
                     {"device", core::device_name(test.device.type)},
                     {"device_id", test.device.id},
                     {"arch", test.device.arch},
                     {"state", name_of(test.state)},
                     {"kernel", test.kernel},
                     {"reason", test.reason}});
  }
  for (const Finding& each : found) {
    all.push_back({{"severity", name_of(each.severity)}, {"what", each.what}, {"mend", each.mend}});
  }
  for (const auto& [name, value] : report.environment) variables.push_back({name, value});
  return core::document(
      "doctor",
      {{"version", ATTNRT_VERSION},
       {"plugin_abi", fmt::format("{}.{}", ATTNRT_ABI_MAJOR, ATTNRT_ABI_MINOR)},
       {"program", core::own_file()},
       {"system",
        {{"name", machine.system},
         {"kernel", machine.kernel},
         {"architecture", machine.architecture},
         {"libc", machine.libc}}},
       {"processor",
        {{"name", machine.processor},
         {"features", machine.features},
         {"cpus", machine.cpus},
         {"usable_cpus", core::usable_cpus()},
         {"memory_bytes", machine.memory_bytes}}},
       {"nvidia", gpus_json(machine.nvidia)},
       {"amd", gpus_json(machine.amd)},
       {"policy", report.policy_file.empty() ? Json(nullptr) : Json(report.policy_file)},
       {"environment", Json(std::move(variables))},
       {"plugins", report.snapshot != nullptr ? core::plugins_json(*report.snapshot, report.plugins)
                                              : Json(nullptr)},
       {"self_tests", tests},
       {"findings", all},
       {"ok", ok}});
}

int examine_and_print(const Common& common) {
  const Report report = examine(common);
  const std::vector<Finding> found = findings(report);
  const bool ok = std::none_of(found.begin(), found.end(), [](const Finding& each) {
    return each.severity == Severity::error;
  });
  if (common.json) {
    print_json(json_of(report, found, ok));
  } else {
    print(text_of(report, found));
  }
  return ok ? exit_ok : exit_no;
}

}  // namespace

void add_doctor(CLI::App& app, Common& common) {
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Show what is here, run each backend once, and say what is wrong and what mends it");
  add_runtime_options(*command, common);
  command->footer(
      "Exits with 1 if there is an error: no backend is ready, the policy is wrong, or a backend "
      "fails or is wrong.\nThe output can be pasted into a report: it names this machine's system, "
      "devices, plugins and\nvariables of attnrt and of GPU drivers, and no data.");
  command->callback([&common] {
    common.command = "doctor";
    common.exit = examine_and_print(common);
  });
}

}  // namespace attnrt::cli
