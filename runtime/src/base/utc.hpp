// runtime/src/base/utc.hpp: a moment as text
#pragma once

#include <chrono>
#include <string>

namespace attnrt::core {

// Returns the moment in UTC, as ISO 8601 with milliseconds: "2026-12-01T04:28:44.071Z".
std::string utc_text(std::chrono::system_clock::time_point moment);

}  // namespace attnrt::core
