// runtime/cli/bench/page.cpp: shows a benchmark's report as an HTML page
//
// The page has these sections, each only if there is something to show:
//
//   heading             conditions, peaks, and without groups the words that all problems share
//   speed over seq      a panel for all problems that differ only in seq and head_dim. Each backend
//                       has a colour, each head_dim a dash pattern. The y axis is FLOP/s; of decode
//                       problems it is bytes/s, because memory bounds them. Only the largest
//                       thread count is shown. A panel with a single seq is left out.
//   speed over threads  a panel for each problem, of the backends on the cpu
//   roofline            a plot for each device
//   all measurements    the tables of the text output
//
// If the grid has groups, the plots over seq and over threads and the tables are under a heading
// for each group.
#include "cli/bench/page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <set>

#include "cli/bench/roofline.hpp"
#include "cli/bench/table.hpp"
#include "cli/command.hpp"
#include "cli/html/page.hpp"
#include "cli/html/plot.hpp"

namespace attnrt::cli::bench {
namespace {

using html::escaped;
using html::Panel;

// Patterns of SVG's stroke-dasharray.
constexpr std::array kDashes = {"none", "7 4", "2 3", "10 3 2 3"};  // one for each head_dim
constexpr const char* kIdealDash = "5 4";  // that of the class `ideal` in html/page.cpp

bool is_decode(const core::Problem& p) { return p.seq_q == 1; }

std::string head_dim_text(const core::Problem& p) {
  return p.head_dim == p.head_dim_v ? fmt::format("{}", p.head_dim)
                                    : fmt::format("{}/{}", p.head_dim, p.head_dim_v);
}

std::string dtype_text(const core::Problem& p) {
  const core::Word& dtype = *core::find_word("dtype");
  return core::to_text(dtype, core::value_of(dtype, p, ""));
}

// Returns the index of a name in the list, and appends the name if it is not there.
size_t index_of(std::vector<std::string>& list, const std::string& name) {
  const auto found = std::find(list.begin(), list.end(), name);
  if (found != list.end()) return static_cast<size_t>(found - list.begin());
  list.push_back(name);
  return list.size() - 1;
}

// Returns what the x axis of a panel over seq shows, which is seq_kv.
const char* seq_name(const core::Problem& p) { return p.seq_q == p.seq_kv ? "seq" : "seq_kv"; }

Panel empty_panel(const std::string& title, const char* x_name, const core::Problem& p) {
  Panel panel;
  panel.title = title;
  panel.x_name = x_name;
  panel.y_name = is_decode(p) ? "B/s" : "FLOP/s";
  panel.unit = panel.y_name + dtype_text(p);
  return panel;
}

// Whether all points are at one place of the x axis.
bool has_one_x(const Panel& panel) {
  std::set<double> places;
  for (const Panel::Curve& curve : panel.curves)
    for (const Panel::Point& point : curve.points) places.insert(point.x);
  return places.size() == 1;
}

// Drops panels without curves and sorts the points of the others.
std::vector<Panel> finished(std::vector<Panel> panels) {
  std::erase_if(panels, [](const Panel& panel) { return panel.curves.empty(); });
  for (Panel& panel : panels)
    for (Panel::Curve& curve : panel.curves)
      std::sort(curve.points.begin(), curve.points.end(),
                [](const auto& a, const auto& b) { return a.x < b.x; });
  return panels;
}

// Returns the top of the y axis for a panel. Panels of the same unit get the same axis, so that
// they can be compared.
double highest_of(const std::vector<Panel>& panels, const Panel& like) {
  double highest = 0;
  for (const Panel& panel : panels)
    if (panel.unit == like.unit) highest = std::max(highest, panel.highest());
  return highest;
}

class Page {
 public:
  explicit Page(const Report& report)
      : report_(report),
        groups_(report.groups()),
        has_groups_(groups_ != std::vector<std::string>{""}),
        most_threads_(*std::max_element(report.threads.begin(), report.threads.end())) {
    for (const std::string& group : groups_)
      columns_.push_back(columns_of(report.problems_of(group)));
    // Colours and dashes are given in the order of the report, whatever section is drawn first.
    for (const Comparison& comparison : report.comparisons) {
      for (const Measurement& m : comparison.measurements)
        if (m.state == State::measured) color_of(m.backend);
      dash_of(comparison.problem);
    }
  }

