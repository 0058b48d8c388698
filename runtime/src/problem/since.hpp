// runtime/src/problem/since.hpp: what of a problem a plugin is too old to know
//
// A minor version of the ABI appends words (fields of attnrt_problem that are off when zero) and
// values of words. A plugin that was built for an older one does not look at what it does not know,
// and so would compute something else. The host therefore never hands it a problem that uses that.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "problem/problem.hpp"

namespace attnrt::core {

// Returns a reason for each word of the problem that a plugin built for ABI 1.abi_minor does not
// know: "is built for ABI 1.0; kv_dtype i8 needs 1.1". A word counts if it came later and is not at
// its default; a value counts if it came later. words: those of the ABI; tests give others.
std::vector<std::string> later_words(const Problem& problem, int32_t abi_minor,
                                     std::span<const Word> words = vocabulary());

}  // namespace attnrt::core
