#!/usr/bin/env python3
"""tests/repository/check_tree.py: checks the rules of this tree, prints "file:line: rule" lines.

python3 tests/repository/check_tree.py [ROOT]      exit status 1 if a rule is broken
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(
    sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]
).resolve()
THIS = "tests/repository/check_tree.py"
RETIRED = "tests/repository/retired.txt"
IGNORED = {".git", "build", "dist", ".venv", ".cache", ".mypy_cache", ".ruff_cache", "__pycache__"}
CODE = {".c", ".cpp", ".cu", ".h", ".hip", ".hpp", ".inc", ".inl"}
COMMENTED = CODE | {".cmake", ".py", ".sh"}  # and CMakeLists.txt: the first line names the file
LINE_LENGTH = 100  # of code, comments included
STEPS = ["config", "policy", "discover", "load", "candidates", "select", "plan", "run", "runtime"]

# Includes that the code of a folder may not have: (folder, pattern, rule). The pattern is matched
# from the start of the path; with a leading quote it is matched against quoted includes only.
ARROWS = [
    (
        "plugins/",
        r'"?(attnrt/(?!plugin\.h)|runtime/|tests/)',
        "a plugin includes attnrt/plugin.h, kernels and plugins, nothing else of this tree",
    ),
    (
        "kernels/",
        r'"?(attnrt/|runtime/|plugins/|tests/)',
        "kernels know maths and devices, and no attnrt header",
    ),
    (
        "runtime/src/",
        r'"?(kernels/|plugins/|tests/|cli/|conformance/)',
        "the runtime knows neither plugins, kernels, the command nor the conformance rules; "
        "shadow.cpp alone includes what compares two results",
    ),
    (
        "runtime/src/base/",
        r'"(?!base/)|attnrt/(?!plugin\.h|attnrt\.h)',
        "base includes nothing of this tree but base and the public C headers",
    ),
    (
        "runtime/src/formats/",
        r'"(?!base/|formats/)|attnrt/(?!plugin\.h)',
        "formats includes nothing of this tree but base, formats and attnrt/plugin.h",
    ),
    (
        "runtime/src/problem/",
        r'"(?!base/|formats/|problem/)|attnrt/(?!plugin\.h)',
        "problem includes nothing of this tree but base, formats, problem and attnrt/plugin.h",
    ),
    ("runtime/conformance/", r'"?cli/', "the conformance rules know nothing of the command"),
    ("runtime/cli/bench/", r'"?conformance/', "bench and conformance do not know each other"),
    ("runtime/cli/html/", r'"?cli/(?!html/)', "html knows nothing of what it shows"),
    ("runtime/cli/io/", r'"?cli/(?!io/)', "io knows nothing of the commands"),
    (
        "runtime/include/",
        r'"?(?!attnrt/)\w+/(?!expected)',
        "a public header includes attnrt's, the language's and tl/expected",
    ),
]
LEFTOVERS = [
    (r"/(root|work|home|Users)/[\w.]", "a path of one machine"),
    (r"\b(TODO|FIXME|XXX|HACK)\b", "a note to oneself"),
    (r"^(<{7}|={7}|>{7})( |$)", "a merge conflict"),
    (r"^\s*#\s*if 0\b", "code that is switched off"),
    (r"\bDISABLED_\w|^\s*(//|#)\s*(TEST(_[FP])?\(|add_test\()", "a test that is switched off"),
    (r"[ \t]+$", "spaces at the end of a line"),
]
BANNED_NAMES = re.compile(
    r"(^|[_./-])(utils?|helpers?|managers?|misc|archive|old|backup)([_./-]|$)"
    r"|\.(orig|rej|bak|swp|o|so|pyc)$|~$"
)
# Included all the same: (file, included).
EXCEPTIONS = {
    ("runtime/src/shadow.cpp", "kernels/common/sequence.hpp"),
    ("runtime/src/shadow.cpp", "kernels/reference/difference.hpp"),
    ("runtime/src/shadow.cpp", "plugins/common/translate.hpp"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:<|(?="))("?[^">]+)[>"]')

violations: list[str] = []


def files():
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and not IGNORED & set(relative.parts):
            yield relative.as_posix(), path


def check(holds, name, line, rule):
    if not holds:
        violations.append(f"{name}:{line}: {rule}")


def read_retired() -> re.Pattern[str]:
    """One pattern of whole words: the first word of each line of RETIRED but its comments."""
    lines = (ROOT / RETIRED).read_text().splitlines()
    words = [line.split()[0] for line in lines if line and not line.startswith("#")]
    return re.compile(rf"\b({'|'.join(map(re.escape, words)) or '(?!)'})\b")


def check_first_line(name, lines):
    start = 1 if lines and lines[0].startswith("#!") else 0
    first = lines[start] if len(lines) > start else ""
    own = [name, name.removeprefix("runtime/include/")]
    check(
        any(re.match(rf"\W*{re.escape(n)}: \S", first) for n in own),
        name,
        start + 1,
        f'the first line is not "{own[-1]}: what it does"',
    )


def check_lines(name, lines):
    suffix = pathlib.Path(name).suffix
    for number, line in enumerate(lines, 1):
        if name not in (THIS, RETIRED):
            for pattern, rule in LEFTOVERS:
                check(not re.search(pattern, line), name, number, rule)
            for word in RETIRED_WORDS.findall(line):
                check(False, name, number, f"{word} is a retired name; {RETIRED} has the new one")
        if suffix in CODE | {".py"}:
            check(
                len(line) <= LINE_LENGTH,
                name,
                number,
                f"{len(line)} columns; expected at most {LINE_LENGTH}",
            )
        included = INCLUDE.match(line) if suffix in CODE else None
        if not included:
            continue
        path = included.group(1)
        check(
            "../" not in path or name.startswith("tests/"),
            name,
            number,
            "an include that climbs out of its folder",
        )
        for folder, forbidden, rule in ARROWS:
            if name.startswith(folder) and (name, path.lstrip('"')) not in EXCEPTIONS:
                check(not re.match(forbidden, path), name, number, rule)


RETIRED_WORDS = read_retired()
names = set()
for name, path in files():
    names.add(name)
    check(not BANNED_NAMES.search(name), name, 1, "the name says nothing, or a tool made the file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        continue  # data
    is_cmake = name.endswith("CMakeLists.txt")
    if name.endswith((".safetensors", ".json", ".ref", ".txt")) and not is_cmake:
        continue
    if pathlib.Path(name).suffix in COMMENTED or is_cmake:
        check_first_line(name, lines)
    check_lines(name, lines)

for step in STEPS:
    for file in (f"runtime/src/{step}.cpp", f"tests/runtime/{step}_test.cpp"):
        check(file in names, file, 1, "a step of the pipeline, or its test, is missing")

print("\n".join(violations) if violations else f"{len(names)} files keep the rules")
sys.exit(1 if violations else 0)
