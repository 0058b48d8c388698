// runtime/src/trace.hpp: writes decisions, plugins and policies as text and as JSON
#pragma once

#include <string>
#include <vector>

#include "formats/json.hpp"
#include "runtime.hpp"

namespace attnrt::core {

// Returns a document of one of the kinds of docs/json.md: an object with these members, "schema"
// and "kind".
Json document(const char* kind, std::vector<Json::Member> members);

// Lays out a table. Each column is as wide as its widest cell, and the last one is not padded.
// Cells become one line each: they hold names and reasons that come from files and plugins.
std::string table(std::vector<std::vector<std::string>> rows);

// Returns every word of the problem except arch. An unbounded window is null.
Json problem_json(const Problem& problem);

// Returns a rollout as documents of kind decision and stats have it.
Json rollout_json(const RolloutReport& rollout);

// Each returns what `attnrt explain` prints.
std::string decision_text(const Decision& decision);
Json decision_json(const Decision& decision);

// Each returns what `attnrt list` prints.
std::string plugins_text(const Snapshot& snapshot, const std::vector<PluginRow>& rows);
Json plugins_json(const Snapshot& snapshot, const std::vector<PluginRow>& rows);

// Each returns what `attnrt policy` prints: every value in effect, and where it comes from.
std::string policy_text(const Snapshot& snapshot);
Json policy_json(const Snapshot& snapshot);

}  // namespace attnrt::core
