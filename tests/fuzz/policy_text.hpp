// tests/fuzz/policy_text.hpp: conditions that are printed, and must be read as the same
#pragma once

#include "fuzz.hpp"
#include "problem/constraint.hpp"

namespace attnrt::fuzz {

// Prints each condition as YAML, and requires that it is read as the same condition. Judges a
// problem by both.
inline void require_conditions_read_again(const core::Constraints& constraints) {
  const core::Problem problem = core::default_problem();
  for (const core::Constraint& constraint : constraints) {
    const std::string text = constraint.text();
    // It may quote a value of any text (below): the runtime makes it one line where it prints it.
    const auto refused = constraint.refusal(problem, "sm_90");
    if (refused) require_one_line(core::one_line(*refused));
    (void)constraint.can_never_match();
    // The names of architectures, and values that only a newer runtime knows, are any text; they
    // are not quoted.
    const bool any_text = std::any_of(
        constraint.values.begin(), constraint.values.end(), [&](const core::Value& value) {
          const auto* name = std::get_if<std::string>(&value);
          const auto& choices = constraint.word->choices;
          return name != nullptr &&
                 std::find(choices.begin(), choices.end(), *name) == choices.end();
        });
    // `unbounded` is no number that a range can name, and 2^53 and more are rounded.
    const auto exact = [](const std::optional<double>& bound) {
      return !bound || (*bound < 0x1p53 && *bound > -0x1p53);
    };
    if (any_text || !exact(constraint.min) || !exact(constraint.max)) continue;
    const auto document = core::yaml::parse(text, "printed");
    require(document && document->root.keys.size() == 1,
            fmt::format("a printed condition is YAML: {}", text));
    const auto again =
        core::parse_constraint(document->root.keys[0], document->root.items[0], nullptr);
    require(again.has_value(), fmt::format("a printed condition is read again: {}", text));
    require(again->text() == text, fmt::format("it is the same: {} and {}", text, again->text()));
    require(again->met(problem, "sm_90") == constraint.met(problem, "sm_90"),
            fmt::format("it judges alike: {}", text));
  }
}

}  // namespace attnrt::fuzz
