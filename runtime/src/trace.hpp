// runtime/src/trace.hpp: writes decisions, plugins and policies as text and as JSON
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace attnrt::core {

// Starts a JSON document: {"schema": "attnrt/1", "kind": kind}. The kinds are in docs/json.md.
nlohmann::json document(const char* kind);

// Returns every word of the problem except arch. An unbounded window is null.
nlohmann::json problem_json(const Problem& problem);

// Each returns what `attnrt explain` prints.
std::string decision_text(const Decision& decision);
nlohmann::json decision_json(const Decision& decision);

// Each returns what `attnrt list` prints.
std::string plugins_text(const Snapshot& snapshot, const std::vector<PluginRow>& rows);
nlohmann::json plugins_json(const Snapshot& snapshot, const std::vector<PluginRow>& rows);

// Each returns what `attnrt policy` prints: every value in effect, and where it comes from.
std::string policy_text(const Snapshot& snapshot);
nlohmann::json policy_json(const Snapshot& snapshot);

}  // namespace attnrt::core
