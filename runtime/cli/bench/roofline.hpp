// runtime/cli/bench/roofline.hpp: a roofline plot of one device
#pragma once

#include <string>
#include <vector>

#include "cli/bench/report.hpp"

namespace attnrt::cli::bench {

// One measurement in a roofline plot.
struct RooflineDot {
  double flop_per_byte, flop_s;
  size_t color;       // see html::color
  std::string title;  // shown where the pointer is on the dot
};

// Draws the dots under the device's limits, as an HTML figure. REQUIRES: at least one dot.
std::string draw_roofline(const Peak& peak, const std::vector<RooflineDot>& dots);

}  // namespace attnrt::cli::bench
