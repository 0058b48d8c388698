#!/usr/bin/env python3
"""tests/runtime/cli/bench/page_test.py: checks the page and the progress bar of attnrt bench.

    python3 tests/runtime/cli/bench/page_test.py ATTNRT PLUGIN...

One of the two plugins has to be fake_bad_rough, whose outputs are wrong. If something is not as it
should be, the exit status is 1, and one line says what.
"""

import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

HTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"
ERASE_LINE = "\r\x1b[K"  # what the bar writes before each of its lines
# The measured problems: 2 dtypes, 3 sequence lengths, 2 head_dims, causal or not.
PROBLEMS = [
    "--dtype", "f32,bf16", "--seq", "8,16,32", "--head-dim", "16,32", "--heads", "2",
    "--causal", "both",
]  # fmt: skip
PROBLEM_COUNT = 24
PANELS = ["f32, no causal", "f32, causal", "bf16, no causal", "bf16, causal"]
# Problems of two groups: plots and tables are under headings of their own.
GROUPS = """schema: 1
problems:
  - {group: plain, heads: 2, head_dim: 16, seq: [8, 16]}
  - {group: served, heads: 2, head_dim: 16, batch: 3, seq_q: 1, seq_kv: [16, 32], kv_lengths: true,
     lengths: [one_long, ragged]}
"""
POINTS = 6  # of the right backend in each panel: 3 sequence lengths for each of 2 head_dims


def check(holds, what):
    if not holds:
        sys.exit(f"bench_page: {what}")


def run_on_a_terminal(words):
    """Runs a command. Returns its status, its stdout, and its stderr, which is a terminal."""
    master, slave = pty.openpty()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the child has closed its end
            break
        if not piece:
            break
        shown += piece
    out = child.stdout.read()
    return child.wait(), out, shown.decode()


def measure(command, plugins, threads, grid=None):
    """Runs attnrt bench. Returns its page, its stdout, and what it writes to a terminal."""
    with tempfile.TemporaryDirectory() as directory:
        for plugin in plugins:
            shutil.copy(plugin, directory)
        page = pathlib.Path(directory, "page.html")
        words = [command, "bench", "--plugins", directory, "--samples", "3"]
        if grid is None:
            words += PROBLEMS
        else:
            pathlib.Path(directory, "grid.yaml").write_text(grid, encoding="utf-8")
            words += ["--grid", str(pathlib.Path(directory, "grid.yaml"))]
        words += ["--threads", threads, "--html", str(page)]
        status, out, shown = run_on_a_terminal(words)
        check(status == 3, f"exit status {status}, expected 3, because a backend is wrong")
        return page.read_text(encoding="utf-8"), out, shown


def circles(figure):
    return figure.findall(f"{SVG}svg/{SVG}circle")


def title_of(circle):
    return circle.find(f"{SVG}title").text


def check_coordinates(svg):
    """Checks that everything in a plot lies within it."""
    width, height = map(float, svg.get("viewBox").split()[2:])
    limits = dict.fromkeys(["x", "cx", "x1", "x2"], width)
    limits |= dict.fromkeys(["y", "cy", "y1", "y2"], height)
    for node in svg.iter():
        for name, limit in limits.items():
            value = node.get(name, 0)
            check(0 <= float(value) <= limit, f"{node.tag} {name}={value} is outside of its plot")
        if node.tag == SVG + "path":
            numbers = [float(number) for number in re.findall(r"-?[0-9.]+", node.get("d"))]
            inside = all(0 <= x <= width for x in numbers[::2])
            inside = inside and all(0 <= y <= height for y in numbers[1::2])
            check(inside, f"a line is outside of its plot: {node.get('d')}")
        check(not re.search("nan|inf", " ".join(node.attrib.values())), f"{node.attrib}")


def check_figures(root, points):
    """Checks the plots, of which each has so many points. Returns them, and their captions."""
    figures = root.findall(f".//{HTML}figure")
    check(len(figures) == len(points), f"{len(figures)} plots, expected {len(points)}")
    for figure, expected in zip(figures, points, strict=True):
        svg = figure.find(SVG + "svg")
        found = len(circles(figure))
        check(found == expected, f"{found} points, expected {expected}")
        check(svg.get("aria-label"), "a plot has no label for screen readers")
        check_coordinates(svg)
    return figures, [figure.find(HTML + "figcaption").text for figure in figures]


def check_sections(root, expected):
    found = [heading.text for heading in root.findall(f".//{HTML}h2")]
    check(found == expected, f"sections {found}, expected {expected}")


def check_rows(root, expected):
    rows = root.findall(f".//{HTML}tbody/{HTML}tr")
    check(len(rows) == expected, f"{len(rows)} rows of measurements, expected {expected}")
    wrong = sum("WRONG" in "".join(row.itertext()) for row in rows)
    check(wrong == expected / 2, f"{wrong} rows are WRONG, expected those of one backend of two")