  std::string html() {
    return html::page("attnrt bench", heading() + speed_over_seq() + speed_over_threads() +
                                          rooflines() + all_measurements());
  }

 private:
  size_t color_of(const std::string& backend) { return index_of(backends_, backend); }
  const char* dash_of(const core::Problem& p) {
    return kDashes[index_of(head_dims_, head_dim_text(p)) % kDashes.size()];
  }
  bool several_threads() const { return report_.threads.size() > 1; }
  std::string with_threads() const {
    return several_threads() ? ", " + threads_text(most_threads_) : "";
  }

  // Returns the columns of a group. REQUIRES: the report has it.
  const Columns& columns_in(const std::string& group) const {
    const auto found = std::find(groups_.begin(), groups_.end(), group);
    return columns_[static_cast<size_t>(found - groups_.begin())];
  }

  // Returns the words that tell this problem from others of its group: "decode, bf16, heads 32".
  // For a panel over seq, without those that are within the panel.
  std::string title_of(const GridProblem& p, bool over_seq) const {
    const Columns& columns = columns_in(p.group);
    std::string title = is_decode(p.problem) && !has_groups_ ? "decode" : "";
    const auto cells = columns.cells(p);
    for (size_t n = 0; n < cells.size(); ++n) {
      const core::Word& word = *columns.words[n];
      if (over_seq && (word.name.starts_with("seq") || word.name.starts_with("head_dim"))) continue;
      title += title.empty() ? "" : ", ";
      if (word.kind == core::WordKind::flag) {
        title += (cells[n] == "true" ? "" : "no ") + columns.names[n];
      } else {
        title += (word.name == "dtype" ? "" : columns.names[n] + " ") + cells[n];
      }
    }
    return !title.empty() ? title : has_groups_ ? p.group : columns.shared;
  }

  std::string point_title(const Measurement& m, const Comparison& comparison) const {
    const double median = m.median();
    const bool full = comparison.lengths == kernels::reference::Lengths::full;
    return fmt::format("{}: {}, {}FLOP/s, {}B/s; {}{}{}", m.backend, time_text(median),
                       rate_text(comparison.work.flop / median),
                       rate_text(comparison.work.bytes / median),
                       several_threads() ? threads_text(comparison.threads) + "; " : "",
                       core::describe(comparison.problem),
                       full ? "" : " lengths=" + lengths_text(comparison.lengths));
  }

  Panel::Point point_of(double x, const Measurement& m, const Comparison& comparison) const {
    const Work& work = comparison.work;
    const double amount = is_decode(comparison.problem) ? work.bytes : work.flop;
    return {x, amount / m.median(), amount / m.quantile(0.75), amount / m.quantile(0.25),
            point_title(m, comparison)};
  }

  std::vector<Panel> seq_panels(const std::string& group) {
    std::vector<Panel> panels;
    for (const Comparison& comparison : report_.comparisons) {
      if (comparison.group != group || comparison.threads != most_threads_) continue;
      const core::Problem& p = comparison.problem;
      const std::string title = title_of(comparison, true);
      auto panel = std::find_if(panels.begin(), panels.end(),
                                [&](const Panel& known) { return known.title == title; });
      if (panel == panels.end())
        panel = panels.insert(panels.end(), empty_panel(title, seq_name(p), p));
      for (const Measurement& m : comparison.measurements) {
        if (m.state != State::measured) continue;
        panel->curve(m.backend + " " + head_dim_text(p), color_of(m.backend), dash_of(p))
            .points.push_back(point_of(static_cast<double>(p.seq_kv), m, comparison));
        add_limit(*report_.peak_of(m.device, comparison.threads), p, *panel);
      }
    }
    std::erase_if(panels, has_one_x);
    return finished(std::move(panels));
  }

