// runtime/src/record.cpp: the text of an admission record, as a file of the registry holds it
#include "record.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/result.hpp"

namespace attnrt::core {
namespace {

constexpr std::array<const char*, 3> kStates{"admitted", "refused", "probing"};
constexpr std::string_view kFirstLine = "attnrt admission 1";
constexpr int64_t kMostAttempts = 1000;  // a plugin is refused long before

// Removes the next line from the text, which must begin with the word and a space. RETURNS what
// follows them, "" for "-". nullopt: the line is another one.
std::optional<std::string> take_value(std::string_view& text, std::string_view word) {
  const std::string_view line = text.substr(0, text.find('\n'));
  if (!line.starts_with(word) || line.size() <= word.size() + 1 || line[word.size()] != ' ')
    return std::nullopt;
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  const std::string_view value = line.substr(word.size() + 1);
  return value == "-" ? std::string() : std::string(value);
}

std::optional<int64_t> number_in(const std::optional<std::string>& text, int64_t least,
                                 int64_t most) {
  int64_t number = 0;
  if (!text) return std::nullopt;
  const char* const end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, number);
  if (error != std::errc() || rest != end || number < least || number > most) return std::nullopt;
  return number;
}

}  // namespace

std::string text_of(const AdmissionRecord& record) {
  return fmt::format("{}\nstate {}\nlevel {}\nat {}\nboot {}\nattempts {}\nreason {}\nend\n",
                     kFirstLine, kStates.at(static_cast<size_t>(record.state)),
                     level_name(record.level), record.at_seconds,
                     record.boot.empty() ? "-" : record.boot, record.attempts,
                     record.reason.empty() ? "-" : one_line(record.reason));
}

std::optional<AdmissionRecord> parse_record(std::string_view text) {
  std::string_view rest = text;
  if (!rest.starts_with(kFirstLine)) return std::nullopt;
  rest.remove_prefix(std::min(kFirstLine.size() + 1, rest.size()));
  const auto state = take_value(rest, "state"), level = take_value(rest, "level");
  const auto at = number_in(take_value(rest, "at"), 0, INT64_MAX);
  const auto boot = take_value(rest, "boot");
  const auto attempts = number_in(take_value(rest, "attempts"), 1, kMostAttempts);
  const auto reason = take_value(rest, "reason");
  if (!state || !level || !at || !boot || !attempts || !reason) return std::nullopt;
  const auto* known = std::find(kStates.begin(), kStates.end(), *state);
  const auto found = find_level(*level);
  if (known == kStates.end() || !found || *found == AdmissionLevel::off) return std::nullopt;
  AdmissionRecord record{static_cast<AdmissionRecord::State>(known - kStates.begin()),
                         *found,
                         *reason,
                         *at,
                         *boot,
                         *attempts};
  // Whatever else the text says, nobody has written it.
  const std::string whole = text_of(record);
  const bool is_whole =
      text == whole || text == std::string_view(whole).substr(0, whole.size() - 1);
  return is_whole ? std::optional(std::move(record)) : std::nullopt;
}

}  // namespace attnrt::core
