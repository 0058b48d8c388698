// tests/support/candidates.hpp: makes candidates of lines such as "flash 1.2.0 rocm:0 gfx1100"
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "select.hpp"

namespace attnrt::core::support {

// The entry under `supports:` of each backend. Other names support every problem.
inline std::string entry_of(const std::string& name) {
  if (name == "flash")
    return "{dtype: [f16, bf16], head_dim: {max: 128}, features: [gqa, causal, lse]}";
  if (name == "narrow") return "{head_dim: {max: 64}}";
  if (name == "never") return "{dtype: f32, head_dim: 1}";
  return "{features: [gqa, causal, align_top_left, window, softcap, alibi, sinks, kv_lengths, "
         "varlen, paged, lse, "
         "deterministic]}";
}

inline std::shared_ptr<const FoundPlugin> found_plugin(const std::string& name,
                                                       const std::string& version,
                                                       const std::string& device,
                                                       const std::string& archs = {},
                                                       const std::string& path = {}) {
  auto plugin = std::make_shared<FoundPlugin>();
  plugin->path = path.empty() ? "plugins/" + name + "-" + version + ".so" : path;
  plugin->hash = plugin->path;  // as unique as a hash
  std::string text =
      fmt::format("name: {}\nversion: {}\nabi: 1\ndevices: [{}]\n", name, version, device);
  if (!archs.empty()) text += "archs: [" + archs + "]\n";
  text += "supports: [" + entry_of(name) + "]\n";
  auto manifest = parse_manifest(text, plugin->path);
  EXPECT_TRUE(manifest) << manifest.error().message;
  if (manifest) plugin->manifest = *std::move(manifest);
  return plugin;
}

// Makes a candidate of "name version device[:id] [arch]". It has no backend, so its manifest alone
// is judged.
inline Candidate candidate(const std::string& line) {
  std::istringstream words(line);
  std::string name, version, device, arch;
  words >> name >> version >> device >> arch;
  Device on;
  if (const size_t colon = device.find(':'); colon != std::string::npos) {
    on.id = std::stoi(device.substr(colon + 1));
    device.resize(colon);
  }
  on.type = find_device(device).value_or(ATTNRT_DEVICE_CPU);
  on.arch = arch;
  return {found_plugin(name, version, device), nullptr, on};
}

inline std::vector<Candidate> candidates(const std::vector<std::string>& lines) {
  std::vector<Candidate> all;
  for (const auto& line : lines) all.push_back(candidate(line));
  return all;
}

inline Problem problem_of(std::string_view words) {
  Problem problem = default_problem();
  std::string arch;
  const auto parsed = parse_problem(words, problem, arch);
  EXPECT_TRUE(parsed) << words << ": " << (parsed ? "" : parsed.error().message);
  const auto checked = check_problem(&problem);
  EXPECT_TRUE(checked) << words << ": " << (checked ? "" : checked.error().message);
  return checked ? *checked : problem;
}

inline Policy policy_of(const std::string& text, const Environment& environment = {},
                        const std::string& call = {}) {
  auto config = read_config(text, "policy.yaml", environment);
  EXPECT_TRUE(config) << text << ": " << (config ? "" : config.error().message);
  return {std::make_shared<const Config>(config ? *std::move(config) : Config{}), Call{call}};
}

// Removes lines and columns of config/default.yaml, which change whenever its comments do.
inline std::string without_builtin_places(std::string text) {
  const std::string place = "built-in policy:";
  for (size_t at = 0; (at = text.find(place, at)) != std::string::npos;) {
    at += place.size() - 1;
    text.erase(at, text.find_first_not_of(":0123456789", at) - at);
  }
  return text;
}

// "flash 1.2.0", or the status if there is no winner.
inline std::string outcome(const Decision& decision) {
  const Verdict* winner = decision.winner();
  if (winner == nullptr) return status_name(decision.status);
  const Manifest& manifest = *winner->candidate.plugin->manifest;
  return manifest.name + " " + manifest.version_text;
}

}  // namespace attnrt::core::support
