// runtime/src/config_rollout.cpp: the policy's `backends.NAME.rollout`
#include "config_rollout.hpp"

#include <charconv>
#include <string_view>

namespace attnrt::core {
namespace {

using yaml::Kind;
using yaml::Node;

// Returns the number that is the whole text, if it is from 1 to Share::kMost.
std::optional<int64_t> whole_number(std::string_view text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stopped != end || number < 1 || number > Share::kMost)
    return std::nullopt;
  return number;
}

std::optional<Share> read_share(const Node& node, const std::string& what, Errors& errors) {
  const std::string_view text = node.text;
  const size_t slash = text.find('/');
  if (node.kind == Kind::scalar && slash != std::string_view::npos) {
    const auto numerator = whole_number(text.substr(0, slash));
    const auto denominator = whole_number(text.substr(slash + 1));
    if (numerator && denominator && *numerator <= *denominator)
      return Share{*numerator, *denominator};
  }
  errors.push_back(
      yaml::wrong(node, what,
                  "a fraction of the calls from 1/1000000 to 1/1, such as 1/20, without spaces")
          .value());
  return std::nullopt;
}

std::optional<int64_t> read_after(const Node& node, const std::string& what, Errors& errors) {
  constexpr int64_t kMost = 1'000'000'000'000;
  const auto number = yaml::integer(node, what);
  if (number && *number >= 1 && *number <= kMost) return *number;
  errors.push_back(
      yaml::wrong(node, what,
                  fmt::format("a whole number from 1 to {}, without quotes, or null", kMost))
          .value());
  return std::nullopt;
}

}  // namespace

std::string RolloutSettings::text() const {
  std::string text = "version " + version.text;
  if (shadow) text += ", shadow " + shadow->text();
  if (canary) text += ", canary " + canary->text();
  return text + (after ? fmt::format(", after {}", *after) : "");
}

std::optional<RolloutSettings> read_rollout(const Node& map, const std::string& what,
                                            Errors& errors) {
  if (map.kind == Kind::null) return std::nullopt;
  const size_t errors_before = errors.size();
  yaml::only_keys(map, {"version", "shadow", "canary", "after"}, what, errors);
  if (errors.size() != errors_before) return std::nullopt;
  RolloutSettings settings;
  if (const Node* version = map.find("version"); version == nullptr) {
    errors.push_back({ATTNRT_INVALID_ARGUMENT,
                      fmt::format("{}: {}: found no version, expected the range of the new "
                                  "versions, such as version: \">=1.3\"",
                                  map.place(), what)});
  } else if (const auto text = yaml::word(*version, what + ".version"); !text || text->empty()) {
    errors.push_back(
        yaml::wrong(*version, what + ".version", "comparisons such as \">=1.3\"").value());
  } else if (auto range = parse_version_range(*text); !range) {
    errors.push_back({ATTNRT_INVALID_ARGUMENT, fmt::format("{}: {}.version: {}", version->place(),
                                                           what, range.error().message)});
  } else {
    settings.version = *std::move(range);
  }
  const auto is_given = [&map](const char* key) {
    const Node* node = map.find(key);
    return node != nullptr && node->kind != Kind::null ? node : nullptr;
  };
  const Node* const shadow = is_given("shadow");
  const Node* const canary = is_given("canary");
  if (shadow != nullptr) settings.shadow = read_share(*shadow, what + ".shadow", errors);
  if (canary != nullptr) settings.canary = read_share(*canary, what + ".canary", errors);
  if (shadow == nullptr && canary == nullptr) {
    errors.push_back({ATTNRT_INVALID_ARGUMENT,
                      fmt::format("{}: {}: found neither canary nor shadow, expected the part of "
                                  "the calls that try it, such as canary: 1/20",
                                  map.place(), what)});
  }
  if (const Node* after = is_given("after"))
    settings.after = read_after(*after, what + ".after", errors);
  if (errors.size() != errors_before) return std::nullopt;
  return settings;
}

}  // namespace attnrt::core
