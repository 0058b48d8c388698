// runtime/src/config_rollout.hpp: the policy's `backends.NAME.rollout`
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "formats/semver.hpp"
#include "formats/yaml.hpp"

namespace attnrt::core {

// A part of the calls: numerator of every denominator calls.
struct Share {
  static constexpr int64_t kMost = 1'000'000;  // of numerator and denominator
  int64_t numerator = 1, denominator = 1;
  std::string text() const { return fmt::format("{}/{}", numerator, denominator); }
  bool operator==(const Share&) const = default;
};

// Which versions of a backend get a part of the calls first, and how.
struct RolloutSettings {
  VersionRange version;                 // the new ones
  std::optional<Share> shadow, canary;  // at least one of them
  std::optional<int64_t> after;         // clean runs that end a phase; absent: none do
  std::string text() const;             // "version >=1.3, shadow 1/1000, canary 1/20, after 1000"
  bool operator==(const RolloutSettings& other) const { return text() == other.text(); }
};

// Reads the map. what: its full name in messages. Absent if the value is null or has errors.
std::optional<RolloutSettings> read_rollout(const yaml::Node& map, const std::string& what,
                                            Errors& errors);

}  // namespace attnrt::core
