// tests/runtime/cli/html/plot_test.cpp: positions, labels and escaping of pages and plots
#include "cli/html/plot.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/html/page.hpp"

namespace attnrt::cli::html {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Html, EscapesWhatMarkupUses) {
  EXPECT_EQ(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
  EXPECT_EQ(escaped("two\nlines"), "two\\nlines");
}

TEST(Html, APageHasItsTitleAndBody) {
  const std::string text = page("a & b", "<p>body</p>\n");
  EXPECT_TRUE(text.starts_with("<!DOCTYPE html>\n")) << text;
  EXPECT_THAT(text, HasSubstr("<title>a &amp; b</title>"));
  EXPECT_THAT(text, HasSubstr("<main>\n<p>body</p>\n</main>"));
}

TEST(Html, ColoursStartAgain) {
  EXPECT_EQ(color(0), "var(--s0)");
  EXPECT_EQ(color(kColors - 1), "var(--s5)");
  EXPECT_EQ(color(kColors), "var(--s0)");
  EXPECT_THAT(page("", ""), HasSubstr("--s5: "));
  EXPECT_THAT(page("", ""), Not(HasSubstr("--s6: ")));
}

TEST(Plot, TicksAreShort) {
  EXPECT_EQ(tick_text(0), "0");
  EXPECT_EQ(tick_text(2.5), "2.5");
  EXPECT_EQ(tick_text(999), "999");
  EXPECT_EQ(tick_text(1000), "1 k");
  EXPECT_EQ(tick_text(5e10), "50 G");
  EXPECT_EQ(tick_text(2e18), "2e+03 P");
}

TEST(Plot, ScalesMapValuesToPixels) {
  const Scale linear{0, 10, 100, 200, false};
  EXPECT_DOUBLE_EQ(linear.at(0), 100);
  EXPECT_DOUBLE_EQ(linear.at(5), 150);
  EXPECT_DOUBLE_EQ(linear.at(10), 200);
  const Scale log{1, 16, 0, 400, true};
  EXPECT_DOUBLE_EQ(log.at(1), 0);
  EXPECT_DOUBLE_EQ(log.at(4), 200);
  EXPECT_DOUBLE_EQ(log.at(16), 400);
  const Scale upwards{0, 1, 210, 14, false};  // as a y axis
  EXPECT_DOUBLE_EQ(upwards.at(0), 210);
  EXPECT_DOUBLE_EQ(upwards.at(1), 14);
  const Scale one_value{3, 3, 0, 100, false};
  EXPECT_DOUBLE_EQ(one_value.at(3), 50);
}

TEST(Plot, LabelsOfTheXAxisDoNotOverlap) {
  Plot plot(200, 100, {1, 1000, 0, 0, true}, {0, 1, 0, 0, false});
  plot.x_ticks({1, 2, 1000});
  const std::string svg = plot.svg("test");
  EXPECT_THAT(svg, HasSubstr(">1</text>"));
  EXPECT_THAT(svg, Not(HasSubstr(">2</text>")));
  EXPECT_THAT(svg, HasSubstr(">1000</text>"));
}

TEST(Plot, DecadesHaveFewerLabelsWhereTheyAreCrowded) {
  const auto labels = [](double high) {
    Plot plot(200, 254, {0, 1, 0, 0, false}, {1, high, 0, 0, true});  // 200 pixels for the y axis
    plot.y_decades();
    return plot.svg("test");
  };
  EXPECT_THAT(labels(1e3), HasSubstr(">20</text>"));
  EXPECT_THAT(labels(1e4), Not(HasSubstr(">20</text>")));
  EXPECT_THAT(labels(1e4), HasSubstr(">10</text>"));
}

TEST(Plot, TextAndTitlesAreEscaped) {
  Plot plot(100, 100, {0, 1, 0, 0, false}, {0, 1, 0, 0, false});
  plot.text(1, 2, "start", "a<b");
  plot.dot(0.5, 0.5, 1, "c&d");
  const std::string svg = plot.svg("\"label\"");
  EXPECT_THAT(svg, HasSubstr(">a&lt;b</text>"));
  EXPECT_THAT(svg, HasSubstr("fill=\"var(--s1)\"><title>c&amp;d</title>"));
  EXPECT_THAT(svg, HasSubstr("aria-label=\"&quot;label&quot;\""));
}

Panel panel_of(const std::vector<double>& speeds) {
  Panel panel;
  panel.title = "f32";
  for (const double speed : speeds) {
    auto& points = panel.curve("cpu 64", 0, "none").points;
    const double x = 512 * static_cast<double>(points.size() + 1);
    points.push_back({x, speed, speed * 0.9, speed * 1.1, "point"});
  }
  return panel;
}

TEST(Panel, ReturnsTheSameCurveForTheSameName) {
  Panel panel = panel_of({1e9, 2e9});
  ASSERT_EQ(panel.curves.size(), 1U);
  EXPECT_EQ(panel.curves[0].points.size(), 2U);
  panel.curve("other", 1, "none");
  EXPECT_EQ(panel.curves.size(), 2U);
}

TEST(Panel, RangesHoldErrorBarsAndLimits) {
  Panel panel = panel_of({1e9, 2e9});
  EXPECT_DOUBLE_EQ(panel.lowest(), 0.9e9);
  EXPECT_DOUBLE_EQ(panel.highest(), 2.2e9);
  panel.limits["cpu FMA peak"] = 5e9;
  EXPECT_DOUBLE_EQ(panel.highest(), 5e9);
  panel.ideals.push_back({0, {1, 0.5e9}, {2, 6e9}});
  EXPECT_DOUBLE_EQ(panel.lowest(), 0.5e9);
  EXPECT_DOUBLE_EQ(panel.highest(), 6e9);
}

TEST(Panel, TheYAxisStartsAtZeroUnlessSpeedsDifferVeryMuch) {
  const Panel close = panel_of({1e9, 2e9}), far = panel_of({1e9, 100e9});
  EXPECT_THAT(draw(close, close.highest()), HasSubstr(">0</text>"));
  EXPECT_THAT(draw(far, far.highest()), Not(HasSubstr(">0</text>")));
  Panel log = close;
  log.always_log = true;
  EXPECT_THAT(draw(log, log.highest()), Not(HasSubstr(">0</text>")));
}

TEST(Panel, OnePointIsDrawn) {
  const Panel panel = panel_of({1e9});
  EXPECT_THAT(draw(panel, panel.highest()), Not(HasSubstr("nan")));
  EXPECT_THAT(draw(panel, panel.highest()), HasSubstr("<circle "));
}

}  // namespace
}  // namespace attnrt::cli::html
