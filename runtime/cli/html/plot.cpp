// runtime/cli/html/plot.cpp: numbers and names into SVG: scales, axes, lines and points, and panels of curves
#include "cli/html/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/command.hpp"

namespace attnrt::cli::bench {
namespace {

constexpr double kLogFrom = 50;  // of speeds in one panel, the fastest over the slowest

// 1, 2 or 5 times a power of ten, so that about count steps reach value.
double nice_step(double value, int count) {
  const double raw = value / count, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : one_line(text)) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += c;
    }
  }
  return result;
}

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
  x.from = 66, x.to = width - 14;
  y.from = height - 40, y.to = 14;
}

void Plot::x_tick(double value, const std::string& label) {
  body_ +=
      fmt::format(R"(<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>)",
                  x.at(value), y.from, y.to);
  text(x.at(value), y.from + 15, "middle", label);
}

void Plot::x_ticks(const std::vector<double>& values) {
  double last = -1e9;
  for (const double value : values) {
    const bool room = x.at(value) - last > 34;
    x_tick(value, room ? fmt::format("{:.0f}", value) : "");
    if (room) last = x.at(value);
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

void Plot::names(const std::string& x_name, const std::string& y_name) {
  text((x.from + x.to) / 2, height_ - 6, "middle", x_name);
  body_ += fmt::format(
      R"svg(<text transform="translate(11 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>)svg",
      (y.from + y.to) / 2, escaped(y_name));
}

void Plot::text(double at_x, double at_y, const char* anchor, const std::string& what) {
  body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", at_x, at_y,
                       anchor, escaped(what));
}

void Plot::line(const std::vector<std::pair<double, double>>& points,
                const std::string& attributes) {
  std::string path;
  for (const auto& [px, py] : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : " L", x.at(px), y.at(py));
  body_ += fmt::format(R"(<path d="{}" {}/>)", path, attributes);
}

void Plot::point(double px, double py, size_t color, const std::string& title) {
  body_ += fmt::format(
      R"svg(<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="var(--s{})"><title>{}</title></circle>)svg",
      x.at(px), y.at(py), color, escaped(title));
}

std::string Plot::svg(const std::string& label) const {
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>)",
      width_, height_, escaped(label), body_);
}

bool Plot::crowded() const { return std::log10(y.high / y.low) > (y.from - y.to) / 60; }

Panel::Curve& Panel::curve(const std::string& name, size_t color, const char* dash) {
  const auto found = std::find_if(curves.begin(), curves.end(),
                                  [&](const Curve& curve) { return curve.name == name; });
  return found != curves.end() ? *found : curves.emplace_back(Curve{name, color, dash, {}});
}

double Panel::lowest() const {
  double lowest = curves.front().points.front().low;
  for (const Curve& curve : curves)
    for (const Point& point : curve.points) lowest = std::min(lowest, point.low);
  for (const Ideal& ideal : ideals) lowest = std::min(lowest, ideal.from.second);
  return lowest;
}

double Panel::highest() const {
  double highest = 0;
  for (const Curve& curve : curves)
    for (const Point& point : curve.points) highest = std::max(highest, point.high);
  for (const auto& [name, value] : peaks) highest = std::max(highest, value);
  for (const Ideal& ideal : ideals) highest = std::max(highest, ideal.to.second);
  return highest;
}

std::string draw(const Panel& panel, double highest) {
  std::vector<double> xs;
  for (const Panel::Curve& curve : panel.curves)
    for (const Panel::Point& point : curve.points) xs.push_back(point.x);
  std::sort(xs.begin(), xs.end());
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  const double margin = std::pow(xs.back() / xs.front(), 0.04) * 1.02;
  const double lowest = panel.lowest();
  const bool log =
      panel.log ||
      highest > kLogFrom * lowest;  // one scale would press the slow ones onto the axis
  const double step = nice_step(highest, 5),
               top = log ? highest * 1.5 : step * std::ceil(highest * 1.02 / step);
  Plot plot(360, 250, {xs.front() / margin, xs.back() * margin, 0, 0, true},
            {log ? lowest / 1.5 : 0, top, 0, 0, log});
  if (log) plot.y_decades();
  for (double value = 0; !log && value <= top * 1.001; value += step)
    plot.y_tick(value, tick_text(value));
  plot.x_ticks(xs);
  plot.names(panel.x_name, panel.y_name);
  for (const auto& [name, value] : panel.peaks) {
    plot.line({{plot.x.low, value}, {plot.x.high, value}}, R"(class="peak")");
    const bool low = plot.y.at(value) > plot.y.from - 20;
    plot.text(plot.x.from + 6, plot.y.at(value) + (low ? -5 : 13), "start",
              fmt::format("{} {}", name, tick_text(value)));
  }
  for (const Panel::Ideal& ideal : panel.ideals)
    plot.line({ideal.from, ideal.to},
              fmt::format(R"x(class="ideal" stroke="var(--s{})")x", ideal.color));
  for (const auto& [name, color, dash, points] : panel.curves) {
    std::vector<std::pair<double, double>> path;
    for (const Panel::Point& point : points) path.emplace_back(point.x, point.y);
    plot.line(path, fmt::format(R"x(class="series" stroke="var(--s{})" stroke-dasharray="{}")x",
                                color, dash));
    for (const Panel::Point& point : points) {
      plot.line({{point.x, point.low}, {point.x, point.high}},
                fmt::format(R"x(class="whisker" stroke="var(--s{})")x", color));
      plot.point(point.x, point.y, color, point.title);
    }
  }
  return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(panel.title),
                     plot.svg(panel.title));
}

}  // namespace attnrt::cli::bench
