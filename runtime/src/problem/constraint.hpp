// runtime/src/problem/constraint.hpp: the one grammar of conditions on a problem, for manifests and the policy's when and only
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "formats/yaml.hpp"
#include "problem/problem.hpp"

namespace attnrt::core {

// One key's condition: a value; a list of values; {min, max, multiple_of}; {equals: other key}.
struct Constraint {
  const Word* word = nullptr;
  std::vector<Value> values;       // any of these; empty: the range below
  std::optional<double> min, max;  // inclusive; whole words use whole numbers
  std::optional<int64_t> multiple_of;
  const Word* equals = nullptr;

  bool met(const Problem& problem, std::string_view arch) const;  // builds no text
  // Why the problem does not meet it: "head_dim 80 is not in {64, 128}", "head_dim 300 is above 256"; nullopt: it does.
  std::optional<std::string> refusal(const Problem& problem, std::string_view arch) const;
  // No value of the word can meet it (min above max, no multiple between them, only values outside the choices, ...).
  bool can_never_match() const;
  std::string text() const;  // "head_dim: {min: 32, max: 256}", as it would stand in YAML
};

// An absent key fits any value.
using Constraints = std::vector<Constraint>;

// The arch of a manifest matches the arch of a device: gfx1100 matches gfx1100 and gfx1100:xnack-; sm_80+ matches sm_80
// and every newer sm_NN (sm_90a counts as sm_90).
bool arch_matches(std::string_view pattern, std::string_view arch);

// One entry `key: condition`. Errors carry the place and the nearest known key or what the condition should look like.
// Flags take true and false, windows take `unbounded` too; text and numbers are as in parse_value. Where a list for
// unknown_values is given, a name outside of the choices is no error: it is kept, matches nothing, and is noted there.
Result<Constraint> parse_constraint(const yaml::Node& key, const yaml::Node& condition,
                                    std::vector<std::string>* unknown_values = nullptr);
// What this runtime does not know of the entry: its key, a key of {min, ...}, the word of {equals: word}; "" if
// nothing.
std::string unknown_part(const yaml::Node& key, const yaml::Node& condition);
// A map of them: those that could be read, and an error for each of the others.
Constraints parse_constraints(const yaml::Node& map, std::string_view where, Errors& errors);

// Every refusal, in the order of the constraints.
std::vector<std::string> refusals(const Constraints& constraints, const Problem& problem,
                                  std::string_view arch);

}  // namespace attnrt::core
