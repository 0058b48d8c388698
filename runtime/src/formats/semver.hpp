// runtime/src/formats/semver.hpp: semantic versions (semver.org 2.0.0) and ranges of them
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace attnrt::core {

struct Version {
  int64_t major = 0, minor = 0, patch = 0;
  std::vector<std::string> prerelease;  // its identifiers ("rc", "1"); build metadata is dropped
  std::weak_ordering operator<=>(const Version& other) const;
  bool operator==(const Version& other) const { return (*this <=> other) == 0; }
};

Result<Version> parse_version(std::string_view text);  // exactly MAJOR.MINOR.PATCH[-pre][+build]

// A range such as ">=1.0, <2": all comparisons (>=, >, <=, <, =) must hold; a missing minor or
// patch is 0. It contains a pre-release only if one of its comparisons names a pre-release of the
// same MAJOR.MINOR.PATCH.
struct VersionRange {
  struct Comparison {
    std::string operation;
    Version version;
  };
  std::vector<Comparison> comparisons;  // none: the range contains every release
  std::string text;
  bool contains(const Version& version) const;
  bool is_empty() const;  // whether no version can be in it
};

Result<VersionRange> parse_version_range(std::string_view text);

}  // namespace attnrt::core
