// runtime/cli/bench_page.cpp: a benchmark's report into one page that needs nothing but itself: plots as SVG, and the table
//
// It is XHTML in an HTML document, so that anything can read it, and asks for no network, script or font.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "bench.hpp"
#include "trace.hpp"

namespace attnrt::cli::bench {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666d; --line: #d9dde2; --paper: #ffffff; --card: #f7f8fa;
  --s0: #0b6bcb; --s1: #c2410c; --s2: #15803d; --s3: #a21caf; --s4: #6b7a00; --s5: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa3ad; --line: #343a42; --paper: #14171a;
  --card: #1c2025; --s0: #6cb2ff; --s1: #ff9d66; --s2: #6ddb8f; --s3: #e68cf0; --s4: #c9d65f; --s5: #67d4ea; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p { margin: 4px 0; } .soft { color: var(--soft); }
.panels figure { margin: 0; } .panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 16px; margin-top: 12px; }
figure { margin: 12px 0 0; padding: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg .name { fill: var(--ink); }
svg .grid { stroke: var(--line); } svg .peak { stroke: var(--soft); stroke-dasharray: 2 3; fill: none; }
svg .series, svg .whisker { fill: none; stroke-width: 2; } svg .whisker { stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 12px; } .legend svg { width: 44px; display: inline; vertical-align: middle; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: 8px; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.left, td.left { text-align: left; } td.bad { color: var(--s1); text-align: left; white-space: normal; }
th { color: var(--soft); font-weight: 600; }
)";
constexpr size_t kColors = 6;
constexpr double kLogFrom = 50;  // of speeds in one panel, the fastest over the slowest
constexpr std::array kDashes = {"none", "7 4", "2 3", "10 3 2 3"};

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

// 0, 50 G, 2.5 T: of an axis, where three digits would be noise.
std::string tick_text(double value) {
  constexpr std::array kPrefixes = {"", " k", " M", " G", " T", " P"};
  size_t n = 0;
  for (; value >= 1000 && n + 1 < kPrefixes.size(); ++n) value /= 1000;
  return fmt::format("{:.3g}{}", value, kPrefixes[n]);
}

// Values into pixels.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double at(double value) const {
    const auto f = [this](double v) { return log ? std::log2(v) : v; };
    const double part = high > low ? (f(value) - f(low)) / (f(high) - f(low)) : 0.5;
    return from + part * (to - from);
  }
};

// 1, 2 or 5 times a power of ten, so that about count steps reach value.
double nice_step(double value, int count) {
  const double raw = value / count, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

// A plot being drawn: axes first, then what lies between them.
class Plot {
 public:
  Plot(int width, int height, Scale across, Scale up) : width_(width), height_(height), x(across), y(up) {
    x.from = 66, x.to = width - 14;
    y.from = height - 40, y.to = 14;
  }
  void x_tick(double value, const std::string& label) {
    body_ += fmt::format(R"(<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>)", x.at(value),
                         y.from, y.to);
    text(x.at(value), y.from + 15, "middle", label);
  }
  void y_tick(double value, const std::string& label) {
    body_ += fmt::format(R"(<line class="grid" x1="{1:.1f}" x2="{2:.1f}" y1="{0:.1f}" y2="{0:.1f}"/>)", y.at(value),
                         x.from, x.to);
    text(x.from - 6, y.at(value) + 4, "end", label);
  }
  // Of a logarithmic scale: 1, 2 and 5 times each power of ten.
  void y_decades() {
    for (double power = std::pow(10, std::floor(std::log10(y.low))); power <= y.high; power *= 10)
      for (const double value : {power, 2 * power, 5 * power})
        if (value >= y.low && value <= y.high) y_tick(value, crowded() && value != power ? "" : tick_text(value));
  }
  void names(const std::string& x_name, const std::string& y_name) {
    text((x.from + x.to) / 2, height_ - 6, "middle", x_name);
    body_ += fmt::format(R"svg(<text transform="translate(11 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>)svg",
                         (y.from + y.to) / 2, escaped(y_name));
  }
  void text(double at_x, double at_y, const char* anchor, const std::string& what) {
    body_ +=
        fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", at_x, at_y, anchor, escaped(what));
  }
  void line(const std::vector<std::pair<double, double>>& points, const std::string& attributes) {
    std::string path;
    for (const auto& [px, py] : points)
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : " L", x.at(px), y.at(py));
    body_ += fmt::format(R"(<path d="{}" {}/>)", path, attributes);
  }
  void point(double px, double py, size_t color, const std::string& title) {
    body_ += fmt::format(R"svg(<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="var(--s{})"><title>{}</title></circle>)svg",
                         x.at(px), y.at(py), color, escaped(title));
  }
  std::string svg(const std::string& label) const {
    return fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>)", width_,
        height_, escaped(label), body_);
  }

 private:
  bool crowded() const { return std::log10(y.high / y.low) > (y.from - y.to) / 60; }

  int width_, height_;
  std::string body_;

 public:
  Scale x, y;
};

