#!/usr/bin/env python3
"""tests/cli/bench_page.py: attnrt bench's page into a parsed document that needs nothing but itself, and its bar into a terminal.

    python3 tests/cli/bench_page.py ATTNRT PLUGIN...      exit status 1 and a line if something is not as it should be
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


with tempfile.TemporaryDirectory() as folder:
    for plugin in plugins:
        shutil.copy(plugin, folder)
    page = pathlib.Path(folder, "page.html")
    status, out, shown = run_on_a_terminal(
        [command, "bench", "--plugins", folder, "--samples", "3", "--threads", "1", "--html", str(page), "--dtype", "f32,bf16",
         "--seq", "8,16,32", "--head-dim", "16,32", "--heads", "2", "--causal", "both"])
    text = page.read_text(encoding="utf-8")

check(status == 3, f"exit status {status}, though a backend is wrong")
check("\r\x1b[K[#####" in shown and "dtype=bf16" in shown, f"no bar on the terminal: {shown[-400:]!r}")
check(shown.rstrip().split("\r\x1b[K")[-1].startswith("attnrt bench: "), "the bar is still there when the command ends")
check("\x1b" not in out, "the bar is in the table")

check(text.startswith("<!DOCTYPE html>\n"), "it is no HTML document")
root = xml.fromstring(text)  # raises where an element is not closed or a character not escaped
check(root.tag == HTML + "html" and root.find(f"{HTML}head/{HTML}title").text == "attnrt bench", "no title")
without_names = re.sub(r'xmlns="[^"]*"', "", text)
check(not re.search(r"https?:|//\w|url\(|@import|<script|<link|<img|src=", without_names), "it asks for something else")
check("prefers-color-scheme: dark" in text, "it has no dark colours")
figures = root.findall(f".//{HTML}figure")
captions = [figure.find(HTML + "figcaption").text for figure in figures]
check(captions[:4] == ["f32, no causal", "f32, causal", "bf16, no causal", "bf16, causal"], f"panels: {captions}")
check(captions[4:] == ["cpu"], f"rooflines: {captions}")
for figure in figures:
    svg = figure.find(SVG + "svg")
    width, height = map(float, svg.get("viewBox").split()[2:])
    check(len(svg.findall(SVG + "circle")) == (24 if figure is figures[-1] else 6), "a point is missing")
    check(svg.get("aria-label"), "a plot has no label")
    for node in svg.iter():
        for name, limit in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height), ("y1", height), ("y2", height)):
            check(0 <= float(node.get(name, 0)) <= limit, f"{node.tag} {name}={node.get(name)} lies outside of its plot")
        check(not re.search("nan|inf", " ".join(node.attrib.values())), f"{node.attrib}")
rows = root.findall(f".//{HTML}tbody/{HTML}tr")
check(len(rows) == 48, f"{len(rows)} rows of measurements")
check(sum("WRONG" in "".join(row.itertext()) for row in rows) == 24, "the wrong backend is not called wrong")
check("fake_bad_rough" not in "".join(node.text or "" for figure in figures for node in figure.iter()), "it is in a plot")
print("the page and the bar are as they should be")
