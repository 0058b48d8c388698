// runtime/src/candidates.cpp: the candidates step: who may serve a problem, and why others may not
#include "candidates.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "policy.hpp"
#include "snapshot.hpp"

namespace attnrt::core {
namespace {

// What is asked, and what the policy says about it.
struct Question {
  const Snapshot& snapshot;
  const Problem& problem;
  const std::string& arch;

  bool staging() const { return snapshot.config->staging.value; }
  bool on_host() const { return problem.device_type == ATTNRT_DEVICE_CPU; }
};

bool names_device(const Manifest& manifest, std::string_view device) {
  return std::find(manifest.devices.begin(), manifest.devices.end(), device) !=
         manifest.devices.end();
}

bool fits_arch(const Device& device, const std::string& arch) {
  return arch.empty() || device.type == ATTNRT_DEVICE_CPU || arch_matches(arch, device.arch);
}

bool is_problem_device(const Device& device, const Question& question) {
  const Problem& problem = question.problem;
  return device.type == problem.device_type &&
         (device.type == ATTNRT_DEVICE_CPU || device.id == problem.device_id) &&
         fits_arch(device, question.arch);
}

// Whether a backend on this device may serve the problem: its tensors are on that device, or they
// are on the host and may be copied there. Tensors are never copied from one device to another.
bool may_serve(const Device& device, const Question& question) {
  if (device.type == question.problem.device_type) return is_problem_device(device, question);
  return question.staging() && question.on_host() && fits_arch(device, question.arch);
}

// Whether this machine has the problem's device. If it has, a backend that does not report the
// device cannot use it, and so is not judged by its manifest instead.
bool has_problem_device(const Question& question) {
  if (question.on_host()) return true;
  const Snapshot& snapshot = question.snapshot;
  for (const auto& entry : snapshot.entries) {
    const auto& plugin = *entry->plugin;
    if (!plugin.fault.empty()) continue;
    if (!names_device(*plugin.manifest, device_name(question.problem.device_type))) continue;
    if (never_serves(*snapshot.config, *plugin.manifest)) continue;
    const auto loaded = snapshot.load(*entry);
    if (!loaded) continue;
    const auto& devices = (*loaded)->devices();
    if (std::any_of(devices.begin(), devices.end(), [&question](const Device& device) {
          return is_problem_device(device, question);
        }))
      return true;
  }
  return false;
}

std::string wrong_device_reason(const Manifest& manifest, const Question& question) {
  if (manifest.devices.empty()) return "is for no device that this runtime knows";
  return fmt::format("is for {}; the tensors are on {}{}", joined(manifest.devices, ", "),
                     device_name(question.problem.device_type),
                     question.on_host() ? " (`staging: allow` in the policy would copy them)" : "");
}

std::string missing_device_reason(const Backend& backend, const Problem& problem) {
  if (!backend.no_device_reason().empty()) return "no device: " + backend.no_device_reason();
  return fmt::format("has no {} {}", device_name(problem.device_type), problem.device_id);
}

// Adds the plugin's candidates, one for each of its devices that may serve the problem, or the
// reason why it has none.
void add_plugin(const Question& question, Snapshot::Entry& entry, bool suppose_device,
                Candidates& candidates) {
  const auto& plugin = entry.plugin;
  const auto exclude = [&](std::string reason) {
    candidates.excluded.push_back({plugin, std::move(reason)});
  };
  if (!plugin->fault.empty()) return exclude(plugin->fault);
  const Manifest& manifest = *plugin->manifest;
  const Problem& problem = question.problem;
  const bool named = names_device(manifest, device_name(problem.device_type));
  const bool may_stage = question.staging() && question.on_host() && !manifest.devices.empty();
  if (!named && !may_stage) return exclude(wrong_device_reason(manifest, question));

  // A stand-in for the device, for when no backend is loaded that could report it.
  const int32_t type = named ? problem.device_type
                             : find_device(manifest.devices.front()).value_or(ATTNRT_DEVICE_CPU);
  const Device supposed{type, problem.device_id, question.arch, "", 0};
  const Snapshot& snapshot = question.snapshot;
  if (never_serves(*snapshot.config, manifest)) {
    candidates.list.push_back({plugin, nullptr, supposed});
    return;
  }
  const auto loaded = snapshot.load(entry);
  if (!loaded && loaded.error().code == ATTNRT_OUT_OF_MEMORY) {
    candidates.list.push_back({plugin, nullptr, supposed, loaded.error().message});
    return;
  }
  if (!loaded) return exclude(loaded.error().message);
  bool has_device = false;
  for (const Device& device : (*loaded)->devices()) {
    if (!may_serve(device, question)) continue;
    candidates.list.push_back({plugin, *loaded, device});
    has_device = true;
  }
  if (has_device) return;
  if (suppose_device && named) {
    candidates.list.push_back({plugin, nullptr, supposed});
  } else {
    exclude(missing_device_reason(**loaded, problem));
  }
}

}  // namespace

std::string plugin_label(const FoundPlugin& plugin) {
  return plugin.manifest ? plugin.manifest->name + " " + plugin.manifest->version_text
                         : plugin.path;
}

Candidates find_candidates(const Snapshot& snapshot, const Problem& problem,
                           const std::string& arch, bool suppose_device) {
  const Question question{snapshot, problem, arch};
  const bool may_suppose = suppose_device && !has_problem_device(question);
  Candidates candidates;
  for (const auto& entry : snapshot.entries) add_plugin(question, *entry, may_suppose, candidates);
  return candidates;
}

}  // namespace attnrt::core
