# tests/docs/markdown.py: reads a Markdown page into its code blocks, links and anchors
import dataclasses
import pathlib
import re

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*(.*?)\s*$")
MARK = re.compile(r"^<!-- (fragment|from): (.+?) -->$")
LIST_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclasses.dataclass
class Block:
    page: pathlib.Path
    line: int  # of its first line of code
    language: str  # "" if none is named
    name: str  # the file that it is, as in ```c mine.c; "" if none is named
    text: str
    mark: tuple[str, str] | None  # ("fragment", why), ("from", file) or None


def pages(root):
    """Returns the pages whose code blocks are run."""
    own = [root / "README.md", root / "runtime/python/README.md"]
    return [*own, *sorted((root / "docs").glob("*.md"))]


def blocks(page):
    """Returns every fenced and every indented code block of the page, in order."""
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    mark, in_list, blank_before, at = None, False, True, 0
    while at < len(lines):
        line = lines[at]
        fence = FENCE.match(line)
        indented = line.startswith(("    ", "\t")) and blank_before and not in_list
        if fence:
            start = at = at + 1
            while at < len(lines) and not re.match(rf"^\s*{re.escape(fence[2])}\s*$", lines[at]):
                at += 1
            body = [one.removeprefix(fence[1]) for one in lines[start:at]]
            language, _, name = fence[3].partition(" ")
            found.append(Block(page, start + 1, language, name, "\n".join(body) + "\n", mark))
            mark = None
        elif indented and line.strip():
            start = at
            while at < len(lines) and (
                lines[at].startswith(("    ", "\t")) or not lines[at].strip()
            ):
                at += 1
            body = "\n".join(one[4:] for one in lines[start:at]).rstrip() + "\n"
            found.append(Block(page, start + 1, "", "", body, mark))
            mark, at = None, at - 1
        elif line.strip():
            match = MARK.match(line.strip())
            mark = (match[1], match[2]) if match else None
            in_list = bool(LIST_ITEM.match(line)) or (in_list and line.startswith(" "))
        blank_before = at < len(lines) and not lines[at].strip()
        at += 1
    return found


def prose(page):
    """Yields (number, line) outside of fenced code, without what is between backticks."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "``", line)


def links(page):
    """Yields (line, target) of each link that is not to another site."""
    for number, line in prose(page):
        for target in LINK.findall(line):
            if not re.match(r"[a-z]+:", target):
                yield number, target


def anchors(page):
    """Returns the anchors that GitHub gives to the page's headings."""
    found = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= bool(FENCE.match(line))
        if line.startswith("#") and not fenced:
            title = line.lstrip("#").strip().lower()
            found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title)))
    return found
