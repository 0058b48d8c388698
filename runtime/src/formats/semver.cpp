// runtime/src/formats/semver.cpp: semantic versions (semver.org 2.0.0) and ranges of them
#include "formats/semver.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

namespace attnrt::core {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_identifier_character(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}
bool is_numeric(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

std::string_view trim(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool parse_number(std::string_view text, int64_t& number) {
  if (!is_numeric(text) || (text.size() > 1 && text.front() == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc();
}

// Whether text is identifiers joined by dots, such as "rc.1". Without leading_zeros, 01 is not one.
bool valid_identifiers(std::string_view text, bool leading_zeros) {
  for (const std::string_view part : split(text, '.')) {
    if (part.empty() || !std::all_of(part.begin(), part.end(), is_identifier_character))
      return false;
    if (!leading_zeros && is_numeric(part) && part.size() > 1 && part.front() == '0') return false;
  }
  return true;
}

// Parses MAJOR[.MINOR[.PATCH[-pre]]][+build] with at least `least` of the three numbers. RETURNS
// false if text has another form.
bool parse_parts(std::string_view text, size_t least, Version& version) {
  const size_t plus = text.find('+');
  if (plus != std::string_view::npos && !valid_identifiers(text.substr(plus + 1), true))
    return false;
  text = text.substr(0, plus);
  const size_t dash = text.find('-');
  const std::vector<std::string_view> numbers = split(text.substr(0, dash), '.');
  if (numbers.size() < least || numbers.size() > 3) return false;
  int64_t* const fields[] = {&version.major, &version.minor, &version.patch};
  for (size_t i = 0; i < std::size(fields) && i < numbers.size(); ++i) {
    if (!parse_number(numbers[i], *fields[i])) return false;
  }
  if (dash == std::string_view::npos) return true;
  if (numbers.size() != 3 || !valid_identifiers(text.substr(dash + 1), false)) return false;
  for (const std::string_view part : split(text.substr(dash + 1), '.'))
    version.prerelease.emplace_back(part);
  return true;
}

std::weak_ordering compare_identifiers(const std::string& a, const std::string& b) {
  const bool a_numeric = is_numeric(a), b_numeric = is_numeric(b);
  if (a_numeric != b_numeric)
    return a_numeric ? std::weak_ordering::less : std::weak_ordering::greater;
  if (a_numeric && a.size() != b.size())
    return a.size() <=> b.size();  // no leading zeros: longer is larger
  return a.compare(b) <=> 0;
}

bool holds(const Version& version, const VersionRange::Comparison& comparison) {
  const auto order = version <=> comparison.version;
  if (comparison.operation == ">=") return order >= 0;
  if (comparison.operation == ">") return order > 0;
  if (comparison.operation == "<=") return order <= 0;
  if (comparison.operation == "<") return order < 0;
  return order == 0;
}

// Returns the least release above a release; nothing if no number can be larger.
std::optional<Version> next_release(const Version& release) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (release.patch < kMost) return Version{release.major, release.minor, release.patch + 1, {}};
  if (release.minor < kMost) return Version{release.major, release.minor + 1, 0, {}};
  if (release.major < kMost) return Version{release.major + 1, 0, 0, {}};
  return std::nullopt;
}

}  // namespace

std::weak_ordering Version::operator<=>(const Version& other) const {
  if (const auto order = major <=> other.major; order != 0) return order;
  if (const auto order = minor <=> other.minor; order != 0) return order;
  if (const auto order = patch <=> other.patch; order != 0) return order;
  if (prerelease.empty() || other.prerelease.empty())
    return prerelease.empty() <=> other.prerelease.empty();
  for (size_t i = 0; i < std::min(prerelease.size(), other.prerelease.size()); ++i) {
    if (const auto order = compare_identifiers(prerelease[i], other.prerelease[i]); order != 0)
      return order;
  }
  return prerelease.size() <=> other.prerelease.size();
}

Result<Version> parse_version(std::string_view text) {
  Version version;
  if (parse_parts(text, 3, version)) return version;
  return fail(ATTNRT_INVALID_ARGUMENT,
              "found {}, expected a semantic version such as 1.0.0 or 1.1.0-rc.1", shown(text));
}

bool VersionRange::contains(const Version& version) const {
  const auto names_it = [&](const Comparison& comparison) {
    const Version& named = comparison.version;
    return !named.prerelease.empty() && named.major == version.major &&
           named.minor == version.minor && named.patch == version.patch;
  };
  if (!version.prerelease.empty() && std::none_of(comparisons.begin(), comparisons.end(), names_it))
    return false;
  return std::all_of(comparisons.begin(), comparisons.end(),
                     [&](const auto& c) { return holds(version, c); });
}

// Tries the versions that decide: the least one, each bound, and the one right after each bound. If
// a range contains any version, it contains one of these.
bool VersionRange::is_empty() const {
  std::vector<Version> candidates = {{}};
  for (const Comparison& comparison : comparisons) {
    const Version& bound = comparison.version;
    candidates.push_back(bound);
    candidates.push_back({bound.major, bound.minor, bound.patch, {}});
    if (bound.prerelease.empty()) {
      if (auto next = next_release(bound)) candidates.push_back(*std::move(next));
    } else {
      candidates.push_back({bound.major, bound.minor, bound.patch, {"0"}});
      candidates.push_back(bound);
      candidates.back().prerelease.emplace_back("0");
    }
  }
  return std::none_of(candidates.begin(), candidates.end(),
                      [this](const Version& one) { return contains(one); });
}

Result<VersionRange> parse_version_range(std::string_view text) {
  VersionRange range;
  range.text = std::string(text);
  for (std::string_view part : split(text, ',')) {
    part = trim(part);
    VersionRange::Comparison comparison;
    for (const std::string_view operation : {">=", "<=", ">", "<", "="}) {
      if (!part.starts_with(operation)) continue;
      comparison.operation = std::string(operation);
      break;
    }
    part = trim(part.substr(comparison.operation.size()));
    if (comparison.operation.empty() || !parse_parts(part, 1, comparison.version)) {
      return fail(ATTNRT_INVALID_ARGUMENT,
                  "found {}, expected comparisons such as \">=1.0, <2\" or \"=1.2.3\"",
                  shown(text));
    }
    range.comparisons.push_back(std::move(comparison));
  }
  return range;
}

}  // namespace attnrt::core
