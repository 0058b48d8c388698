// runtime/cli/doctor/findings.cpp: what is wrong, and the line that mends it
#include "cli/doctor/findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "base/text.hpp"

namespace attnrt::cli::doctor {
namespace {

// The findings so far.
class List {
 public:
  void add(Severity severity, std::string what, std::string mend) {
    all_.push_back({severity, std::move(what), std::move(mend)});
  }
  std::vector<Finding> take() {
    std::stable_sort(all_.begin(), all_.end(),
                     [](const Finding& a, const Finding& b) { return a.severity < b.severity; });
    return std::move(all_);
  }

 private:
  std::vector<Finding> all_;
};

std::string label_of(const core::PluginRow& row) {
  const auto& manifest = row.plugin->manifest;
  return manifest ? manifest->name + " " + manifest->version_text : row.plugin->path;
}

bool is_for(const core::PluginRow& row, std::string_view device) {
  const auto& manifest = row.plugin->manifest;
  return manifest && std::find(manifest->devices.begin(), manifest->devices.end(), device) !=
                         manifest->devices.end();
}

void policy_findings(const Report& report, List& list) {
  if (report.policy_error.empty()) return;
  const std::string mend =
      report.policy_file.empty()
          ? "correct what it names"
          : fmt::format("`attnrt check {}` names every error of the policy", report.policy_file);
  list.add(Severity::error, "no runtime can be opened: " + report.policy_error, mend);
}

void plugin_findings(const Report& report, List& list) {
  if (report.snapshot == nullptr) return;
  for (const core::PluginRow& row : report.plugins) {
    const std::string what = fmt::format("{} is {}: {}", label_of(row), row.state, row.reason);
    if (row.state == "broken")
      list.add(Severity::warning, what, "install this file again, or remove it");
    if (row.state == "refused") {
      list.add(Severity::warning, what,
               "mend what it names, then `attnrt list --retry`; or remove the file");
    }
    if (row.state == "waiting")
      list.add(Severity::note, what, "`attnrt list --wait` waits for its probe");
    if (!row.plugin->present_fault.empty())
      list.add(Severity::warning,
               fmt::format("{}: {}", row.plugin->path, row.plugin->present_fault),
               "install this file again");
  }
  const bool any_ready = std::any_of(report.plugins.begin(), report.plugins.end(),
                                     [](const auto& row) { return row.state == "ready"; });
  if (any_ready) return;
  const std::string folders = core::joined(report.snapshot->directories, ", ");
  list.add(Severity::error,
           report.plugins.empty() ? fmt::format("there is no plugin in {}", folders)
                                  : fmt::format("no plugin in {} is ready", folders),
           "install the backend cpu there, or name its folder in ATTNRT_PLUGIN_PATH");
}

// What keeps a GPU that the driver tells of from being used. device: of attnrt. group: that may
// usually open its nodes.
void gpu_findings(const Report& report, const Gpus& gpus, const char* device, const char* maker,
                  List& list) {
  if (gpus.models.empty()) return;
  const std::string models = core::joined(gpus.models, ", ");
  bool is_usable = true;
  for (const Node& node : gpus.nodes) {
    if (node.usable) continue;
    is_usable = false;
    list.add(Severity::warning,
             fmt::format("{} is here, but this user may not open {}, which belongs to the group {}",
                         models, node.path, node.group),
             fmt::format("sudo usermod -aG {} $USER, and log in again", node.group));
  }
  if (gpus.nodes.empty()) {
    is_usable = false;
    list.add(Severity::warning, fmt::format("{} is here, but its files in /dev are not", models),
             "in a container, give it the devices: --gpus all for NVIDIA, --device /dev/kfd "
             "--device /dev/dri for AMD");
  }
  if (!is_usable || report.snapshot == nullptr) return;
  bool any = false, any_device = false;
  std::string reason;
  for (const core::PluginRow& row : report.plugins) {
    if (!is_for(row, device)) continue;
    any = true;
    any_device = any_device || row.state == "ready";
    if (row.state == "no device" && reason.empty())
      reason = fmt::format("{}: {}", label_of(row), row.reason);
  }
  if (!any) {
    list.add(Severity::warning, fmt::format("{} is here, and no plugin is for {}", models, device),
             fmt::format("install a plugin for {}'s GPUs, such as hip_flash", maker));
  } else if (!any_device && !reason.empty()) {
    list.add(Severity::warning, fmt::format("{} is here, but {}", models, reason),
             "install what it names: a driver, or a plugin with code for this architecture");
  }
}

void environment_findings(const Report& report, List& list) {
  const auto value = [&report](const char* name) -> const std::string* {
    const auto found = report.environment.find(name);
    return found != report.environment.end() ? &found->second : nullptr;
  };
  const auto note = [&](Severity severity, const char* name, const std::string& effect) {
    list.add(severity, fmt::format("{}={}: {}", name, *value(name), effect),
             fmt::format("unset {}, if that is not wanted", name));
  };
  if (const auto* backend = value("ATTNRT_BACKEND"); backend != nullptr && !backend->empty())
    note(Severity::note, "ATTNRT_BACKEND", "no other backend serves");
  if (const auto* globs = value("ATTNRT_DISABLE"); globs != nullptr && !globs->empty())
    note(Severity::note, "ATTNRT_DISABLE", "these backends do not serve");
  if (const auto* level = value("ATTNRT_ADMISSION"); level != nullptr && *level == "off")
    note(Severity::note, "ATTNRT_ADMISSION", "plugins are loaded without a probe");
  if (value("HSA_OVERRIDE_GFX_VERSION") != nullptr)
    note(Severity::warning, "HSA_OVERRIDE_GFX_VERSION",
         "code of another architecture runs on the GPU, with wrong results if they differ");
  for (const char* name : {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}) {
    const auto* devices = value(name);
    if (devices != nullptr && (devices->empty() || *devices == "-1"))
      note(Severity::warning, name, "every GPU is hidden");
  }
}

void admission_findings(const Report& report, List& list) {
  if (report.snapshot == nullptr ||
      report.snapshot->config->admission_level.value == core::AdmissionLevel::off)
    return;
  if (report.probe_program.empty()) {
    list.add(Severity::warning,
             "attnrt-probe is not installed, so that no plugin is tried before it is loaded",
             "install the whole of attnrt: libexec/attnrt/attnrt-probe belongs to it");
  }
  if (!report.registry_error.empty()) {
    list.add(Severity::warning,
             "results of probes are not kept, so that each process probes again: " +
                 report.registry_error,
             "set ATTNRT_REGISTRY to a folder of this user alone");
  }
}

void self_test_findings(const Report& report, List& list) {
  for (const SelfTest& test : report.self_tests) {
    if (test.state != SelfTest::State::failed && test.state != SelfTest::State::wrong) continue;
    list.add(Severity::error,
             fmt::format("{} {} on {} {}: {}", test.backend, test.version,
                         core::device_text(test.device),
                         test.state == SelfTest::State::wrong ? "gives a wrong result" : "fails",
                         test.reason),
             fmt::format("`attnrt verify --backend {0}` finds out more; until it is mended, set "
                         "ATTNRT_DISABLE={0}",
                         test.backend));
  }
}

}  // namespace

const char* name_of(Severity severity) {
  static constexpr const char* kNames[] = {"error", "warning", "note"};
  return kNames[static_cast<size_t>(severity)];
}

std::vector<std::string> variables_of_drivers() {
  return {"CUDA_VISIBLE_DEVICES",
          "HIP_VISIBLE_DEVICES",
          "ROCR_VISIBLE_DEVICES",
          "GPU_DEVICE_ORDINAL",
          "HSA_OVERRIDE_GFX_VERSION",
          "LD_LIBRARY_PATH",
          "LD_PRELOAD"};
}

std::vector<Finding> findings(const Report& report) {
  List list;
  policy_findings(report, list);
  plugin_findings(report, list);
  gpu_findings(report, report.machine.nvidia, "cuda", "NVIDIA", list);
  gpu_findings(report, report.machine.amd, "rocm", "AMD", list);
  admission_findings(report, list);
  self_test_findings(report, list);
  for (const std::string& warning : report.warnings)
    list.add(Severity::warning, warning, "correct what it names");
  environment_findings(report, list);
  return list.take();
}

}  // namespace attnrt::cli::doctor
