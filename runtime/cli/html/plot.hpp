// runtime/cli/html/plot.hpp: numbers and names into SVG: scales, axes, lines and points, and panels of curves
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnrt::cli::bench {

std::string escaped(std::string_view text);  // for XML
std::string tick_text(
    double value);  // 0, 50 G, 2.5 T: of an axis, where three digits would be noise

// Values into pixels.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double at(double value) const;
};

// A plot being drawn: axes first, then what lies between them.
class Plot {
 public:
  Plot(int width, int height, Scale across, Scale up);
  void x_tick(double value, const std::string& label);
  void x_ticks(const std::vector<double>& values);  // ascending; a label where there is room
  void y_tick(double value, const std::string& label);
  void y_decades();  // of a logarithmic scale: 1, 2 and 5 times each power of ten
  void names(const std::string& x_name, const std::string& y_name);
  void text(double at_x, double at_y, const char* anchor, const std::string& what);
  void line(const std::vector<std::pair<double, double>>& points, const std::string& attributes);
  void point(double px, double py, size_t color, const std::string& title);
  std::string svg(const std::string& label) const;

 private:
  bool crowded() const;

  int width_, height_;
  std::string body_;

 public:
  Scale x, y;
};

// Speed over something, one curve for each backend and head_dim.
struct Panel {
  struct Point {
    double x, y, low, high;
    std::string title;
  };
  struct Curve {
    std::string name;
    size_t color;
    const char* dash;
    std::vector<Point> points;  // ascending
  };
  struct Ideal {
    size_t color;
    std::pair<double, double> from, to;
  };
  std::string title, x_name, y_name;
  std::string unit;  // panels alike in this one may have one scale
  bool log = false;  // whatever the range
  std::vector<Curve> curves;
  std::map<std::string, double> peaks;  // by name
  std::vector<Ideal> ideals;

  Curve& curve(const std::string& name, size_t color, const char* dash);
  double lowest() const;
  double highest() const;
};

std::string draw(const Panel& panel, double highest);  // as a figure

}  // namespace attnrt::cli::bench
