// runtime/cli/html/plot.hpp: draws plots as SVG: axes, lines and points, and panels of curves
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace attnrt::cli::html {

// Returns a short number for an axis: "0", "2.5", "50 G".
std::string tick_text(double value);

// Maps values to pixels: low to `from`, high to `to`.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double at(double value) const;
};

// One plot. Draw the axes first: what is drawn later lies on top.
class Plot {
 public:
  // width and height are in pixels. The scales' pixels are set here, inside the margins.
  Plot(int width, int height, Scale across, Scale up);

  // Draw a line of the grid with a label on the axis.
  void x_tick(double value, const std::string& label);
  void y_tick(double value, const std::string& label);
  // Draws a grid line for each value, with labels where there is room. REQUIRES: ascending values.
  void x_ticks(const std::vector<double>& values);
  // Draws grid lines at 1, 2 and 5 times each power of ten. REQUIRES: y is logarithmic.
  void y_decades();
  void axis_names(const std::string& x_name, const std::string& y_name);

  // Draws text at a place in pixels. anchor: start, middle or end.
  void text(double x_pixel, double y_pixel, const char* anchor, const std::string& what);
  // Draws a line through points; `attributes` are those of its SVG path.
  void line(const std::vector<std::pair<double, double>>& points, const std::string& attributes);
  // Draws a dot; the title is shown where the pointer is on it.
  void dot(double px, double py, size_t color, const std::string& title);

  // Returns the SVG element; the label is for screen readers.
  std::string svg(const std::string& label) const;

 private:
  bool crowded() const;

  int width_, height_;
  std::string body_;

 public:
  Scale x, y;
};

// Curves over a common x axis, with horizontal lines for limits.
struct Panel {
  struct Point {
    double x, y, low, high;  // low and high: the ends of the error bar
    std::string title;
  };
  struct Curve {
    std::string name;
    size_t color;
    const char* dash;           // SVG's stroke-dasharray
    std::vector<Point> points;  // ascending in x
  };
  struct Ideal {  // a straight line to compare a curve with
    size_t color;
    std::pair<double, double> from, to;
  };
  std::string title, x_name, y_name;
  std::string unit;         // panels of the same unit may get the same y axis
  bool always_log = false;  // false: y is logarithmic only if the speeds differ very much
  std::vector<Curve> curves;
  std::map<std::string, double> limits;  // by name
  std::vector<Ideal> ideals;

  // Returns the curve of that name, and adds it if there is none.
  Curve& curve(const std::string& name, size_t color, const char* dash);
  double lowest() const;  // of what is drawn. REQUIRES: at least one point
  double highest() const;
};

// Draws the panel as an HTML figure. `highest` is the value that the y axis has to reach.
std::string draw(const Panel& panel, double highest);

}  // namespace attnrt::cli::html
