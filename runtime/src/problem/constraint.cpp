// runtime/src/problem/constraint.cpp: conditions on a problem, as manifests and policies state them
#include "problem/constraint.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/nearest.hpp"

namespace attnrt::core {

namespace {

constexpr std::array<std::string_view, 4> range_keys{"min", "max", "multiple_of", "equals"};

bool is_arch(const Word& word) { return word.kind == WordKind::name && word.choices.empty(); }

double number(const Value& value) {
  const auto* whole = std::get_if<int64_t>(&value);
  return whole != nullptr ? static_cast<double>(*whole) : std::get<double>(value);
}

bool is_multiple(const Value& value, int64_t of) {
  const int64_t whole = std::get<int64_t>(value);
  return whole != INT64_MAX && whole % of == 0;  // unbounded is not a multiple of anything
}

// Writes a bound as values are written: whole numbers without a fraction, reals rounded to float.
std::string bound_text(const Word& word, double bound) {
  if (word.kind == WordKind::real) return to_text(Value(bound));
  return bound >= 0x1p63 ? "unbounded" : to_text(Value(static_cast<int64_t>(bound)));
}

std::string list_text(const Word& word, const std::vector<Value>& values) {
  std::vector<std::string> texts;
  texts.reserve(values.size());
  for (const Value& value : values) texts.push_back(to_text(word, value));
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::vector<std::string_view> word_names() {
  std::vector<std::string_view> names;
  for (const Word& word : vocabulary()) names.push_back(word.name);
  return names;
}

std::string not_known(std::string_view text, std::span<const std::string_view> known) {
  return fmt::format("{} is not known to this runtime{}", shown(text), did_you_mean(text, known));
}

tl::unexpected<Error> at(const yaml::Node& node, std::string_view what, std::string_view text) {
  return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: {}", node.place(), what, text);
}

Result<Value> parse_one(const Word& word, const yaml::Node& node,
                        std::vector<std::string>* unknown_values) {
  if (node.kind != yaml::Kind::scalar)
    return yaml::wrong(node, word.name, "a value, a list of values or {min, max, ...}");
  if (node.quoted && word.kind != WordKind::name) {
    return yaml::wrong(node, word.name, word.kind == WordKind::flag ? "true or false" : "a number");
  }
  auto value = parse_value(word, node.text);
  if (value) return value;
  if (unknown_values != nullptr && word.kind == WordKind::name && !is_arch(word) &&
      !node.text.empty()) {
    unknown_values->push_back(
        fmt::format("{}: {} {}", node.place(), word.name, not_known(node.text, word.choices)));
    return Value(node.text);
  }
  return at(node, word.name, value.error().message);
}

Result<void> parse_range_key(const yaml::Node& key, const yaml::Node& node,
                             Constraint& constraint) {
  const Word& word = *constraint.word;
  const std::string what = fmt::format("{}.{}", word.name, shown(key.text));
  if (key.text == "equals") {
    const std::vector<std::string_view> names = word_names();
    if (node.kind != yaml::Kind::scalar) return yaml::wrong(node, what, "a word of the same kind");
    constraint.equals = find_word(node.text);
    if (constraint.equals == nullptr)
      return at(
          node, what,
          fmt::format("unknown word {}{}", shown(node.text), expected_one_of(node.text, names)));
    const bool comparable = constraint.equals->kind == word.kind && constraint.equals != &word;
    if (!comparable) return yaml::wrong(node, what, "another word of the same kind");
    return {};
  }
  if (std::find(range_keys.begin(), range_keys.end(), key.text) == range_keys.end()) {
    return at(key, what, "unknown key" + expected_one_of(key.text, range_keys));
  }
  if (word.kind == WordKind::flag || word.kind == WordKind::name)
    return at(key, what, "found a range, expected a value or a list");
  if (key.text == "multiple_of") {
    if (word.kind != WordKind::integer)
      return at(key, what, fmt::format("{} is not a whole number", word.name));
    auto of = yaml::integer(node, what);
    if (!of) return tl::unexpected(of.error());
    if (*of < 1) return yaml::wrong(node, what, "at least 1");
    constraint.multiple_of = *of;
    return {};
  }
  auto bound = word.kind == WordKind::integer
                   ? yaml::integer(node, what).map([](int64_t v) { return static_cast<double>(v); })
                   : yaml::real(node, what);
  if (!bound) return tl::unexpected(bound.error());
  if (word.kind == WordKind::real) *bound = static_cast<double>(static_cast<float>(*bound));
  (key.text == "min" ? constraint.min : constraint.max) = *bound;
  return {};
}

// Returns the number after "sm_", without its suffix letter; -1 if there is none.
int sm_number(std::string_view arch) {
  if (!arch.starts_with("sm_")) return -1;
  int number = -1;
  const auto [end, error] = std::from_chars(arch.data() + 3, arch.data() + arch.size(), number);
  const std::string_view rest(end, static_cast<size_t>(arch.data() + arch.size() - end));
  const bool suffix = rest.empty() || (rest.size() == 1 && rest[0] >= 'a' && rest[0] <= 'z');
  return error == std::errc() && number >= 0 && suffix ? number : -1;
}

}  // namespace

bool arch_matches(std::string_view pattern, std::string_view arch) {
  pattern = pattern.substr(0, pattern.find(':'));
  arch = arch.substr(0, arch.find(':'));
  if (arch.empty()) return false;
  if (pattern == arch) return true;
  const bool newer = pattern.ends_with('+');
  const int have = sm_number(arch),
            want = sm_number(newer ? pattern.substr(0, pattern.size() - 1) : pattern);
  return want >= 0 && (newer ? have >= want : have == want);
}

bool Constraint::met(const Problem& problem, std::string_view arch) const {
  const Value value = value_of(*word, problem, arch);
  if (equals != nullptr) return value == value_of(*equals, problem, arch);
  if (!values.empty()) {
    const bool pattern = is_arch(*word);
    return std::any_of(values.begin(), values.end(), [&](const Value& allowed) {
      return pattern ? arch_matches(std::get<std::string>(allowed), arch) : value == allowed;
    });
  }
  if (min && number(value) < *min) return false;
  if (max && number(value) > *max) return false;
  return !multiple_of || is_multiple(value, *multiple_of);
}

std::optional<std::string> Constraint::refusal(const Problem& problem,
                                               std::string_view arch) const {
  if (met(problem, arch)) return std::nullopt;
  const Value value = value_of(*word, problem, arch);
  std::string text = fmt::format("{} {}", word->name, to_text(*word, value));
  if (is_arch(*word) && arch.empty()) text = "arch (none)";
  if (equals != nullptr) {
    const Value other = value_of(*equals, problem, arch);
    return fmt::format("{} does not equal {} {}", text, equals->name, to_text(*equals, other));
  }
  if (values.size() == 1) return fmt::format("{} is not {}", text, to_text(*word, values.front()));
  if (!values.empty()) return fmt::format("{} is not in {{{}}}", text, list_text(*word, values));
  if (min && number(value) < *min)
    return fmt::format("{} is below {}", text, bound_text(*word, *min));
  if (max && number(value) > *max)
    return fmt::format("{} is above {}", text, bound_text(*word, *max));
  return fmt::format("{} is not a multiple of {}", text, *multiple_of);
}

bool Constraint::can_never_match() const {
  if (equals != nullptr) return false;
  if (!values.empty()) {
    if (word->choices.empty()) return false;
    return std::none_of(values.begin(), values.end(), [&](const Value& value) {
      return std::find(word->choices.begin(), word->choices.end(), std::get<std::string>(value)) !=
             word->choices.end();
    });
  }
  if (word->kind == WordKind::real) {
    const bool below_zero = word->name == "softcap" && max && *max < 0;
    return (min && max && *min > *max) || below_zero;
  }
  const double low = std::max(min.value_or(static_cast<double>(word->minimum)),
                              static_cast<double>(word->minimum));
  const double high = std::min(max.value_or(static_cast<double>(word->maximum)),
                               static_cast<double>(word->maximum));
  if (low > high) return true;
  if (!multiple_of) return false;
  const auto of = static_cast<double>(*multiple_of);
  return std::ceil(low / of) * of > high;
}

bool Constraint::is_on_bounds() const {
  const auto is_bound = [](const Word* each) {
    return each != nullptr &&
           (each->name == "batch" || each->name == "seq_q" || each->name == "seq_kv");
  };
  return is_bound(word) || is_bound(equals);
}

std::string Constraint::text() const {
  if (equals != nullptr) return fmt::format("{}: {{equals: {}}}", word->name, equals->name);
  if (values.size() == 1) return fmt::format("{}: {}", word->name, to_text(*word, values.front()));
  if (!values.empty()) return fmt::format("{}: [{}]", word->name, list_text(*word, values));
  std::vector<std::string> parts;
  if (min) parts.push_back("min: " + bound_text(*word, *min));
  if (max) parts.push_back("max: " + bound_text(*word, *max));
  if (multiple_of) parts.push_back(fmt::format("multiple_of: {}", *multiple_of));
  return fmt::format("{}: {{{}}}", word->name, fmt::join(parts, ", "));
}

std::string unknown_part(const yaml::Node& key, const yaml::Node& condition) {
  if (find_word(key.text) == nullptr) return not_known(key.text, word_names());
  for (size_t i = 0; i < condition.keys.size(); ++i) {
    const std::string& part = condition.keys[i].text;
    if (std::find(range_keys.begin(), range_keys.end(), part) == range_keys.end())
      return not_known(part, range_keys);
    const yaml::Node& value = condition.items[i];
    if (part == "equals" && value.kind == yaml::Kind::scalar && find_word(value.text) == nullptr)
      return not_known(value.text, word_names());
  }
  return "";
}

Result<Constraint> parse_constraint(const yaml::Node& key, const yaml::Node& condition,
                                    std::vector<std::string>* unknown_values) {
  Constraint constraint;
  constraint.word = find_word(key.text);
  if (constraint.word == nullptr) {
    return at(key, shown(key.text), "unknown key" + expected_one_of(key.text, word_names()));
  }
  const Word& word = *constraint.word;
  if (condition.kind == yaml::Kind::map) {
    if (condition.keys.empty())
      return at(condition, word.name,
                "found an empty map, expected {min, max, multiple_of} or {equals}");
    for (size_t i = 0; i < condition.keys.size(); ++i) {
      if (auto read = parse_range_key(condition.keys[i], condition.items[i], constraint); !read)
        return tl::unexpected(read.error());
    }
    if (constraint.equals != nullptr && condition.keys.size() > 1) {
      return at(condition, word.name, "found equals with other keys, expected it alone");
    }
    return constraint;
  }
  const bool list = condition.kind == yaml::Kind::list && !condition.items.empty();
  for (const yaml::Node& item : list ? std::span(condition.items) : std::span(&condition, 1)) {
    auto value = parse_one(word, item, unknown_values);
    if (!value) return tl::unexpected(value.error());
    constraint.values.push_back(*std::move(value));
  }
  return constraint;
}

Constraints parse_constraints(const yaml::Node& map, std::string_view where, Errors& errors) {
  Constraints constraints;
  const bool nothing = map.kind == yaml::Kind::null;
  if (!nothing && map.kind != yaml::Kind::map)
    errors.push_back(yaml::wrong(map, where, "a map of conditions").value());
  for (size_t i = 0; i < map.keys.size(); ++i) {
    auto constraint = parse_constraint(map.keys[i], map.items[i]);
    if (constraint) {
      constraints.push_back(*std::move(constraint));
    } else {
      errors.push_back(std::move(constraint.error()));
    }
  }
  return constraints;
}

std::vector<std::string> refusals(const Constraints& constraints, const Problem& problem,
                                  std::string_view arch) {
  std::vector<std::string> reasons;
  for (const Constraint& constraint : constraints) {
    if (auto reason = constraint.refusal(problem, arch)) reasons.push_back(*std::move(reason));
  }
  return reasons;
}

}  // namespace attnrt::core
