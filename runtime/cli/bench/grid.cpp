// runtime/cli/bench/grid.cpp: flags or a YAML file into the problems of a benchmark
#include <algorithm>
#include <array>

#include "base/nearest.hpp"
#include "cli/bench/bench.hpp"
#include "formats/yaml.hpp"

namespace attnrt::cli::bench {
namespace {

using core::fail;
using core::Result;
using core::yaml::Node;

constexpr size_t kMaxProblems = 10000;

// A word that stands for two.
struct Pair {
  std::string_view both, query, key;
  std::string_view usual;
};
constexpr std::array kPairs = {Pair{"seq", "seq_q", "seq_kv", "2048"},
                               Pair{"heads", "heads_q", "heads_kv", "8"}};

const Pair* find_pair(std::string_view word) {
  const auto found = std::find_if(kPairs.begin(), kPairs.end(),
                                  [&](const Pair& pair) { return pair.both == word; });
  return found != kPairs.end() ? &*found : nullptr;
}

// The word that says what a value may be; a pair's sides take the same. REQUIRES: word is of grid_words().
const core::Word& meaning_of(std::string_view word) {
  const Pair* pair = find_pair(word);
  return *core::find_word(pair != nullptr ? pair->query : word);
}

bool names(const std::vector<Axis>& axes, std::string_view word) {
  return std::any_of(axes.begin(), axes.end(), [&](const Axis& axis) { return axis.word == word; });
}

// What the axes leave open and the vocabulary would make 1.
std::vector<Axis> completed(std::vector<Axis> axes) {
  if (!names(axes, "head_dim")) axes.insert(axes.begin(), Axis{"head_dim", {"64"}});
  for (const Pair& pair : kPairs) {
    if (names(axes, pair.both) || names(axes, pair.query) || names(axes, pair.key)) continue;
    axes.insert(axes.begin(), Axis{std::string(pair.both), {std::string(pair.usual)}});
  }
  return axes;
}

// "seq=512" is "seq_q=512 seq_kv=512"; a side that nobody names is as the other one.
std::string words_of(const std::vector<Axis>& axes, const std::string& word,
                     const std::string& value) {
  for (const Pair& pair : kPairs) {
    const bool other = (word == pair.query && !names(axes, pair.key)) ||
                       (word == pair.key && !names(axes, pair.query));
    if (word == pair.both || (other && !names(axes, pair.both)))
      return fmt::format("{}={} {}={} ", pair.query, value, pair.key, value);
  }
  return fmt::format("{}={} ", word, value);
}

// The values of one key: a scalar or a list of them, each checked where it stands.
Result<Axis> read_axis(const Node& key, const Node& value) {
  Axis axis{key.text, {}};
  const std::vector<Node> one =
      value.kind == core::yaml::Kind::list ? std::vector<Node>() : std::vector{value};
  const std::vector<Node>& nodes = one.empty() ? value.items : one;
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

Result<void> read_entry(const Node& entry, std::vector<core::Problem>& problems) {
  if (entry.kind != core::yaml::Kind::map)
    return core::yaml::wrong(entry, "problems", "a map of words and values");
  const std::vector<std::string_view> known = grid_words();
  std::vector<Axis> axes;
  for (size_t n = 0; n < entry.keys.size(); ++n) {
    const Node& key = entry.keys[n];
    if (std::find(known.begin(), known.end(), key.text) == known.end()) {
      return fail(ATTNRT_INVALID_ARGUMENT, "{}: {}: unknown word{}", key.place(),
                  core::shown(key.text), core::expected_one_of(key.text, known));
    }
    auto axis = read_axis(key, entry.items[n]);
    if (!axis) return tl::unexpected(axis.error());
    axes.push_back(std::move(*axis));
  }
  const auto made = problems_of(axes);
  if (!made) return fail(made.error().code, "{}: {}", entry.place(), made.error().message);
  problems.insert(problems.end(), made->begin(), made->end());
  if (problems.size() > kMaxProblems)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: found more than {} problems, expected fewer",
                entry.place(), kMaxProblems);
  return {};
}

}  // namespace

std::vector<std::string_view> grid_words() {
  std::vector<std::string_view> words = {"seq", "heads"};
  for (const core::Word& word : core::vocabulary())
    if (word.name != "device" && word.name != "arch") words.push_back(word.name);
  return words;
}

Result<Axis> parse_axis(std::string_view name, std::string_view values) {
  const core::Word& word = meaning_of(name);
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

Result<std::vector<core::Problem>> problems_of(const std::vector<Axis>& given) {
  for (const Pair& pair : kPairs) {
    for (const std::string_view side : {pair.query, pair.key}) {
      if (names(given, pair.both) && names(given, side))
        return fail(ATTNRT_INVALID_ARGUMENT,
                    "found both {0} and {1}, expected one of them: {0} is {2} and {3}", pair.both,
                    side, pair.query, pair.key);
    }
  }
  const std::vector<Axis> axes = completed(given);
  size_t count = 1;
  for (const Axis& axis : axes) {
    count *= axis.values.size();
    if (count > kMaxProblems)
      return fail(ATTNRT_INVALID_ARGUMENT, "found more than {} problems, expected fewer",
                  kMaxProblems);
  }
  std::vector<core::Problem> problems;
  for (size_t n = 0; n < count; ++n) {
    std::string text;
    size_t rest = n;
    for (size_t i = axes.size(); i-- > 0; rest /= axes[i].values.size())
      text += words_of(given, axes[i].word, axes[i].values[rest % axes[i].values.size()]);
    core::Problem words = core::default_problem();
    std::string arch;
    if (const auto parsed = core::parse_problem(text, words, arch); !parsed)
      return tl::unexpected(parsed.error());
    const auto problem = core::check_problem(&words);
    if (!problem) return tl::unexpected(problem.error());
    problems.push_back(*problem);
  }
  return problems;
}

Result<std::vector<core::Problem>> read_grid(std::string_view text, const std::string& file) {
  const auto document = core::yaml::parse(text, file);
  if (!document) return tl::unexpected(document.error());
  const Node& root = document->root;
  core::Errors errors;
  core::yaml::only_keys(root, {"schema", "problems"}, "", errors);
  if (!errors.empty()) return tl::unexpected(errors.front());
  if (const Node* schema = root.find("schema"); schema == nullptr || schema->text != "1")
    return schema == nullptr ? fail(ATTNRT_INVALID_ARGUMENT,
                                    "{}: schema: found nothing, expected 1", root.place())
                             : core::yaml::wrong(*schema, "schema", "1");
  const Node* list = root.find("problems");
  if (list == nullptr)
    return fail(ATTNRT_INVALID_ARGUMENT, "{}: problems: found nothing, expected a list",
                root.place());
  if (list->kind != core::yaml::Kind::list || list->items.empty())
    return core::yaml::wrong(*list, "problems", "a list of maps");
  std::vector<core::Problem> problems;
  for (const Node& entry : list->items)
    if (const auto read = read_entry(entry, problems); !read) return tl::unexpected(read.error());
  return problems;
}

}  // namespace attnrt::cli::bench
