// runtime/conformance/levels.cpp: which rules a plugin must keep to be admitted
#include "conformance/levels.hpp"

namespace attnrt::conformance {
namespace {

constexpr int64_t kCases = 16;
// Seconds. GPU drivers take up to some seconds to start.
constexpr double kLoadsDeadline = 9, kConformsDeadline = 300, kConformsSilence = 30;

}  // namespace

std::optional<Settings> settings_of_level(std::string_view level, uint64_t seed) {
  Settings settings;
  settings.cases = kCases;
  settings.seed = seed;
  settings.until_failure = true;
  if (level == "loads") {
    // Not ABI-1 and ABI-2: what the manifest says to newer runtimes, and what else the library
    // exports, harms nobody.
    settings.only = {"ABI-3", "ABI-4",  "ABI-5",  "ABI-6", "ABI-7",
                     "ABI-8", "ABI-10", "ABI-12", "ABI-13"};
    settings.deadline_seconds = kLoadsDeadline;
  } else if (level == "conforms") {
    settings.deadline_seconds = kConformsDeadline;
    settings.silence_seconds = kConformsSilence;
  } else {
    return std::nullopt;
  }
  return settings;
}

}  // namespace attnrt::conformance
