// runtime/cli/bench/json.hpp: a benchmark's report as JSON
#pragma once

#include "cli/bench/report.hpp"
#include "formats/json.hpp"

namespace attnrt::cli::bench {

// Returns a document of kind "bench"; docs/json.md describes it.
core::Json to_json(const Report& report);

}  // namespace attnrt::cli::bench
