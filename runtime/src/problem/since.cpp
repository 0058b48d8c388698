// runtime/src/problem/since.cpp: what of a problem a plugin is too old to know
#include "problem/since.hpp"

#include <algorithm>

namespace attnrt::core {
namespace {

// Returns the minor version of the ABI that the problem's value of this word needs.
int32_t needed_minor(const Word& word, const Problem& problem, const Problem& usual) {
  const Value value = value_of(word, problem, "");
  int32_t needed = value != value_of(word, usual, "") ? word.since : 0;
  const auto* name = std::get_if<std::string>(&value);
  for (size_t i = 0; name != nullptr && i < word.choices_since.size(); ++i) {
    if (word.choices[i] == *name) needed = std::max(needed, word.choices_since[i]);
  }
  return needed;
}

}  // namespace

std::vector<std::string> later_words(const Problem& problem, int32_t abi_minor,
                                     std::span<const Word> words) {
  const Problem usual = default_problem();
  std::vector<std::string> reasons;
  for (const Word& word : words) {
    if (word.since <= abi_minor && word.choices_since.empty()) continue;
    const int32_t needed = needed_minor(word, problem, usual);
    if (needed <= abi_minor) continue;
    reasons.push_back(fmt::format("is built for ABI {0}.{1}; {2} {3} needs {0}.{4}",
                                  ATTNRT_ABI_MAJOR, abi_minor, word.name,
                                  to_text(word, value_of(word, problem, "")), needed));
  }
  return reasons;
}

}  // namespace attnrt::core
