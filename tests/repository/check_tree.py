#!/usr/bin/env python3
"""tests/repository/check_tree.py: the tree's own rules, each broken one as a line "file:line: rule".

    python3 tests/repository/check_tree.py [ROOT]      exit status 1 if a rule is broken
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
OUTSIDE = {".git", "build", "dist", ".venv", ".cache", "__pycache__"}
CODE = {".c", ".cpp", ".cu", ".h", ".hip", ".hpp", ".inc", ".inl"}
COMMENTED = CODE | {".cmake", ".py", ".sh"}  # and CMakeLists.txt: each starts by naming itself
STEPS = ["config", "policy", "discover", "load", "candidates", "select", "plan", "run", "runtime"]

# Which includes a folder's code may not have. A quoted or bracketed path is compared from its start.
ARROWS = [
    ("plugins/", r"attnrt/(?!plugin\.h)|runtime/|tests/", "a plugin includes attnrt/plugin.h and kernels, nothing else of ours"),
    ("kernels/", r"attnrt/|runtime/|plugins/|tests/", "kernels know maths and devices, and no attnrt header"),
    ("runtime/src/", r"kernels/|plugins/|tests/", "the runtime links neither plugins nor kernels"),
    ("runtime/include/", r"(?!attnrt/)\w+/(?!expected)", "a public header includes attnrt's, the language's and tl/expected"),
]
LEFTOVERS = [
    (r"/(root|work|home|Users)/[\w.]", "a path of one machine"),
    (r"\b(TODO|FIXME|XXX|HACK)\b", "a note to oneself"),
    (r"^(<{7}|={7}|>{7})( |$)", "a merge conflict"),
    (r"^\s*#\s*if 0\b", "code that is switched off"),
    (r"\bDISABLED_\w|^\s*(//|#)\s*(TEST(_[FP])?\(|add_test\()", "a test that is switched off"),
    (r"[ \t]+$", "spaces at the end of a line"),
]
BANNED_NAMES = re.compile(r"(^|[_./-])(utils?|helpers?|managers?|misc|archive|old|backup)([_./-]|$)|\.(orig|rej|bak|swp|o|so|pyc)$|~$")
INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]")

broken = []


def files():
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and not OUTSIDE & set(relative.parts):
            yield relative.as_posix(), path


def check(holds, name, line, rule):
    if not holds:
        broken.append(f"{name}:{line}: {rule}")


def check_first_line(name, lines):
    start = 1 if lines and lines[0].startswith("#!") else 0
    first = lines[start] if len(lines) > start else ""
    own = [name, name.removeprefix("runtime/include/")]
    check(any(re.match(rf"\W*{re.escape(n)}: \S", first) for n in own), name, start + 1,
          f'the first line is not "{own[-1]}: what it turns into what"')


def check_lines(name, lines):
    is_code = pathlib.Path(name).suffix in CODE
    for number, line in enumerate(lines, 1):
        if name != "tests/repository/check_tree.py":
            for pattern, rule in LEFTOVERS:
                check(not re.search(pattern, line), name, number, rule)
        included = INCLUDE.match(line) if is_code else None
        climbs = included and "../" in included.group(1) and not name.startswith("tests/")
        check(not climbs, name, number, "an include that climbs out of its folder")
        for folder, forbidden, rule in ARROWS if included else []:
            if name.startswith(folder):
                check(not re.match(forbidden, included.group(1)), name, number, rule)


names = set()
for name, path in files():
    names.add(name)
    check(not BANNED_NAMES.search(name), name, 1, "this name says nothing, or the file was made by a tool")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        continue  # data
    if name.endswith((".safetensors", ".json", ".ref", ".txt")) and not name.endswith("CMakeLists.txt"):
        continue
    if pathlib.Path(name).suffix in COMMENTED or name.endswith("CMakeLists.txt"):
        check_first_line(name, lines)
    check_lines(name, lines)

for step in STEPS:
    check(f"runtime/src/{step}.cpp" in names, f"runtime/src/{step}.cpp", 1, "a step of the road is missing")
    check(f"tests/runtime/{step}_test.cpp" in names, f"tests/runtime/{step}_test.cpp", 1, "this step has no test")

print("\n".join(broken) if broken else f"{len(names)} files keep the rules")
sys.exit(1 if broken else 0)
