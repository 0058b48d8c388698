// runtime/cli/verify/report.hpp: the results of one plugin's rules as text and as JSON
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conformance/check_rules.hpp"

namespace attnrt::cli::verify {

// One line for each rule. A rule that failed has its detail, its effect and how to reproduce it in
// lines below.
std::string to_text(const std::string& path, const std::vector<conformance::RuleResult>& results,
                    const conformance::Settings& settings);

// The element of `plugins` in docs/json.md.
nlohmann::json to_json(const std::string& path, const std::vector<conformance::RuleResult>& results,
                       const conformance::Settings& settings);

int64_t count(const std::vector<conformance::RuleResult>& results, conformance::State state);

}  // namespace attnrt::cli::verify
