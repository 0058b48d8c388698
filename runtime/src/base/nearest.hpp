// runtime/src/base/nearest.hpp: suggests the known name that a misspelled one probably means
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace attnrt::core {

// Returns the candidate closest to word, or "" if none is close. Ignores case and takes '-' for
// '_'. Up to about one edit (a letter inserted, removed, replaced or swapped with its neighbour) in
// three letters counts as close.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

// Returns the end of an error message about an unknown word: "; did you mean cpu?", or "" if no
// candidate is close.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates);

// The same for a short list of candidates: if none is close, returns all of them, "; expected one
// of cpu, cuda, rocm".
std::string expected_one_of(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace attnrt::core
