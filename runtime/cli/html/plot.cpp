// runtime/cli/html/plot.cpp: writes plots as SVG elements
//
// A plot's pixels, with the margins that its labels need:
//
//     0      kLeft                          width - kRight   width
//     +-------+------------------------------+----+  0
//     |       |                              |    |
//     |  50 G +------------------------------+    |  kTop: y.to
//     |       |         grid, curves         |    |
//     |     0 +------------------------------+    |  height - kBottom: y.from
//     |            512        2048                |
//     |               name of the x axis          |
//     +-------------------------------------------+  height
#include "cli/html/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "cli/html/page.hpp"

namespace attnrt::cli::html {
namespace {

// Pixels. A panel is drawn at this size; the style sheet fits it into its column.
constexpr int kPanelWidth = 360, kPanelHeight = 250;
constexpr double kLeft = 66, kRight = 14, kTop = 14, kBottom = 40;  // margins
constexpr double kLabelWidth = 34;    // room that a label of the x axis needs
constexpr double kDecadeHeight = 60;  // room that a decade needs to show its labels 2 and 5, too
constexpr double kDotRadius = 4;

// The highest over the lowest value of a panel from which its y axis is logarithmic. A linear axis
// would press the slow curves onto the x axis.
constexpr double kLogFrom = 50;
constexpr int kSteps = 5;             // about so many grid lines on a linear y axis
constexpr double kHeadroom = 1.02;    // a linear y axis reaches this far beyond the highest value
constexpr double kLogHeadroom = 1.5;  // and a logarithmic one this far, at both ends

// Returns 1, 2 or 5 times a power of ten, so that about `count` steps reach value.
double nice_step(double value, int count) {
  const double raw = value / count, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

// Returns the values of x that some curve has.
std::vector<double> x_values(const Panel& panel) {
  std::vector<double> values;
  for (const Panel::Curve& curve : panel.curves)
    for (const Panel::Point& point : curve.points) values.push_back(point.x);
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

void draw_limits(const Panel& panel, Plot& plot) {
  for (const auto& [name, value] : panel.limits) {
    plot.line({{plot.x.low, value}, {plot.x.high, value}}, R"(class="peak")");
    const bool at_bottom = plot.y.at(value) > plot.y.from - 20;  // no room for text below the line
    plot.text(plot.x.from + 6, plot.y.at(value) + (at_bottom ? -5 : 13), "start",
              fmt::format("{} {}", name, tick_text(value)));
  }
  for (const Panel::Ideal& ideal : panel.ideals)
    plot.line({ideal.from, ideal.to},
              fmt::format(R"(class="ideal" stroke="{}")", color(ideal.color)));
}

void draw_curve(const Panel::Curve& curve, Plot& plot) {
  const std::string stroke = color(curve.color);
  std::vector<std::pair<double, double>> path;
  for (const Panel::Point& point : curve.points) path.emplace_back(point.x, point.y);
  plot.line(path,
            fmt::format(R"(class="series" stroke="{}" stroke-dasharray="{}")", stroke, curve.dash));
  for (const Panel::Point& point : curve.points) {
    plot.line({{point.x, point.low}, {point.x, point.high}},
              fmt::format(R"(class="whisker" stroke="{}")", stroke));
    plot.dot(point.x, point.y, curve.color, point.title);
  }
}

}  // namespace

std::string tick_text(double value) {
  constexpr std::array kPrefixes = {"", " k", " M", " G", " T", " P"};
  size_t n = 0;
  for (; value >= 1000 && n + 1 < kPrefixes.size(); ++n) value /= 1000;
  return fmt::format("{:.3g}{}", value, kPrefixes[n]);
}

double Scale::at(double value) const {
  const auto f = [this](double v) { return log ? std::log2(v) : v; };
  const double part = high > low ? (f(value) - f(low)) / (f(high) - f(low)) : 0.5;
  return from + part * (to - from);
}

Plot::Plot(int width, int height, Scale across, Scale up)
    : width_(width), height_(height), x(across), y(up) {
  x.from = kLeft, x.to = width - kRight;
  y.from = height - kBottom, y.to = kTop;
}

void Plot::x_tick(double value, const std::string& label) {
  body_ +=
      fmt::format(R"(<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>)",
                  x.at(value), y.from, y.to);
  text(x.at(value), y.from + 15, "middle", label);
}

void Plot::x_ticks(const std::vector<double>& values) {
  double last_label = -std::numeric_limits<double>::infinity();
  for (const double value : values) {
    const bool room = x.at(value) - last_label > kLabelWidth;
    x_tick(value, room ? fmt::format("{:.0f}", value) : "");
    if (room) last_label = x.at(value);
  }
}

void Plot::y_tick(double value, const std::string& label) {
  body_ +=
      fmt::format(R"(<line class="grid" x1="{1:.1f}" x2="{2:.1f}" y1="{0:.1f}" y2="{0:.1f}"/>)",
                  y.at(value), x.from, x.to);
  text(x.from - 6, y.at(value) + 4, "end", label);
}

void Plot::y_decades() {
  for (double power = std::pow(10, std::floor(std::log10(y.low))); power <= y.high; power *= 10)
    for (const double value : {power, 2 * power, 5 * power})
      if (value >= y.low && value <= y.high)
        y_tick(value, crowded() && value != power ? "" : tick_text(value));
}

void Plot::axis_names(const std::string& x_name, const std::string& y_name) {
  text((x.from + x.to) / 2, height_ - 6, "middle", x_name);
  constexpr const char* kTurned =
      R"svg(<text transform="translate(11 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>)svg";
  body_ += fmt::format(kTurned, (y.from + y.to) / 2, escaped(y_name));
}

void Plot::text(double x_pixel, double y_pixel, const char* anchor, const std::string& what) {
  body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x_pixel,
                       y_pixel, anchor, escaped(what));
}

void Plot::line(const std::vector<std::pair<double, double>>& points,
                const std::string& attributes) {
  std::string path;
  for (const auto& [px, py] : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : " L", x.at(px), y.at(py));
  body_ += fmt::format(R"(<path d="{}" {}/>)", path, attributes);
}

void Plot::dot(double px, double py, size_t n, const std::string& title) {
  body_ +=
      fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"><title>{}</title></circle>)",
                  x.at(px), y.at(py), kDotRadius, color(n), escaped(title));
}

std::string Plot::svg(const std::string& label) const {
  constexpr const char* kFrame = R"(<svg xmlns="http://www.w3.org/2000/svg" )"
                                 R"(viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>)";
  return fmt::format(kFrame, width_, height_, escaped(label), body_);
}

// Whether the decades of the y axis are too close for labels between powers of ten.
bool Plot::crowded() const {
  const double decades = std::log10(y.high / y.low);
  return decades > (y.from - y.to) / kDecadeHeight;
}

Panel::Curve& Panel::curve(const std::string& name, size_t color, const char* dash) {
  const auto found = std::find_if(curves.begin(), curves.end(),
                                  [&](const Curve& curve) { return curve.name == name; });
  return found != curves.end() ? *found : curves.emplace_back(Curve{name, color, dash, {}});
}

double Panel::lowest() const {
  double lowest = INFINITY;
  for (const Curve& curve : curves)
    for (const Point& point : curve.points) lowest = std::min(lowest, point.low);
  for (const Ideal& ideal : ideals) lowest = std::min(lowest, ideal.from.second);
  return lowest;
}

double Panel::highest() const {
  double highest = 0;
  for (const Curve& curve : curves)
    for (const Point& point : curve.points) highest = std::max(highest, point.high);
  for (const auto& [name, value] : limits) highest = std::max(highest, value);
  for (const Ideal& ideal : ideals) highest = std::max(highest, ideal.to.second);
  return highest;
}

std::string draw(const Panel& panel, double highest) {
  const std::vector<double> xs = x_values(panel);
  // Room beside the first and the last point: a few percent of the axis, also if there is one
  // point.
  const double x_margin = std::pow(xs.back() / xs.front(), 0.04) * 1.02;
  const Scale across{xs.front() / x_margin, xs.back() * x_margin, 0, 0, true};

  const double lowest = panel.lowest();
  const bool log = panel.always_log || highest > kLogFrom * lowest;
  const double step = nice_step(highest, kSteps);
  const double linear_top = step * std::ceil(highest * kHeadroom / step);
  const Scale up = log ? Scale{lowest / kLogHeadroom, highest * kLogHeadroom, 0, 0, true}
                       : Scale{0, linear_top, 0, 0, false};

  Plot plot(kPanelWidth, kPanelHeight, across, up);
  if (log) plot.y_decades();
  for (int n = 0; !log && n * step <= linear_top * 1.001; ++n)  // rounding must not lose the top
    plot.y_tick(n * step, tick_text(n * step));
  plot.x_ticks(xs);
  plot.axis_names(panel.x_name, panel.y_name);
  draw_limits(panel, plot);
  for (const Panel::Curve& curve : panel.curves) draw_curve(curve, plot);
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(panel.title),
                     plot.svg(panel.title));
}

}  // namespace attnrt::cli::html
