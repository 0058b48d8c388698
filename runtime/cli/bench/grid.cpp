// runtime/cli/bench/grid.cpp: builds the problems of a benchmark from words and their values
//
// An axis is a word with its values. The axes
//
//     causal: false, true        head_dim: 64        seq: 512, 2048
//
// give 2 x 1 x 2 problems, in this order: the last axis changes fastest. Words that no axis names
// have these values:
//
//     heads_kv, seq_kv           those of heads_q and seq_q, and the other way round
//     seq, heads, head_dim       2048, 8 and 64; a size of 1, the vocabulary's default, measures
//                                nothing of interest
//     lengths                    full
//     every other word           the vocabulary's default
#include "cli/bench/grid.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "base/nearest.hpp"
#include "formats/yaml.hpp"

namespace attnrt::cli::bench {
namespace {

using core::fail;
using core::Result;
using core::yaml::Node;

// Problems in one grid at most. A larger grid would run for days, and is probably a typing error.
constexpr size_t kMaxProblems = 10000;
constexpr const char* kUsualHeadDim = "64";  // of a grid that does not name head_dim

// A word that names both sides at once.
struct Pair {
  std::string_view both, query, key;
  std::string_view usual;  // the value of both sides in a grid that names neither
};
constexpr std::array kPairs = {Pair{"seq", "seq_q", "seq_kv", "2048"},
                               Pair{"heads", "heads_q", "heads_kv", "8"}};

const Pair* find_pair(std::string_view word) {
  const auto found = std::find_if(kPairs.begin(), kPairs.end(),
                                  [&](const Pair& pair) { return pair.both == word; });
  return found != kPairs.end() ? &*found : nullptr;
}

// Returns the word that says which values are legal. Both sides of a pair take the same values.
// REQUIRES: word is one of grid_words().
const core::Word& find_grid_word(std::string_view word) {
  if (word == lengths_word().name) return lengths_word();
  const Pair* pair = find_pair(word);
  return *core::find_word(pair != nullptr ? pair->query : word);
}

// Whether one of the axes is that word.
bool names(const std::vector<Axis>& axes, std::string_view word) {
  return std::any_of(axes.begin(), axes.end(), [&](const Axis& axis) { return axis.word == word; });
}

// Adds seq, heads and head_dim with their usual values, where the axes do not name them.
std::vector<Axis> completed(std::vector<Axis> axes) {
  if (!names(axes, "head_dim")) axes.insert(axes.begin(), Axis{"head_dim", {kUsualHeadDim}});
  for (const Pair& pair : kPairs) {
    if (names(axes, pair.both) || names(axes, pair.query) || names(axes, pair.key)) continue;
    axes.insert(axes.begin(), Axis{std::string(pair.both), {std::string(pair.usual)}});
  }
  return axes;
}

// Returns the words that one value of an axis stands for: "seq=512" is "seq_q=512 seq_kv=512", and
// so is "seq_q=512" where no axis names seq_kv.
std::string words_of(const std::vector<Axis>& axes, const std::string& word,
                     const std::string& value) {
  for (const Pair& pair : kPairs) {
    const bool only_query = word == pair.query && !names(axes, pair.key);
    const bool only_key = word == pair.key && !names(axes, pair.query);
    if (word == pair.both || only_query || only_key)
      return fmt::format("{}={} {}={} ", pair.query, value, pair.key, value);
  }
  return fmt::format("{}={} ", word, value);
}

// Reads the values of one key: a scalar, or a list of scalars. An error names the value's place.
Result<Axis> read_axis(const Node& key, const Node& value) {
  Axis axis{key.text, {}};
  const bool is_list = value.kind == core::yaml::Kind::list;
  const std::vector<Node> nodes = is_list ? value.items : std::vector{value};
  if (nodes.empty()) return core::yaml::wrong(value, key.text, "a value or a list of values");
  for (const Node& node : nodes) {
    if (node.kind != core::yaml::Kind::scalar)
      return core::yaml::wrong(node, key.text, "a value or a list of values");
    auto parsed = parse_axis(key.text, node.text);
    if (!parsed)
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: {}", node.place(), key.text,
                  parsed.error().message);
    axis.values.insert(axis.values.end(), parsed->values.begin(), parsed->values.end());
  }
  return axis;
}

// Reads the group's name. Commas separate names of groups in --group.
Result<std::string> read_group(const Node& value) {
  const bool is_name = value.kind == core::yaml::Kind::scalar && !value.text.empty() &&
                       value.text.find(',') == std::string::npos;
  if (!is_name) return core::yaml::wrong(value, "group", "a name without commas");
  return value.text;
}

// Reads one map of words and values, and appends its problems.
Result<void> read_entry(const Node& entry, std::vector<GridProblem>& problems) {
  if (entry.kind != core::yaml::Kind::map)
    return core::yaml::wrong(entry, "problems", "a map of words and values");
  std::vector<std::string_view> known = grid_words();
  known.insert(known.begin(), "group");
  std::vector<Axis> axes;
  std::string group;
  for (size_t n = 0; n < entry.keys.size(); ++n) {
    const Node& key = entry.keys[n];
    if (key.text == "group") {
      auto name = read_group(entry.items[n]);
      if (!name) return tl::unexpected(name.error());
      group = *std::move(name);
      continue;
    }
    if (std::find(known.begin(), known.end(), key.text) == known.end()) {
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: unknown word{}", key.place(),
                  core::shown(key.text), core::expected_one_of(key.text, known));
    }
    auto axis = read_axis(key, entry.items[n]);
    if (!axis) return tl::unexpected(axis.error());
    axes.push_back(std::move(*axis));
  }
  auto made = problems_of(axes);
  if (!made) return fail(made.error().code, "{}: {}", entry.place(), made.error().message);
  for (GridProblem& problem : *made) problem.group = group;
  problems.insert(problems.end(), made->begin(), made->end());
  if (problems.size() > kMaxProblems)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: found more than {} problems, expected at most {}",
                entry.place(), kMaxProblems, kMaxProblems);
  return {};
}

