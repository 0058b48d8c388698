#!/usr/bin/env python3
# tests/docs/pages.py: checks the pages' links, lengths and openings, and the messages of errors.md
"""python3 tests/docs/pages.py ROOT

Exit status 1 if something is wrong; each finding is a line "page:line: what".

Messages: the first cell of each row in errors.md is a message in backticks. A word in capitals
stands for any text. The other parts must stand in the sources or in a golden file. So whoever
rewords a message rewords it in errors.md, too.
"""

import pathlib
import re
import sys

import markdown

LONGEST_LINE = 120  # a table's row may be longer
LONGEST_README = 120  # lines
SOURCES = [
    "runtime/**/*.cpp",
    "runtime/**/*.hpp",
    "runtime/**/*.cmake",
    "runtime/python/**/*.py",
    "kernels/**/*.cpp",
    "plugins/**/*.cpp",
    "plugins/**/*.hpp",
    "tests/golden/**/*.txt",
]
PLACEHOLDER = re.compile(r"\b(?!YAML|ABI|ELF|UTF|ATTNRT_)[A-Z][A-Z0-9_]*\b")


def check_links(page, root):
    for line, target in markdown.links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield line, f"the link to {target} leads nowhere"
        elif anchor and anchor not in markdown.anchors(file):
            yield line, f"{file.name} has no heading with the anchor {anchor}"
        elif root not in [file, *file.parents]:
            yield line, f"the link to {target} leads out of the tree"


def check_lines(page, root):
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if len(line) > LONGEST_LINE and not line.lstrip().startswith(("|", "<!--")):
            yield number, f"{len(line)} columns; at most {LONGEST_LINE}"
        if line != line.rstrip():
            yield number, "spaces at the end of the line"
    if page.name == "README.md" and number > LONGEST_README:
        yield number, f"{number} lines; at most {LONGEST_README}"


def check_opening(page, root):
    """A page of docs/ begins with its title, then the question that it answers."""
    if page.parent.name != "docs":
        return
    lines = page.read_text(encoding="utf-8").splitlines()
    if not lines[0].startswith("# ") or lines[1] or not lines[2].startswith("This page answers: "):
        yield 3, 'the first paragraph does not begin with "This page answers: "'
    if page.name != "index.md" and f"({page.name})" not in (root / "docs/index.md").read_text(
        encoding="utf-8"
    ):
        yield 1, "docs/index.md does not name this page"


def known_texts(root):
    """Returns all sources and golden files as one text.

    Adjacent string literals are joined, and escapes are undone.
    """
    texts = []
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            if path.suffix in (".cpp", ".hpp", ".py"):
                text = (
                    re.sub(r'"\s*f?"', "", text)
                    .replace('\\"', '"')
                    .replace("{{", "{")
                    .replace("}}", "}")
                )
            texts.append(text)
    return "\n".join(texts)


def check_messages(page, root):
    if page.name != "errors.md":
        return
    known, rows = known_texts(root), 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        cell = re.match(r"\| `([^`]+)` \|", line)
        if cell is None:
            continue
        rows += 1
        for part in PLACEHOLDER.split(cell[1]):
            part = part.strip(' .:,;()[]{}"')
            if len(part) > 2 and part not in known:
                yield number, f'no source says "{part}"'
    if rows < 20:
        yield 1, f"{rows} messages were found; this page or this test is broken"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = []
    pages = [
        *markdown.pages(root),
        root / "CHANGELOG.md",
        root / "tests/data/README.md",
    ]
    for page in pages:
        for check in (check_links, check_lines, check_opening, check_messages):
            findings += [
                f"{page.relative_to(root)}:{line}: {what}" for line, what in check(page, root)
            ]
    print("\n".join(findings) if findings else f"{len(pages)} pages are right")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
