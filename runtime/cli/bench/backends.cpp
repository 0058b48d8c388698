// runtime/cli/bench/backends.cpp: finds the backends that have a device
#include "cli/bench/backends.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/nearest.hpp"

namespace attnrt::cli::bench {
namespace {

using core::Result;

// Whether the policy lets this version serve.
bool is_admitted(const core::Config& config, const core::Manifest& manifest) {
  const auto settings = config.backends.find(manifest.name);
  const core::VersionRange range =
      settings != config.backends.end() ? settings->second.version.value : core::VersionRange{};
  return range.contains(manifest.version);
}

// Whether the runtime would choose this version rather than the other one.
bool is_better(const core::Config& config, const core::Manifest& manifest,
               const core::Manifest& than) {
  const bool admitted = is_admitted(config, manifest);
  if (admitted != is_admitted(config, than)) return admitted;
  return manifest.version > than.version;
}

// Every backend with its first device of each kind. Of several versions of a backend, the one that
// the runtime would choose.
std::vector<BackendDevice> ready_backends(const std::vector<core::PluginRow>& rows,
                                          const core::Config& config) {
  std::vector<BackendDevice> ready;
  std::vector<const core::Manifest*> manifests;  // of each of them
  for (const core::PluginRow& row : rows) {
    if (!row.plugin->manifest) continue;
    const auto& manifest = *row.plugin->manifest;
    std::vector<core::Device> devices = row.devices;
    std::stable_sort(devices.begin(), devices.end(),
                     [](const auto& a, const auto& b) { return a.id < b.id; });
    std::vector<int32_t> types;  // of this row, seen so far
    for (const core::Device& device : devices) {
      if (std::find(types.begin(), types.end(), device.type) != types.end()) continue;
      types.push_back(device.type);
      const auto known = std::find_if(ready.begin(), ready.end(), [&](const BackendDevice& other) {
        return other.name == manifest.name && other.device.type == device.type;
      });
      const BackendDevice found{manifest.name, manifest.version_text, device};
      if (known == ready.end()) {
        ready.push_back(found);
        manifests.push_back(&manifest);
        continue;
      }
      const auto** const kept = &manifests[static_cast<size_t>(known - ready.begin())];
      if (is_better(config, manifest, **kept)) *known = found, *kept = &manifest;
    }
  }
  return ready;
}

// Says why there is nothing to measure: the state of each backend that was found.
core::Error no_device(const std::vector<core::PluginRow>& rows) {
  std::string reasons;
  for (const core::PluginRow& row : rows) {
    if (!row.plugin->manifest || !row.devices.empty()) continue;
    reasons += fmt::format("{}{} ({})", reasons.empty() ? ": " : "; ", row.plugin->manifest->name,
                           row.reason);
  }
  return {ATTNRT_NOT_FOUND, "no backend has a device" + reasons};
}

// Says why a backend that was asked for cannot be measured.
core::Error not_ready(const std::string& name, const std::vector<core::PluginRow>& rows) {
  std::vector<std::string_view> names;
  for (const core::PluginRow& row : rows) {
    if (!row.plugin->manifest) continue;
    names.push_back(row.plugin->manifest->name);
    if (names.back() == name)
      return {ATTNRT_NOT_FOUND, fmt::format("backend {}: {}: {}", name, row.state, row.reason)};
  }
  return {ATTNRT_NOT_FOUND, fmt::format("there is no backend {}{}", core::shown(name),
                                        core::expected_one_of(name, names))};
}

}  // namespace

Result<std::vector<BackendDevice>> find_backends(core::Runtime& runtime,
                                                 const std::vector<std::string>& wanted) {
  const auto rows = runtime.plugins(wanted.empty());
  std::vector<BackendDevice> ready = ready_backends(rows, *runtime.snapshot()->config);
  if (wanted.empty()) {
    if (ready.empty()) return tl::unexpected(no_device(rows));
    return ready;
  }
  std::vector<BackendDevice> chosen;
  for (const std::string& name : wanted) {
    const size_t before = chosen.size();
    std::copy_if(ready.begin(), ready.end(), std::back_inserter(chosen),
                 [&](const BackendDevice& backend) { return backend.name == name; });
    if (chosen.size() == before) return tl::unexpected(not_ready(name, rows));
  }
  return chosen;
}

}  // namespace attnrt::cli::bench