// Fails if a word that names both sides stands beside a word of one side: seq beside seq_q.
Result<void> check_pairs(const std::vector<Axis>& axes) {
  for (const Pair& pair : kPairs) {
    for (const std::string_view side : {pair.query, pair.key}) {
      if (names(axes, pair.both) && names(axes, side))
        return fail(ATTNRT_INVALID_ARGUMENT,
                    "found both {0} and {1}, expected one of them: {0} is {2} and {3}", pair.both,
                    side, pair.query, pair.key);
    }
  }
  return {};
}

// Parses "seq_q=512 seq_kv=512 ..." and checks the problem.
Result<core::Problem> parse_words(const std::string& text) {
  core::Problem words = core::default_problem();
  std::string arch;
  if (const auto parsed = core::parse_problem(text, words, arch); !parsed)
    return tl::unexpected(parsed.error());
  return core::check_problem(&words);
}

}  // namespace

std::vector<std::string_view> grid_words() {
  std::vector<std::string_view> words = {"seq", "heads", lengths_word().name};
  for (const core::Word& word : core::vocabulary())
    if (word.name != "device" && word.name != "arch") words.push_back(word.name);
  return words;
}

Result<Axis> parse_axis(std::string_view name, std::string_view values) {
  const core::Word& word = find_grid_word(name);
  Axis axis{std::string(name), {}};
  if (word.kind == core::WordKind::flag && values == "both") {
    axis.values = {"false", "true"};
    return axis;
  }
  for (size_t at = 0; at <= values.size();) {
    const std::string_view value = values.substr(at, values.find(',', at) - at);
    at += value.size() + 1;
    if (const auto parsed = core::parse_value(word, value); !parsed)
      return fail(parsed.error().code, "{}{}", parsed.error().message,
                  word.kind == core::WordKind::flag ? ", or both" : "");
    axis.values.emplace_back(value);
  }
  return axis;
}

Result<std::vector<GridProblem>> problems_of(const std::vector<Axis>& given) {
  if (const auto checked = check_pairs(given); !checked) return tl::unexpected(checked.error());
  const std::vector<Axis> axes = completed(given);
  size_t count = 1;
  for (const Axis& axis : axes) {
    count *= axis.values.size();
    if (count > kMaxProblems)
      return fail(ATTNRT_INVALID_ARGUMENT, "found more than {} problems, expected at most {}",
                  kMaxProblems, kMaxProblems);
  }
  std::vector<GridProblem> problems;
  for (size_t n = 0; n < count; ++n) {
    // n is a number whose digits are indices of values, the last axis being the lowest digit.
    std::string text;
    GridProblem made;
    size_t rest = n;
    for (size_t i = axes.size(); i-- > 0; rest /= axes[i].values.size()) {
      const std::string& value = axes[i].values[rest % axes[i].values.size()];
      if (axes[i].word == lengths_word().name) {
        made.lengths = find_lengths(value);
      } else {
        text += words_of(given, axes[i].word, value);
      }
    }
    const auto problem = parse_words(text);
    if (!problem) return tl::unexpected(problem.error());
    made.problem = *problem;
    if (const auto checked = check_lengths(made); !checked) return tl::unexpected(checked.error());
    problems.push_back(std::move(made));
  }
  return problems;
}

Result<std::vector<GridProblem>> read_grid(std::string_view text, const std::string& file) {
  const auto document = core::yaml::parse(text, file);
  if (!document) return tl::unexpected(document.error());
  const Node& root = document->root;
  core::Errors errors;
  core::yaml::only_keys(root, {"schema", "problems"}, "", errors);
  if (!errors.empty()) return tl::unexpected(errors.front());
  const Node* schema = root.find("schema");
  if (schema == nullptr)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: schema: found nothing, expected 1", root.place());
  if (schema->text != "1") return core::yaml::wrong(*schema, "schema", "1");
  const Node* list = root.find("problems");
  if (list == nullptr)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: problems: found nothing, expected a list",
                root.place());
  if (list->kind != core::yaml::Kind::list || list->items.empty())
    return core::yaml::wrong(*list, "problems", "a list of maps");
  std::vector<GridProblem> problems;
  for (const Node& entry : list->items)
    if (const auto read = read_entry(entry, problems); !read) return tl::unexpected(read.error());
  return problems;
}

Result<std::vector<GridProblem>> in_groups(const std::vector<GridProblem>& problems,
                                           const std::vector<std::string>& groups) {
  std::vector<std::string_view> known;
  for (const GridProblem& problem : problems) {
    const bool is_new = std::find(known.begin(), known.end(), problem.group) == known.end();
    if (is_new && !problem.group.empty()) known.push_back(problem.group);
  }
  for (const std::string& group : groups) {
    if (std::find(known.begin(), known.end(), group) != known.end()) continue;
    if (known.empty())
      return fail(ATTNRT_INVALID_ARGUMENT, "found {}, and the grid has no groups",
                  core::shown(group));
    return fail(ATTNRT_INVALID_ARGUMENT, "there is no group {}{}", core::shown(group),
                core::expected_one_of(group, known));
  }
  std::vector<GridProblem> chosen;
  std::copy_if(problems.begin(), problems.end(), std::back_inserter(chosen),
               [&](const GridProblem& problem) {
                 return std::find(groups.begin(), groups.end(), problem.group) != groups.end();
               });
  return chosen;
}

}  // namespace attnrt::cli::bench
