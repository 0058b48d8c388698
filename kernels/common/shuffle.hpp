// kernels/common/shuffle.hpp: puts values into a random order that every standard library repeats
#pragma once

#include <cstddef>
#include <utility>

namespace kernels {

// Shuffles by Fisher and Yates. std::shuffle may draw in any way, so that a seed would mean
// different problems with different standard libraries. random: std::mt19937 or the like.
template <class Values, class Random>
void shuffle(Values& values, Random&& random) {
  for (size_t left = values.size(); left > 1; --left)
    std::swap(values[left - 1], values[static_cast<size_t>(random() % left)]);
}

}  // namespace kernels
