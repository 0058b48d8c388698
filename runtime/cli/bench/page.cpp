// runtime/cli/bench/page.cpp: a benchmark's report into one page that needs nothing but itself: plots as SVG, and the table
//
// It is XHTML in an HTML document, so that anything can read it, and asks for no network, script or font.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/bench/bench.hpp"
#include "cli/html/plot.hpp"
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
svg .ideal { stroke-dasharray: 5 4; fill: none; } svg .series, svg .whisker { fill: none; stroke-width: 2; } svg .whisker { stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 12px; } .legend svg { width: 44px; display: inline; vertical-align: middle; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: 8px; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.left, td.left { text-align: left; } td.bad { color: var(--s1); text-align: left; white-space: normal; }
th { color: var(--soft); font-weight: 600; }
)";
constexpr size_t kColors = 6;
constexpr const char* kIdealDash = "5 4";  // as kStyle has it
constexpr std::array kDashes = {"none", "7 4", "2 3", "10 3 2 3"};

class Page {
 public:
  explicit Page(const Report& report)
      : report_(report),
        columns_(columns_of(report.problems())),
        most_threads_(*std::max_element(report.threads.begin(), report.threads.end())) {
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
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>attnrt "
        "bench</title>\n"
        "<style>{}</style>\n</head>\n<body>\n<main>\n{}{}{}{}{}</main>\n</body>\n</html>\n",
        kStyle, heading(), speeds(), scaling(), rooflines(), measurements());
  }

 private:
  size_t color_of(const std::string& backend) { return place_in(backends_, backend) % kColors; }
  const char* dash_of(const core::Problem& p) {
    return kDashes[place_in(dims_, head_dim(p)) % kDashes.size()];
  }
  static size_t place_in(std::vector<std::string>& list, const std::string& name) {
    const auto found = std::find(list.begin(), list.end(), name);
    if (found != list.end()) return static_cast<size_t>(found - list.begin());
    list.push_back(name);
    return list.size() - 1;
  }
  static std::string head_dim(const core::Problem& p) {
    return p.head_dim == p.head_dim_v ? fmt::format("{}", p.head_dim)
                                      : fmt::format("{}/{}", p.head_dim, p.head_dim_v);
  }
  bool several_threads() const { return report_.threads.size() > 1; }
  std::string with_threads() const {
    return several_threads() ? ", " + threads_text(most_threads_) : "";
  }
  static bool is_decode(const core::Problem& p) { return p.seq_q == 1; }

  // "f16, causal", "decode, bf16, heads 32": the words that vary; not whole: but for those that a plot over seq shows.
  std::string title_of(const core::Problem& p, bool whole) const {
    std::string title = is_decode(p) ? "decode" : "";
    const auto cells = columns_.cells(p);
    for (size_t n = 0; n < cells.size(); ++n) {
      const core::Word& word = *columns_.words[n];
      if (!whole && (word.name.starts_with("seq") || word.name.starts_with("head_dim"))) continue;
      title += title.empty() ? "" : ", ";
      if (word.kind == core::WordKind::flag)
        title += (cells[n] == "true" ? "" : "no ") + columns_.names[n];
      if (word.kind != core::WordKind::flag)
        title += (word.name == "dtype" ? "" : columns_.names[n] + " ") + cells[n];
    }
    return title.empty() ? columns_.shared : title;
  }

  std::string point_title(const Measurement& m, const Comparison& result) const {
    const double median = m.median();
    return fmt::format("{}: {}, {}FLOP/s, {}B/s; {}{}", m.backend, time_text(median),
                       rate_text(result.work.flop / median), rate_text(result.work.bytes / median),
                       several_threads() ? threads_text(result.threads) + "; " : "",
                       core::describe(result.problem));
  }

  Panel::Point point_of(double x, const Measurement& m, const Comparison& result) const {
    const double amount = is_decode(result.problem) ? result.work.bytes : result.work.flop;
    return {x, amount / m.median(), amount / m.quantile(0.75), amount / m.quantile(0.25),
            point_title(m, result)};
  }
  static Panel empty_panel(const std::string& title, const char* x_name, const core::Problem& p) {
    Panel panel;
    panel.title = title, panel.x_name = x_name, panel.y_name = is_decode(p) ? "B/s" : "FLOP/s";
    panel.unit = panel.y_name + dtype_text(p);
    return panel;
  }
  static std::string dtype_text(const core::Problem& p) {
    const core::Word& dtype = *core::find_word("dtype");
    return core::to_text(dtype, core::value_of(dtype, p, ""));
  }

  // Problems that differ only in seq and head_dim, with the most threads.
  std::vector<Panel> seq_panels() {
    std::vector<Panel> panels;
    for (const Comparison& result : report_.comparisons) {
      if (result.threads != most_threads_) continue;
      const core::Problem& p = result.problem;
      const std::string title = title_of(p, false);
      auto panel = std::find_if(panels.begin(), panels.end(),
                                [&](const Panel& known) { return known.title == title; });
      if (panel == panels.end())
        panel = panels.insert(panels.end(), empty_panel(title, is_decode(p) ? "seq_kv" : "seq", p));
      for (const Measurement& m : result.measurements) {
        if (m.state != State::measured) continue;
        panel->curve(m.backend + " " + head_dim(p), color_of(m.backend), dash_of(p))
            .points.push_back(point_of(static_cast<double>(p.seq_kv), m, result));
        const Peak* peak = report_.peak_of(m.device, result.threads);
        if (const auto best = is_decode(p) ? peak->memory() : peak->compute(p.dtype))
          panel->peaks[core::device_text(peak->device) + (is_decode(p) ? " memory"
                                                          : peak->compute(p.dtype) == peak->amx
                                                              ? " AMX peak"
                                                              : " FMA peak")] = *best;
      }
    }
    return finished(std::move(panels));
  }

  // One for each problem, of the backends that compute on the cpu.
  std::vector<Panel> thread_panels() {
    std::vector<Panel> panels;
    const auto [fewest, most] = std::minmax_element(report_.threads.begin(), report_.threads.end());
    for (size_t c = 0; c < report_.comparisons.size(); ++c) {
      const Comparison& result = report_.comparisons[c];
      const bool first = c % report_.threads.size() == 0;
      if (first)
        panels.push_back(empty_panel(title_of(result.problem, true), "threads", result.problem));
      Panel& panel = panels.back();
      panel.log = true;  // what scales is a straight line
      for (const Measurement& m : result.measurements) {
        if (m.state != State::measured || m.device.type != ATTNRT_DEVICE_CPU) continue;
        const Panel::Point point = point_of(result.threads, m, result);
        panel.curve(m.backend, color_of(m.backend), kDashes[0]).points.push_back(point);
        const double each = point.y / result.threads;
        if (first)
          panel.ideals.push_back(
              {color_of(m.backend), {*fewest, each * *fewest}, {*most, each * *most}});
      }
    }
    return finished(std::move(panels));
  }

  static std::vector<Panel> finished(std::vector<Panel> panels) {
    std::erase_if(panels, [](const Panel& panel) { return panel.curves.empty(); });
    for (Panel& panel : panels)
      for (Panel::Curve& curve : panel.curves)
        std::sort(curve.points.begin(), curve.points.end(),
                  [](const auto& a, const auto& b) { return a.x < b.x; });
    return panels;
  }

  // Panels of one unit have one scale, so that they can be compared.
  static double highest_of(const std::vector<Panel>& panels, const Panel& like) {
    double highest = 0;
    for (const Panel& panel : panels)
      if (panel.unit == like.unit) highest = std::max(highest, panel.highest());
    return highest;
  }

  std::string heading() const {
    std::string text = fmt::format("<h1>attnrt bench</h1>\n<p>{}; attnrt {}</p>\n",
                                   escaped(conditions_text(report_)), ATTNRT_VERSION);
    for (const Peak& peak : report_.peaks)
      text += fmt::format("<p class=\"soft\">{}</p>\n", escaped(peak_text(peak, report_)));
    if (!columns_.shared.empty())
      text += fmt::format("<p class=\"soft\">problems: {}</p>\n", escaped(columns_.shared));
    return text;
  }

  using Dashes = std::vector<std::pair<const char*, std::string>>;  // and what they mean
  std::string legend(const std::vector<std::string>& backends, const Dashes& dashes) {
    std::string text = "<div class=\"legend\">\n";
    const auto sample = [](const std::string& stroke, const char* dash, const std::string& name) {
      return fmt::format(
          R"(<span><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 44 10" width="44" height="10" aria-hidden="true"><line x1="2" x2="42" y1="5" y2="5" stroke="{}" stroke-width="2" stroke-dasharray="{}"/></svg> {}</span>)",
          stroke, dash, escaped(name));
    };
    for (const std::string& backend : backends)
      text += sample(fmt::format("var(--s{})", color_of(backend)), "none", backend) + "\n";
    for (const auto& [dash, name] : dashes) text += sample("var(--soft)", dash, name) + "\n";
    return text + "</div>\n";
  }

  std::string speeds() {
    const std::vector<Panel> all = seq_panels();
    if (all.empty()) return {};
    Dashes dashes;
    for (size_t n = 0; n < dims_.size() && dims_.size() > 1; ++n)
      dashes.emplace_back(kDashes[n % kDashes.size()], "head_dim " + dims_[n]);
    std::string text = fmt::format(
        "<section>\n<h2>Speed over seq{}</h2>\n<p class=\"soft\">More is better; bars are the "
        "quartiles.</p>\n{}<div "
        "class=\"panels\">\n",
        with_threads(), legend(backends_, dashes));
    for (const Panel& panel : all) text += draw(panel, highest_of(all, panel));
    return text + "</div>\n</section>\n";
  }

  std::string scaling() {
    const std::vector<Panel> all = several_threads() ? thread_panels() : std::vector<Panel>();
    if (all.empty()) return {};
    std::vector<std::string> shown;
    for (const Panel& panel : all)
      for (const Panel::Curve& curve : panel.curves) place_in(shown, curve.name);
    std::string text = fmt::format(
        "<section>\n<h2>Speed over threads</h2>\n"
        "<p class=\"soft\">Of backends on the cpu. Ideal: as with {}, times the ratio of "
        "threads.</p>\n"
        "{}<div class=\"panels\">\n",
        threads_text(report_.threads.front()), legend(shown, {{kIdealDash, "ideal"}}));
    for (const Panel& panel : all) text += draw(panel, panel.highest());
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
        if (m.state == State::measured && result.threads == most_threads_ && result.work.flop > 0 &&
            m.device.type == peak.device.type && m.device.id == peak.device.id)
          dots.push_back({result.work.flop / result.work.bytes, result.work.flop / m.median(),
                          color_of(m.backend), point_title(m, result)});
    if (dots.empty()) return {};
    const auto memory = peak.memory();
    double left = dots.front().x, right = left, low = dots.front().y, high = low;
    for (const Dot& dot : dots) {
      left = std::min(left, dot.x), right = std::max(right, dot.x);
      low = std::min(low, dot.y), high = std::max(high, dot.y);
    }
    const auto roof = std::max(peak.fma.value_or(0), peak.amx.value_or(0));
    if (memory && roof > 0)
      left = std::min(left, roof / *memory / 4), right = std::max(right, roof / *memory * 4);
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
      plot.line({{clipped(memory ? *best / *memory : left), *best}, {right, *best}},
                R"(class="peak")");
      plot.text(plot.x.to - 4, plot.y.at(*best) - 5, "end",
                fmt::format("{} {}FLOP/s", name, rate_text(*best)));
    }
    for (const Dot& dot : dots) plot.point(dot.x, dot.y, dot.color, dot.title);
    const std::string title = core::device_text(peak.device);
    return fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(title),
                       plot.svg("roofline of " + title));
  }

  std::string rooflines() {
    std::string text;
    for (const Peak& peak : report_.peaks)
      if (peak.threads == 0 || peak.threads == most_threads_) text += roofline(peak);
    if (text.empty()) return text;
    return "<section>\n<h2>Roofline" + with_threads() +
           "</h2>\n<p class=\"soft\">What a device's memory and its arithmetic leave possible, "
           "both "
           "measured here. Above memory's line lies what comes out of caches.</p>\n" +
           legend(backends_, {}) + text + "</section>\n";
  }

  std::string measurements() const {
    const Table table = table_of(report_);
    std::string text =
        "<section>\n<h2>All measurements</h2>\n<div class=\"scroll\"><table>\n<thead><tr>";
    for (size_t n = 0; n < table.head.size(); ++n)
      text += fmt::format("<th{}>{}</th>", n < table.left ? " class=\"left\"" : "",
                          escaped(table.head[n]));
    text += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      text += "<tr>";
      for (size_t n = 0; n < row.size(); ++n) {
        const bool sentence = n + 1 == row.size() && row.size() < table.head.size();
        text += sentence ? fmt::format("<td class=\"bad\" colspan=\"{}\">{}</td>",
                                       table.head.size() - n, escaped(row[n]))
                         : fmt::format("<td{}>{}</td>", n < table.left ? " class=\"left\"" : "",
                                       escaped(row[n]));
      }
      text += "</tr>\n";
    }
    return text + "</tbody>\n</table></div>\n</section>\n";
  }

  const Report& report_;
  const Columns columns_;
  const int32_t most_threads_;
  std::vector<std::string> backends_, dims_;
};

}  // namespace

std::string to_page(const Report& report) { return Page(report).html(); }

}  // namespace attnrt::cli::bench
