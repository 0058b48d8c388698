// tests/kernels/support/random.hpp: a seed into a recipe, over everything the vocabulary can say
#pragma once

#include <string>
#include <vector>

#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// The same seed gives the same recipe.
Recipe random_recipe(uint32_t seed);

// What a recipe uses, by name: "f16", "gqa", "mask_boolean", "window", ...; for the test that every pair has been tried.
std::vector<std::string> features(const Recipe& recipe);

}  // namespace kernels::test
