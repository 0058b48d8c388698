// runtime/cli/verify/report.hpp: the results of one plugin's rules as text and as JSON
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conformance/check_rules.hpp"
#include "formats/json.hpp"

namespace attnrt::cli::verify {

// Returns one line for each rule, or for several that are skipped for one reason. Below a rule that
// failed stand its detail, its effect and how to reproduce it.
std::string to_text(const std::string& path, const std::vector<conformance::RuleResult>& results,
                    const conformance::Settings& settings);

// Returns one element of the list `plugins`, which docs/json.md describes.
core::Json to_json(const std::string& path, const std::vector<conformance::RuleResult>& results,
                   const conformance::Settings& settings);

int64_t count(const std::vector<conformance::RuleResult>& results, conformance::State state);

}  // namespace attnrt::cli::verify
