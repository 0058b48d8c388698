// runtime/cli/html/page.cpp: puts a head with a style sheet around a page's content
#include "cli/html/page.hpp"

#include <fmt/format.h>

#include "base/result.hpp"

namespace attnrt::cli::html {
namespace {

// Colours are variables, so that the dark scheme only redefines these. --s0 to --s5: the series.
constexpr const char* kStyle = R"(
:root {
  color-scheme: light dark;
  --ink: #1c2024; --soft: #60666d; --line: #d9dde2; --paper: #ffffff; --card: #f7f8fa;
  --s0: #0b6bcb; --s1: #c2410c; --s2: #15803d; --s3: #a21caf; --s4: #6b7a00; --s5: #0e7490;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7eaee; --soft: #9aa3ad; --line: #343a42; --paper: #14171a; --card: #1c2025;
    --s0: #6cb2ff; --s1: #ff9d66; --s2: #6ddb8f; --s3: #e68cf0; --s4: #c9d65f; --s5: #67d4ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 8px; }
h3 { font-size: 15px; margin: 24px 0 0; }
p { margin: 4px 0; }
.soft { color: var(--soft); }
figure {
  margin: 12px 0 0; padding: 12px;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
figcaption { font-weight: 600; margin-bottom: 4px; }
.panels {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr));
  gap: 16px; margin-top: 12px;
}
.panels figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); }
svg .peak { stroke: var(--soft); stroke-dasharray: 2 3; fill: none; }
svg .ideal { stroke-dasharray: 5 4; fill: none; }
svg .series { fill: none; stroke-width: 2; }
svg .whisker { fill: none; stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 12px; }
.legend svg { width: 44px; display: inline; vertical-align: middle; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: 8px; }
th, td {
  padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap;
}
th { color: var(--soft); font-weight: 600; }
th.left, td.left { text-align: left; }
td.bad { color: var(--s1); text-align: left; white-space: normal; }
)";

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : core::one_line(text)) {
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

std::string page(std::string_view title, std::string_view body) {
  constexpr const char* kFrame = R"(<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{}</title>
<style>{}</style>
</head>
<body>
<main>
{}</main>
</body>
</html>
)";
  return fmt::format(kFrame, escaped(title), kStyle, body);
}

std::string color(size_t n) { return fmt::format("var(--s{})", n % kColors); }

}  // namespace attnrt::cli::html