  // Adds the limit that bounds this problem on that device, if it is known.
  static void add_limit(const Peak& peak, const core::Problem& p, Panel& panel) {
    const std::string device = core::device_text(peak.device);
    if (is_decode(p)) {
      if (const auto limit = peak.memory()) panel.limits[device + " memory"] = *limit;
    } else if (const auto limit = peak.compute(p.dtype)) {
      panel.limits[device + (limit == peak.amx ? " AMX peak" : " FMA peak")] = *limit;
    }
  }

  std::vector<Panel> thread_panels(const std::string& group) {
    std::vector<Panel> panels;
    const auto [fewest, most] = std::minmax_element(report_.threads.begin(), report_.threads.end());
    for (size_t c = 0; c < report_.comparisons.size(); ++c) {
      const Comparison& comparison = report_.comparisons[c];
      if (comparison.group != group) continue;
      const core::Problem& p = comparison.problem;
      const bool first = c % report_.threads.size() == 0;
      if (first) panels.push_back(empty_panel(title_of(comparison, false), "threads", p));
      Panel& panel = panels.back();
      panel.always_log = true;  // perfect scaling is a straight line then
      for (const Measurement& m : comparison.measurements) {
        if (m.state != State::measured || m.device.type != ATTNRT_DEVICE_CPU) continue;
        const size_t color = color_of(m.backend);
        const Panel::Point point = point_of(comparison.threads, m, comparison);
        panel.curve(m.backend, color, kDashes[0]).points.push_back(point);
        const double each = point.y / comparison.threads;
        if (first)
          panel.ideals.push_back({color, {*fewest, each * *fewest}, {*most, each * *most}});
      }
    }
    return finished(std::move(panels));
  }

  std::string heading() const {
    std::string text = fmt::format("<h1>attnrt bench</h1>\n<p>{}; attnrt {}</p>\n",
                                   escaped(conditions_text(report_)), ATTNRT_VERSION);
    for (const Peak& peak : report_.peaks)
      text += fmt::format("<p class=\"soft\">{}</p>\n", escaped(peak_text(peak, report_)));
    if (!has_groups_ && !columns_.front().shared.empty())
      text += fmt::format("<p class=\"soft\">problems: {}</p>\n", escaped(columns_.front().shared));
    return text;
  }

  // Returns the heading of one group, with the words that all its problems share.
  std::string group_heading(const std::string& group) const {
    if (!has_groups_) return {};
    return fmt::format("<h3>{}</h3>\n<p class=\"soft\">{}</p>\n",
                       escaped(group.empty() ? "problems" : group),
                       escaped(columns_in(group).shared));
  }

  // Returns the start of a section, up to its first content.
  static std::string section(const std::string& title, const std::string& explanation) {
    return fmt::format("<section>\n<h2>{}</h2>\n<p class=\"soft\">{}</p>\n", escaped(title),
                       escaped(explanation));
  }

  using Dashes = std::vector<std::pair<const char*, std::string>>;  // a pattern and its meaning
  std::string legend(const std::vector<std::string>& backends, const Dashes& dashes) {
    constexpr const char* kSample =
        R"(<span><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 44 10" width="44" )"
        R"(height="10" aria-hidden="true"><line x1="2" x2="42" y1="5" y2="5" stroke="{}" )"
        R"(stroke-width="2" stroke-dasharray="{}"/></svg> {}</span>)"
        "\n";
    std::string text = "<div class=\"legend\">\n";
    for (const std::string& backend : backends)
      text += fmt::format(kSample, html::color(color_of(backend)), "none", escaped(backend));
    for (const auto& [dash, meaning] : dashes)
      text += fmt::format(kSample, "var(--soft)", dash, escaped(meaning));
    return text + "</div>\n";
  }

  // Returns the plots of each group that has some, under its heading.
  using Panels = std::function<std::vector<Panel>(const std::string& group)>;
  std::string draw_groups(const Panels& panels_of, bool same_axes) const {
    std::string text;
    for (const std::string& group : groups_) {
      const std::vector<Panel> panels = panels_of(group);
      if (panels.empty()) continue;
      text += group_heading(group) + "<div class=\"panels\">\n";
      for (const Panel& panel : panels)
        text += html::draw(panel, same_axes ? highest_of(panels, panel) : panel.highest());
      text += "</div>\n";
    }
    return text;
  }

