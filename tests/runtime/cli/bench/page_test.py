#!/usr/bin/env python3
"""tests/runtime/cli/bench/page_test.py: attnrt bench's page into a parsed document that needs nothing but itself, and its bar into a terminal.

    python3 tests/runtime/cli/bench/page_test.py ATTNRT PLUGIN...      exit status 1 and a line if something is not as it should be
"""
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

HTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"
command, *plugins = sys.argv[1:]


def run_on_a_terminal(words):
    """What it writes to stdout, and to a terminal as stderr."""
    master, slave = pty.openpty()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    out = child.stdout.read()
    return child.wait(), out, shown.decode()


def check(holds, what):
    if not holds:
        sys.exit(f"bench_page: {what}")


def measure(threads):
    """The page of one run, its stdout, and what it writes to a terminal."""
    with tempfile.TemporaryDirectory() as folder:
        for plugin in plugins:
            shutil.copy(plugin, folder)
        page = pathlib.Path(folder, "page.html")
        status, out, shown = run_on_a_terminal(
            [command, "bench", "--plugins", folder, "--samples", "3", "--threads", threads, "--html", str(page), "--dtype", "f32,bf16",
             "--seq", "8,16,32", "--head-dim", "16,32", "--heads", "2", "--causal", "both"])
        check(status == 3, f"exit status {status}, though a backend is wrong")
        return page.read_text(encoding="utf-8"), out, shown


def circles(figure):
    return figure.findall(f"{SVG}svg/{SVG}circle")


def figures_of(root, points):
    """Its plots, each within its bounds and with so many points, and their captions."""
    figures = root.findall(f".//{HTML}figure")
    check(len(figures) == len(points), f"{len(figures)} plots")
    for figure, wanted in zip(figures, points):
        svg = figure.find(SVG + "svg")
        width, height = map(float, svg.get("viewBox").split()[2:])
        check(len(circles(figure)) == wanted, f"{len(circles(figure))} points, expected {wanted}")
        check(svg.get("aria-label"), "a plot has no label")
        for node in svg.iter():
            for name, limit in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height), ("y1", height), ("y2", height)):
                check(0 <= float(node.get(name, 0)) <= limit, f"{node.tag} {name}={node.get(name)} lies outside of its plot")
            if node.tag == SVG + "path":
                numbers = list(map(float, re.findall(r"-?[0-9.]+", node.get("d"))))
                check(all(0 <= x <= width for x in numbers[::2]) and all(0 <= y <= height for y in numbers[1::2]), f"a line lies outside of its plot: {node.get('d')}")
            check(not re.search("nan|inf", " ".join(node.attrib.values())), f"{node.attrib}")
    return figures, [figure.find(HTML + "figcaption").text for figure in figures]


def sections(root):
    return [heading.text for heading in root.findall(f".//{HTML}h2")]


text, out, shown = measure("1")
check("\r\x1b[K[#####" in shown and "dtype=bf16" in shown, f"no bar on the terminal: {shown[-400:]!r}")
check(shown.rstrip().split("\r\x1b[K")[-1].startswith("attnrt bench: "), "the bar is still there when the command ends")
check("\x1b" not in out, "the bar is in the table")

check(text.startswith("<!DOCTYPE html>\n"), "it is no HTML document")
root = xml.fromstring(text)  # raises where an element is not closed or a character not escaped
check(root.tag == HTML + "html" and root.find(f"{HTML}head/{HTML}title").text == "attnrt bench", "no title")
without_names = re.sub(r'xmlns="[^"]*"', "", text)
check(not re.search(r"https?:|//\w|url\(|@import|<script|<link|<img|src=", without_names), "it asks for something else")
check("prefers-color-scheme: dark" in text, "it has no dark colours")
check(sections(root) == ["Speed over seq", "Roofline", "All measurements"], f"sections: {sections(root)}")
figures, captions = figures_of(root, [6] * 4 + [24])
check(captions == ["f32, no causal", "f32, causal", "bf16, no causal", "bf16, causal", "cpu"], f"plots: {captions}")
rows = root.findall(f".//{HTML}tbody/{HTML}tr")
check(len(rows) == 48, f"{len(rows)} rows of measurements")
check(sum("WRONG" in "".join(row.itertext()) for row in rows) == 24, "the wrong backend is not called wrong")
check("fake_bad_rough" not in "".join(node.text or "" for figure in figures for node in figure.iter()), "it is in a plot")

if len(os.sched_getaffinity(0)) > 1:
    text, out, shown = measure("2,1")
    check("2 threads: dtype=f32" in shown and "1 thread: dtype=f32" in shown, f"the bar names no thread count: {shown[-400:]!r}")
    root = xml.fromstring(text)
    check(sections(root) == ["Speed over seq, 2 threads", "Speed over threads", "Roofline, 2 threads", "All measurements"], f"sections: {sections(root)}")
    figures, captions = figures_of(root, [6] * 4 + [2] * 24 + [24])
    check(captions[4:6] == ["f32, seq 8, head_dim 16, no causal", "f32, seq 8, head_dim 16, causal"] and len(set(captions)) == 29, f"plots: {captions}")
    for figure in figures[:4] + figures[-1:]:
        check(all("; 2 threads; " in circle.find(SVG + "title").text for circle in circles(figure)), "a plot mixes thread counts")
    for figure in figures[4:-1]:
        one, two = circles(figure)
        check("; 1 thread; " in one.find(SVG + "title").text and "; 2 threads; " in two.find(SVG + "title").text, "its points are not the two counts")
        ideal, = figure.findall(f"{SVG}svg/{SVG}path[@class='ideal']")
        start, end = re.fullmatch(r"M(.*) L(.*)", ideal.get("d")).groups()
        check(end == f"{two.get('cx')} {two.get('cy')}", "the ideal line does not begin at the first count")
        check(start.split()[0] == one.get("cx") and float(start.split()[1]) > float(end.split()[1]), "the ideal line does not rise to the second")
    rows = root.findall(f".//{HTML}tbody/{HTML}tr")
    check(len(rows) == 96, f"{len(rows)} rows of measurements of two thread counts")
print("the page and the bar are as they should be")
