// runtime/src/trace.hpp: decisions, plugins and policies into text for people and JSON (schema "attnrt/1") for scripts
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace attnrt::core {

// Every JSON document has "schema": "attnrt/1" and "kind": decision | plugins | policy | ...
nlohmann::json document(const char* kind);

// Every word but arch; windows without bound are null.
nlohmann::json problem_json(const Problem& problem);

std::string decision_text(const Decision& decision);
nlohmann::json decision_json(const Decision& decision);

std::string plugins_text(const Snapshot& snapshot, const std::vector<PluginRow>& rows);
nlohmann::json plugins_json(const Snapshot& snapshot, const std::vector<PluginRow>& rows);

std::string policy_text(const Snapshot& snapshot);
nlohmann::json policy_json(const Snapshot& snapshot);

}  // namespace attnrt::core
