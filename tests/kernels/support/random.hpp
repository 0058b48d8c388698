// tests/kernels/support/random.hpp: random recipes over everything that a problem can state
#pragma once

#include <string>
#include <vector>

#include "tests/kernels/support/case.hpp"

namespace kernels::test {

// The same seed gives the same recipe.
Recipe random_recipe(uint32_t seed);

// The features that a recipe uses, by name: "f16", "gqa", "mask_boolean", ... For the test that
// every pair of features occurs.
std::vector<std::string> features(const Recipe& recipe);

}  // namespace kernels::test
