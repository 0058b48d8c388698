// runtime/cli/bench/json.hpp: a benchmark's report as JSON
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/bench/report.hpp"

namespace attnrt::cli::bench {

// Returns a document of kind "bench"; docs/json.md describes it.
nlohmann::json to_json(const Report& report);

}  // namespace attnrt::cli::bench
