// runtime/conformance/rules.hpp: the numbered rules that a conforming plugin keeps
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace attnrt::conformance {

// passed: at least one thing that the rule is about was tried, and nothing was wrong.
// skipped: nothing that the rule is about was tried; the outcome's detail says what was missing.
enum class State { passed, failed, skipped };
const char* state_name(State state);

struct Outcome {
  State state = State::passed;
  std::string detail;            // why it failed or was skipped
  std::optional<uint64_t> seed;  // of the case that failed; draws the same case again
  bool died = false;             // the process ended in this rule, or was killed at its deadline
  bool timed_out = false;        // it was killed at its deadline: it may only be slow
};
inline Outcome passed() { return {}; }
inline Outcome failed(std::string detail, std::optional<uint64_t> seed = {}) {
  return {State::failed, std::move(detail), seed, false};
}
inline Outcome skipped(std::string detail) {
  return {State::skipped, std::move(detail), {}, false};
}

class Subject;

// Ids are never reused. A new rule goes to the end of its group.
struct Rule {
  std::string_view id;           // "ABI-3"
  std::string_view requirement;  // what the plugin must do
  std::string_view effect;       // what users see if it does not
  std::string_view needs;        // the rule that must have passed before, or ""
  Outcome (*check)(Subject&);    // null: only a parent process can check it (children.hpp)
};

std::span<const Rule> rules();  // in the order in which they are checked
const Rule* find_rule(std::string_view id);

}  // namespace attnrt::conformance