class Page {
 public:
  explicit Page(const Report& report) : report_(report), columns_(columns_of(report.problems())) {
    for (const Comparison& result : report.comparisons) {
      for (const Measurement& m : result.measurements)
        if (m.state == State::measured) color_of(m.backend);
      dash_of(result.problem);
    }
  }

  std::string html() {
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta "
        "charset=\"utf-8\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>attnrt bench</title>\n"
        "<style>{}</style>\n</head>\n<body>\n<main>\n{}{}{}{}</main>\n</body>\n</html>\n",
        kStyle, heading(), speeds(), rooflines(), measurements());
  }

 private:
  struct Point {
    double x, y, low, high;
    std::string title;
  };
  // Problems that differ only in seq and head_dim.
  struct Panel {
    std::string title;
    bool decode = false;
    attnrt_dtype dtype{};
    std::map<std::pair<std::string, std::string>, std::vector<Point>> series;  // by backend and head_dim
    std::map<std::string, double> peaks;                                       // by name
  };

  size_t color_of(const std::string& backend) { return place_in(backends_, backend) % kColors; }
  const char* dash_of(const core::Problem& p) { return kDashes[place_in(dims_, head_dim(p)) % kDashes.size()]; }
  static size_t place_in(std::vector<std::string>& list, const std::string& name) {
    const auto found = std::find(list.begin(), list.end(), name);
    if (found != list.end()) return static_cast<size_t>(found - list.begin());
    list.push_back(name);
    return list.size() - 1;
  }
  static std::string head_dim(const core::Problem& p) {
    return p.head_dim == p.head_dim_v ? fmt::format("{}", p.head_dim) : fmt::format("{}/{}", p.head_dim, p.head_dim_v);
  }
  static bool is_decode(const core::Problem& p) { return p.seq_q == 1; }

  // "f16, causal", "decode, bf16, heads 32": the words that vary, but for those that the plot itself shows.
  std::string title_of(const core::Problem& p) const {
    std::string title = is_decode(p) ? "decode" : "";
    const auto cells = columns_.cells(p);
    for (size_t n = 0; n < cells.size(); ++n) {
      const core::Word& word = *columns_.words[n];
      if (word.name.starts_with("seq") || word.name.starts_with("head_dim")) continue;
      title += title.empty() ? "" : ", ";
      if (word.kind == core::WordKind::flag) title += (cells[n] == "true" ? "" : "no ") + columns_.names[n];
      if (word.kind != core::WordKind::flag) title += (word.name == "dtype" ? "" : columns_.names[n] + " ") + cells[n];
    }
    return title.empty() ? columns_.shared : title;
  }

  std::string point_title(const Measurement& m, const Comparison& result) const {
    const double median = m.median();
    return fmt::format("{}: {}, {}FLOP/s, {}B/s; {}", m.backend, time_text(median),
                       rate_text(result.work.flop / median), rate_text(result.work.bytes / median),
                       core::describe(result.problem));
  }

  std::vector<Panel> panels() {
    std::vector<Panel> panels;
    for (const Comparison& result : report_.comparisons) {
      const core::Problem& p = result.problem;
      const std::string title = title_of(p);
      auto panel = std::find_if(panels.begin(), panels.end(), [&](const Panel& known) { return known.title == title; });
      if (panel == panels.end()) panel = panels.insert(panels.end(), Panel{title, is_decode(p), p.dtype, {}, {}});
      const double amount = is_decode(p) ? result.work.bytes : result.work.flop;
      for (const Measurement& m : result.measurements) {
        if (m.state != State::measured) continue;
        panel->series[{m.backend, head_dim(p)}].push_back({static_cast<double>(p.seq_kv), amount / m.median(),
                                                           amount / m.quantile(0.75), amount / m.quantile(0.25),
                                                           point_title(m, result)});
        const Peak* peak = report_.peak_of(m.device);
        if (const auto best = is_decode(p) ? peak->memory() : peak->compute(p.dtype))
          panel->peaks[core::device_text(peak->device) + (is_decode(p)                          ? " memory"
                                                          : peak->compute(p.dtype) == peak->amx ? " AMX peak"
                                                                                                : " FMA peak")] = *best;
      }
    }
    std::erase_if(panels, [](const Panel& panel) { return panel.series.empty(); });
    for (Panel& panel : panels)
      for (auto& [name, points] : panel.series)
        std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.x < b.x; });
    return panels;
  }

  // Panels of one dtype have one scale, so that they can be compared.
  static double highest_of(const std::vector<Panel>& panels, const Panel& like) {
    double highest = 0;
    for (const Panel& panel : panels) {
      if (panel.decode != like.decode || !core::same_dtype(panel.dtype, like.dtype)) continue;
      for (const auto& [name, points] : panel.series)
        for (const Point& point : points) highest = std::max(highest, point.high);
      for (const auto& [name, value] : panel.peaks) highest = std::max(highest, value);
    }
    return highest;
  }

  static double lowest_of(const Panel& panel) {
    double lowest = panel.series.begin()->second.front().low;
    for (const auto& [name, points] : panel.series)
      for (const Point& point : points) lowest = std::min(lowest, point.low);
    return lowest;
  }

  std::string draw(const Panel& panel, double highest) {
    std::vector<double> seqs;
    for (const auto& [name, points] : panel.series)
      for (const Point& point : points) seqs.push_back(point.x);
    std::sort(seqs.begin(), seqs.end());
    seqs.erase(std::unique(seqs.begin(), seqs.end()), seqs.end());
    const double margin = std::pow(seqs.back() / seqs.front(), 0.04) * 1.02;
    const double lowest = lowest_of(panel);
    const bool log = highest > kLogFrom * lowest;  // one scale would press the slow ones onto the axis
    const double step = nice_step(highest, 5), top = log ? highest * 1.5 : step * std::ceil(highest * 1.02 / step);
    Plot plot(360, 250, {seqs.front() / margin, seqs.back() * margin, 0, 0, true},
              {log ? lowest / 1.5 : 0, top, 0, 0, log});
    if (log) plot.y_decades();
    for (double value = 0; !log && value <= top * 1.001; value += step) plot.y_tick(value, tick_text(value));
    double last = -1e9;
    for (const double seq : seqs) {
      const bool room = plot.x.at(seq) - last > 34;
      plot.x_tick(seq, room ? fmt::format("{:.0f}", seq) : "");
      if (room) last = plot.x.at(seq);
    }
    plot.names(panel.decode ? "seq_kv" : "seq", panel.decode ? "B/s" : "FLOP/s");
    for (const auto& [name, value] : panel.peaks) {
      plot.line({{plot.x.low, value}, {plot.x.high, value}}, R"(class="peak")");
      const bool low = plot.y.at(value) > plot.y.from - 20;
      plot.text(plot.x.from + 6, plot.y.at(value) + (low ? -5 : 13), "start",
                fmt::format("{} {}", name, tick_text(value)));
    }
    for (const auto& [name, points] : panel.series) {
      const size_t color = place_in(backends_, name.first) % kColors;
      const char* dash = kDashes[place_in(dims_, name.second) % kDashes.size()];
      std::vector<std::pair<double, double>> path;
      for (const Point& point : points) path.emplace_back(point.x, point.y);
      plot.line(path, fmt::format(R"x(class="series" stroke="var(--s{})" stroke-dasharray="{}")x", color, dash));
      for (const Point& point : points) {
        plot.line({{point.x, point.low}, {point.x, point.high}},
                  fmt::format(R"x(class="whisker" stroke="var(--s{})")x", color));
        plot.point(point.x, point.y, color, point.title);
      }
    }
    return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(panel.title), plot.svg(panel.title));
  }

  std::string heading() const {
    std::string text =
        fmt::format("<h1>attnrt bench</h1>\n<p>{}; attnrt {}</p>\n", escaped(conditions_text(report_)), ATTNRT_VERSION);
    for (const Peak& peak : report_.peaks) text += fmt::format("<p class=\"soft\">{}</p>\n", escaped(peak_text(peak)));
    if (!columns_.shared.empty()) text += fmt::format("<p class=\"soft\">problems: {}</p>\n", escaped(columns_.shared));
    return text;
  }

  std::string legend(bool with_head_dims) {
    std::string text = "<div class=\"legend\">\n";
    const auto sample = [](const std::string& stroke, const char* dash, const std::string& name) {
      return fmt::format(
          R"(<span><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 44 10" width="44" height="10" aria-hidden="true"><line x1="2" x2="42" y1="5" y2="5" stroke="{}" stroke-width="2" stroke-dasharray="{}"/></svg> {}</span>)",
          stroke, dash, escaped(name));
    };
    for (size_t n = 0; n < backends_.size(); ++n)
      text += sample(fmt::format("var(--s{})", n % kColors), "none", backends_[n]) + "\n";
    for (size_t n = 0; n < dims_.size() && with_head_dims && dims_.size() > 1; ++n)
      text += sample("var(--soft)", kDashes[n % kDashes.size()], "head_dim " + dims_[n]) + "\n";
    return text + "</div>\n";
  }

  std::string speeds() {
    const std::vector<Panel> all = panels();
    if (all.empty()) return {};
    std::string text =
        "<section>\n<h2>Speed over seq</h2>\n<p class=\"soft\">More is better; bars are the quartiles.</p>\n" +
        legend(true) + "<div class=\"panels\">\n";
    for (const Panel& panel : all) text += draw(panel, highest_of(all, panel));
    return text + "</div>\n</section>\n";
  }

  std::string roofline(const Peak& peak) {
    struct Dot {
      double x, y;
      size_t color;
      std::string title;
    };
    std::vector<Dot> dots;
    for (const Comparison& result : report_.comparisons)
      for (const Measurement& m : result.measurements)
        if (m.state == State::measured && result.work.flop > 0 && m.device.type == peak.device.type &&
            m.device.id == peak.device.id)
          dots.push_back({result.work.flop / result.work.bytes, result.work.flop / m.median(), color_of(m.backend),
                          point_title(m, result)});
    if (dots.empty()) return {};
    const auto memory = peak.memory();
    double left = dots.front().x, right = left, low = dots.front().y, high = low;
    for (const Dot& dot : dots) {
      left = std::min(left, dot.x), right = std::max(right, dot.x);
      low = std::min(low, dot.y), high = std::max(high, dot.y);
    }
    const auto roof = std::max(peak.fma.value_or(0), peak.amx.value_or(0));
    if (memory && roof > 0) left = std::min(left, roof / *memory / 4), right = std::max(right, roof / *memory * 4);
    left /= 1.5, right *= 1.5;
    high = std::max(high, roof) * 2, low /= 2;
    Plot plot(760, 400, {left, right, 0, 0, true}, {low, high, 0, 0, true});
    const double factor = right / left > 1000 ? 4 : 2;
    for (double value = std::pow(2, std::ceil(std::log2(left))); value <= right; value *= factor)
      plot.x_tick(value, fmt::format("{:g}", value));
    plot.y_decades();
    plot.names("FLOP for each byte of the tensors", "FLOP/s");
    const auto clipped = [&](double x) { return std::clamp(x, left, right); };
    if (memory) {
      const double from = clipped(low / *memory), to = clipped((roof > 0 ? roof : high) / *memory);
      plot.line({{from, from * *memory}, {to, to * *memory}}, R"(class="peak")");
      plot.text(plot.x.at(from) + 8, plot.y.at(from * *memory) + 18, "start",
                fmt::format("memory {}B/s", rate_text(*memory)));
    }
    for (const auto& [name, best] : {std::pair("FMA", peak.fma), std::pair("AMX bf16", peak.amx)}) {
      if (!best) continue;
      plot.line({{clipped(memory ? *best / *memory : left), *best}, {right, *best}}, R"(class="peak")");
      plot.text(plot.x.to - 4, plot.y.at(*best) - 5, "end", fmt::format("{} {}FLOP/s", name, rate_text(*best)));
    }
    for (const Dot& dot : dots) plot.point(dot.x, dot.y, dot.color, dot.title);
    const std::string title = core::device_text(peak.device);
    return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(title),
                       plot.svg("roofline of " + title));
  }

  std::string rooflines() {
    std::string text;
    for (const Peak& peak : report_.peaks) text += roofline(peak);
    if (text.empty()) return text;
    return "<section>\n<h2>Roofline</h2>\n<p class=\"soft\">What a device's memory and its arithmetic leave possible, "
           "both "
           "measured here. Above memory's line lies what comes out of caches.</p>\n" +
           legend(false) + text + "</section>\n";
  }

  std::string measurements() const {
    const Table table = table_of(report_);
    std::string text = "<section>\n<h2>All measurements</h2>\n<div class=\"scroll\"><table>\n<thead><tr>";
    for (size_t n = 0; n < table.head.size(); ++n)
      text += fmt::format("<th{}>{}</th>", n < table.left ? " class=\"left\"" : "", escaped(table.head[n]));
    text += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      text += "<tr>";
      for (size_t n = 0; n < row.size(); ++n) {
        const bool sentence = n + 1 == row.size() && row.size() < table.head.size();
        text += sentence
                    ? fmt::format("<td class=\"bad\" colspan=\"{}\">{}</td>", table.head.size() - n, escaped(row[n]))
                    : fmt::format("<td{}>{}</td>", n < table.left ? " class=\"left\"" : "", escaped(row[n]));
      }
      text += "</tr>\n";
    }
    return text + "</tbody>\n</table></div>\n</section>\n";
  }

  const Report& report_;
  const Columns columns_;
  std::vector<std::string> backends_, dims_;
};

}  // namespace

std::string to_page(const Report& report) { return Page(report).html(); }

}  // namespace attnrt::cli::bench