  std::string speed_over_seq() {
    const std::string plots =
        draw_groups([this](const std::string& group) { return seq_panels(group); }, true);
    if (plots.empty()) return {};
    Dashes dashes;
    for (size_t n = 0; n < head_dims_.size() && head_dims_.size() > 1; ++n)
      dashes.emplace_back(kDashes[n % kDashes.size()], "head_dim " + head_dims_[n]);
    std::string text = section("Speed over seq" + with_threads(),
                               "Higher is faster. The vertical bars span the quartiles.");
    return text + legend(backends_, dashes) + plots + "</section>\n";
  }

  std::string speed_over_threads() {
    if (!several_threads()) return {};
    std::vector<std::string> shown;
    const auto panels_of = [&](const std::string& group) {
      std::vector<Panel> panels = thread_panels(group);
      for (const Panel& panel : panels)
        for (const Panel::Curve& curve : panel.curves) index_of(shown, curve.name);
      return panels;
    };
    const std::string plots = draw_groups(panels_of, false);
    if (plots.empty()) return {};
    std::string text = section(
        "Speed over threads",
        fmt::format("Backends on the cpu. Ideal: the speed with {}, times the ratio of threads.",
                    threads_text(report_.threads.front())));
    return text + legend(shown, {{kIdealDash, "ideal"}}) + plots + "</section>\n";
  }

  // Returns the measurements on a device, with the largest thread count.
  std::vector<RooflineDot> dots_of(const core::Device& device) {
    std::vector<RooflineDot> dots;
    for (const Comparison& comparison : report_.comparisons) {
      const Work& work = comparison.work;
      if (comparison.threads != most_threads_ || work.flop == 0) continue;
      for (const Measurement& m : comparison.measurements) {
        const bool here = m.device.type == device.type && m.device.id == device.id;
        if (m.state == State::measured && here)
          dots.push_back({work.flop / work.bytes, work.flop / m.median(), color_of(m.backend),
                          point_title(m, comparison)});
      }
    }
    return dots;
  }

  std::string rooflines() {
    std::string plots;
    for (const Peak& peak : report_.peaks) {
      if (peak.threads != 0 && peak.threads != most_threads_) continue;
      const std::vector<RooflineDot> dots = dots_of(peak.device);
      if (!dots.empty()) plots += draw_roofline(peak, dots);
    }
    if (plots.empty()) return {};
    return section("Roofline" + with_threads(),
                   "The lines are the measured limits of memory and of arithmetic. A measurement "
                   "above the memory line reads its data from a cache.") +
           legend(backends_, {}) + plots + "</section>\n";
  }

  std::string all_measurements() const {
    std::string text = "<section>\n<h2>All measurements</h2>\n";
    for (const Table& table : tables_of(report_))
      text += group_heading(table.group) + rows_of(table);
    return text + "</section>\n";
  }

  static std::string rows_of(const Table& table) {
    const auto left = [&](size_t column) {
      return column < table.text_columns ? " class=\"left\"" : "";
    };
    std::string text = "<div class=\"scroll\"><table>\n<thead><tr>";
    for (size_t n = 0; n < table.head.size(); ++n)
      text += fmt::format("<th{}>{}</th>", left(n), escaped(table.head[n]));
    text += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      text += "<tr>";
      for (size_t n = 0; n < row.size(); ++n) {
        if (table.is_reason(row, n)) {
          text += fmt::format("<td class=\"bad\" colspan=\"{}\">{}</td>", table.head.size() - n,
                              escaped(row[n]));
        } else {
          text += fmt::format("<td{}>{}</td>", left(n), escaped(row[n]));
        }
      }
      text += "</tr>\n";
    }
    return text + "</tbody>\n</table></div>\n";
  }

  const Report& report_;
  const std::vector<std::string> groups_;
  const bool has_groups_;
  std::vector<Columns> columns_;  // of each group
  const int32_t most_threads_;
  std::vector<std::string> backends_, head_dims_;
};

}  // namespace

std::string to_page(const Report& report) { return Page(report).html(); }

}  // namespace attnrt::cli::bench