def check_bar(out, shown):
    check(ERASE_LINE + "[#####" in shown, f"no bar on the terminal: {shown[-400:]!r}")
    check("dtype=bf16" in shown, f"the bar does not name the problem: {shown[-400:]!r}")
    last = shown.rstrip().split(ERASE_LINE)[-1]
    check(last.startswith("attnrt bench: "), "the bar is still there when the command ends")
    check("\x1b" not in out, "the bar is in the table")


def check_document(text):
    """Checks that the page is well-formed XML that needs no other file. Returns its root."""
    check(text.startswith("<!DOCTYPE html>\n"), "the page does not begin as an HTML document")
    root = ElementTree.fromstring(text)  # raises an error if it is not well-formed
    title = root.find(f"{HTML}head/{HTML}title")
    check(root.tag == HTML + "html" and title.text == "attnrt bench", "the page has no title")
    without_names = re.sub(r'xmlns="[^"]*"', "", text)
    other_files = r"https?:|//\w|url\(|@import|<script|<link|<img|src="
    check(not re.search(other_files, without_names), "the page needs another file")
    check("prefers-color-scheme: dark" in text, "the page has no dark colours")
    return root


def check_one_thread(command, plugins):
    text, out, shown = measure(command, plugins, "1")
    check_bar(out, shown)
    root = check_document(text)
    check_sections(root, ["Speed over seq", "Roofline", "All measurements"])
    figures, captions = check_figures(root, [POINTS] * 4 + [PROBLEM_COUNT])
    check(captions == [*PANELS, "cpu"], f"captions {captions}")
    check_rows(root, 2 * PROBLEM_COUNT)
    shown_names = "".join(node.text or "" for figure in figures for node in figure.iter())
    check("fake_bad_rough" not in shown_names, "the wrong backend is in a plot")


def check_groups(command, plugins):
    root = check_document(measure(command, plugins, "1", GROUPS)[0])
    check_sections(root, ["Speed over seq", "Roofline", "All measurements"])
    found = [heading.text for heading in root.findall(f".//{HTML}h3")]
    check(found == ["plain", "served"] * 2, f"headings of groups {found}")
    _, captions = check_figures(root, [2, 2, 2, 6])
    check(captions[1:3] == ["lengths one_long", "lengths ragged"], f"captions {captions}")
    check(len(root.findall(f".//{HTML}table")) == 2, "not one table for each group")
    check_rows(root, 2 * 6)


def check_scaling_panel(figure):
    """Checks a panel over threads: two points, and an ideal line through one of them."""
    one, two = circles(figure)  # ascending in x; 2 threads were measured first
    check("; 1 thread; " in title_of(one), "the first point is not that of 1 thread")
    check("; 2 threads; " in title_of(two), "the second point is not that of 2 threads")
    (ideal,) = figure.findall(f"{SVG}svg/{SVG}path[@class='ideal']")
    start, end = re.fullmatch(r"M(.*) L(.*)", ideal.get("d")).groups()
    meets = end == f"{two.get('cx')} {two.get('cy')}"
    check(meets, "the ideal line does not meet the point of the first thread count")
    start_x, start_y = start.split()
    check(start_x == one.get("cx"), "the ideal line does not begin at 1 thread")
    check(float(start_y) > float(end.split()[1]), "the ideal line does not rise")


def check_two_threads(command, plugins):
    text, _, shown = measure(command, plugins, "2,1")
    for prefix in ("2 threads: dtype=f32", "1 thread: dtype=f32"):
        check(prefix in shown, f"the bar does not show {prefix}: {shown[-400:]!r}")
    root = ElementTree.fromstring(text)
    sections = ["Speed over seq, 2 threads", "Speed over threads", "Roofline, 2 threads"]
    check_sections(root, [*sections, "All measurements"])
    points = [POINTS] * 4 + [2] * PROBLEM_COUNT + [PROBLEM_COUNT]
    figures, captions = check_figures(root, points)
    expected = ["f32, seq 8, head_dim 16, no causal", "f32, seq 8, head_dim 16, causal"]
    check(captions[4:6] == expected, f"captions {captions}")
    check(len(set(captions)) == len(captions), f"two plots have the same caption: {captions}")
    for figure in figures[:4] + figures[-1:]:
        same = all("; 2 threads; " in title_of(circle) for circle in circles(figure))
        check(same, "a plot over seq mixes thread counts")
    for figure in figures[4:-1]:
        check_scaling_panel(figure)
    check_rows(root, 4 * PROBLEM_COUNT)


def main():
    command, *plugins = sys.argv[1:]
    check_one_thread(command, plugins)
    check_groups(command, plugins)
    if len(os.sched_getaffinity(0)) > 1:
        check_two_threads(command, plugins)
    print("the page and the bar are as they should be")


main()
