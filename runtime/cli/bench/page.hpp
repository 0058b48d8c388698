// runtime/cli/bench/page.hpp: a benchmark's report as an HTML page with plots
#pragma once

#include <string>

#include "cli/bench/report.hpp"

namespace attnrt::cli::bench {

// Returns a document that needs no other file.
std::string to_page(const Report& report);

}  // namespace attnrt::cli::bench
