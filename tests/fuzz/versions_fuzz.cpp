// tests/fuzz/versions_fuzz.cpp: reads a version and a range (two lines), and compares them
#include "formats/semver.hpp"
#include "fuzz.hpp"

namespace {

using attnrt::core::Version;
using attnrt::core::VersionRange;
using attnrt::fuzz::require;

std::string printed(const Version& version) {
  std::string text = fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
  for (size_t i = 0; i < version.prerelease.size(); ++i)
    text += (i == 0 ? "-" : ".") + version.prerelease[i];
  return text;
}

void check_order(const Version& one, const Version& other) {
  require((one < other) + (one == other) + (one > other) == 1, "two versions have one order");
  require((one < other) == (other > one), "the order is the same from both sides");
}

}  // namespace

void fuzz_versions(std::string_view input) {
  using namespace attnrt::core;
  const size_t line = input.find('\n');
  const std::string_view first = input.substr(0, line);
  const std::string_view second =
      line == std::string_view::npos ? std::string_view() : input.substr(line + 1);
  const auto version = parse_version(first);
  if (!version) {
    attnrt::fuzz::require_one_line(version.error().message);
  } else {
    const auto again = parse_version(printed(*version));
    require(again && *again == *version, "a printed version is read as the same");
    check_order(*version, *again);
  }
  const auto range = parse_version_range(second);
  if (!range) return attnrt::fuzz::require_one_line(range.error().message);
  require(range->text == second && !range->comparisons.empty(), "a range keeps its text");
  std::string text;
  for (const auto& comparison : range->comparisons)
    text += (text.empty() ? "" : ", ") + comparison.operation + printed(comparison.version);
  const auto again = parse_version_range(text);
  require(again && again->comparisons.size() == range->comparisons.size(),
          "a printed range is a range");
  require(again->is_empty() == range->is_empty(), "a printed range is as empty as the first");
  std::vector<Version> samples = {{}, {1, 0, 0, {}}};
  if (version) samples.push_back(*version);
  for (const auto& comparison : range->comparisons) samples.push_back(comparison.version);
  for (const Version& sample : samples) {
    check_order(sample, samples[0]);
    require(range->contains(sample) == again->contains(sample), "both ranges contain the same");
    require(!range->contains(sample) || !range->is_empty(), "an empty range contains nothing");
  }
}
