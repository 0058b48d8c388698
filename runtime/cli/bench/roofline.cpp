// runtime/cli/bench/roofline.cpp: draws measurements under the limits of a device
//
//   FLOP/s ^          ________ AMX bf16     a level line for each limit of arithmetic
//          |         /________ FMA
//          |        /    o                  o  one measurement
//          |       /  o
//          |      / memory                  the slope: FLOP/s = bytes/s of memory * FLOP per byte
//          +---------------------> FLOP per byte, both axes logarithmic
//
// A dot cannot be above the lines, unless its data come from a cache.
#include "cli/bench/roofline.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/bench/table.hpp"
#include "cli/html/page.hpp"
#include "cli/html/plot.hpp"

namespace attnrt::cli::bench {
namespace {

constexpr int kWidth = 760, kHeight = 400;  // pixels
constexpr double kAroundRidge = 4;  // factor: how much of slope and level is shown beside the ridge
constexpr double kMarginX = 1.5, kMarginY = 2;  // factors of room beside the outermost values
// If the right end of the x axis is more than so many times the left end, only every other power of
// two has a label.
constexpr double kWideRange = 1000;

struct Bounds {
  double left, right, low, high;
};

// Returns axes that hold all dots, the highest limit, and the ridge where slope and level meet.
Bounds bounds_of(const std::vector<RooflineDot>& dots, std::optional<double> memory, double roof) {
  Bounds b{INFINITY, 0, INFINITY, roof};
  for (const RooflineDot& dot : dots) {
    b.left = std::min(b.left, dot.flop_per_byte), b.right = std::max(b.right, dot.flop_per_byte);
    b.low = std::min(b.low, dot.flop_s), b.high = std::max(b.high, dot.flop_s);
  }
  if (memory && roof > 0) {
    const double ridge = roof / *memory;
    b.left = std::min(b.left, ridge / kAroundRidge);
    b.right = std::max(b.right, ridge * kAroundRidge);
  }
  return {b.left / kMarginX, b.right * kMarginX, b.low / kMarginY, b.high * kMarginY};
}

}  // namespace

std::string draw_roofline(const Peak& peak, const std::vector<RooflineDot>& dots) {
  const auto memory = peak.memory();
  const double roof = std::max(peak.fma.value_or(0), peak.amx.value_or(0));
  const Bounds b = bounds_of(dots, memory, roof);
  html::Plot plot(kWidth, kHeight, {b.left, b.right, 0, 0, true}, {b.low, b.high, 0, 0, true});
  const double factor = b.right / b.left > kWideRange ? 4 : 2;
  const double first_tick = std::pow(2, std::ceil(std::log2(b.left)));
  for (double value = first_tick; value <= b.right; value *= factor)
    plot.x_tick(value, fmt::format("{:g}", value));
  plot.y_decades();
  plot.axis_names("FLOP per byte of the tensors", "FLOP/s");

  const auto clipped = [&](double x) { return std::clamp(x, b.left, b.right); };
  if (memory) {
    const double top = roof > 0 ? roof : b.high;
    const double from = clipped(b.low / *memory), to = clipped(top / *memory);
    plot.line({{from, from * *memory}, {to, to * *memory}}, R"(class="peak")");
    plot.text(plot.x.at(from) + 8, plot.y.at(from * *memory) + 18, "start",
              fmt::format("memory {}B/s", rate_text(*memory)));
  }
  for (const auto& [name, limit] : {std::pair("FMA", peak.fma), std::pair("AMX bf16", peak.amx)}) {
    if (!limit) continue;
    const double from = clipped(memory ? *limit / *memory : b.left);
    plot.line({{from, *limit}, {b.right, *limit}}, R"(class="peak")");
    plot.text(plot.x.to - 4, plot.y.at(*limit) - 5, "end",
              fmt::format("{} {}FLOP/s", name, rate_text(*limit)));
  }
  for (const RooflineDot& dot : dots) plot.dot(dot.flop_per_byte, dot.flop_s, dot.color, dot.title);
  const std::string title = core::device_text(peak.device);
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", html::escaped(title),
                     plot.svg("roofline of " + title));
}

}  // namespace attnrt::cli::bench
