// runtime/cli/html/page.hpp: the frame of an HTML page, and text that is safe inside of it
#pragma once

#include <string>
#include <string_view>

namespace attnrt::cli::html {

// Returns text for use between tags and in attributes: on one line, with & < > " escaped.
std::string escaped(std::string_view text);

// Returns a whole document with `body` as its content. The document is one file that asks for
// nothing else: no network, no script, no font. It is also well-formed XML, so that any program can
// read it. The style sheet, with light and dark colours, is in page.cpp. It has these classes:
//
//   p.soft                  a paragraph of lesser importance
//   div.panels              a grid of figures
//   div.legend              a legend
//   div.scroll              a table that may be wider than the page
//   th.left, td.left        a column of words
//   td.bad                  a sentence in place of numbers
//   .grid .peak .ideal .series .whisker   the lines of a plot; see plot.hpp
std::string page(std::string_view title, std::string_view body);

// The number of series colours: the style sheet has var(--s0), var(--s1), ...
constexpr size_t kColors = 6;
std::string color(size_t n);  // "var(--s0)"; starts again after the last colour

}  // namespace attnrt::cli::html
