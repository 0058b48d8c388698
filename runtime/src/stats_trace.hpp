// runtime/src/stats_trace.hpp: writes counters as text and as JSON
#pragma once

#include <string>

#include "formats/json.hpp"
#include "stats.hpp"

namespace attnrt::core {

// What attnrt_stats gives and `attnrt stats` prints.
std::string stats_text(const StatsReport& report);
Json stats_json(const StatsReport& report);

}  // namespace attnrt::core
