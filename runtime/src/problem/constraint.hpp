// runtime/src/problem/constraint.hpp: conditions on a problem, as manifests and policies state them
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "formats/yaml.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

// The condition on one word: a value, a list of values, {min, max, multiple_of}, or {equals: other
// word}.
struct Constraint {
  const Word* word = nullptr;
  std::vector<Value> values;       // one of these must match; empty: the range below counts
  std::optional<double> min, max;  // inclusive; whole numbers for integers
  std::optional<int64_t> multiple_of;
  const Word* equals = nullptr;

  bool met(const Problem& problem, std::string_view arch) const;  // allocates nothing
  // Returns why the problem does not meet the condition: "head_dim 80 is not in {64, 128}",
  // "head_dim 300 is above 256"; nullopt if it does.
  std::optional<std::string> refusal(const Problem& problem, std::string_view arch) const;
  // Whether no value of the word can meet it: min is above max, no multiple lies between them, all
  // values are outside the choices, ...
  bool can_never_match() const;
  // Whether it looks at a bound: batch, seq_q or seq_kv.
  bool is_on_bounds() const;
  std::string text() const;  // as in YAML: "head_dim: {min: 32, max: 256}"
};

// Conditions that must all hold. A word without a condition may have any value.
using Constraints = std::vector<Constraint>;

// Whether an arch of a manifest matches the arch of a device: gfx1100 matches gfx1100 and
// gfx1100:xnack-; sm_80+ matches sm_80 and each newer sm_NN (sm_90a counts as sm_90).
bool arch_matches(std::string_view pattern, std::string_view arch);

// Parses one entry `key: condition`. Values are those of parse_value; flags are true or false, and
// windows may be `unbounded`. If unknown_values is given, a name outside the choices is not an
// error: it is kept, matches nothing, and gets a note there. Errors: INVALID_ARGUMENT with the
// line, and the nearest known key or the expected form of the condition.
Result<Constraint> parse_constraint(const yaml::Node& key, const yaml::Node& condition,
                                    std::vector<std::string>* unknown_values = nullptr);
// Returns the part of an entry that this runtime does not know: its key, a key of {min, ...}, or
// the word of {equals: word}. "" if it knows all.
std::string unknown_part(const yaml::Node& key, const yaml::Node& condition);
// Parses a map of conditions. Returns those without an error, and adds an error for each of the
// others.
Constraints parse_constraints(const yaml::Node& map, std::string_view where, Errors& errors);

// Returns each reason why the problem does not meet the conditions, in their order.
std::vector<std::string> refusals(const Constraints& constraints, const Problem& problem,
                                  std::string_view arch);

}  // namespace attnrt::core
