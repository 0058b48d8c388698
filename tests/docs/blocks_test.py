# tests/docs/blocks_test.py: blocks.py finds each kind of broken block, and accepts right ones
import argparse
import os
import pathlib
import tempfile
import unittest

import blocks
import markdown

SOURCE, TREE = pathlib.Path(os.environ["ATTNRT_SOURCE"]), pathlib.Path(os.environ["ATTNRT_TREE"])

RIGHT = {
    "shell": """
```sh
attnrt --version
test -e /opt/attnrt/bin/attnrt
```
""",
    "C": """
```c
#include <attnrt/attnrt.h>
int main(void) { return attnrt_version()[0] == 0; }
```
""",
    "C++": """
```cpp
#include <attnrt/attnrt.hpp>
int main() { return attnrt::Problem{}.batch != 1; }
```
""",
    "a policy": """
```yaml
schema: 1
threads: 2
```
""",
    "a manifest": """
```yaml
supports:
  - {dtype: f32}
```
""",
    "JSON": """
```json
{"schema": "attnrt/1"}
```
""",
    "output": """
```text
no such command
```
""",
    "a fragment": """
<!-- fragment: it needs another machine -->
```sh
false
```
""",
    "an indented fragment": """
text

<!-- fragment: it needs another machine -->

    false
""",
    "a part of a file": """
<!-- from: config/pinned_version.yaml -->
```yaml
hip_flash:
  version: ">=1.2, <1.3"
```
""",
    "a list": """
- an item

    that goes on
""",
}
BROKEN = {
    "a failing command": """
```sh
false
true
```
""",
    "a command that does not exist": """
```sh
attnrt lst
```
""",
    "C that does not compile": """
```c
int x = y;
```
""",
    "C++ that does not compile": """
```cpp
#include <attnrt/attnrt.hpp>
int main() { return attnrt::Problem{}.btach; }
```
""",
    "a program that fails": """
```cpp
int main() { return 1; }
```
""",
    "a project that does not build": """
```cmake
project(x C)
add_executable(x absent.c)
```
""",
    "a policy with an unknown key": """
```yaml
schema: 1
threds: 2
```
""",
    "a policy with a warning": """
```yaml
rules:
  - {when: {batch: {max: 0}}, deny: cpu}
```
""",
    "a manifest with an unknown feature": """
```yaml
supports:
  - {dtype: f32, features: [gpa]}
```
""",
    "JSON with a comma too many": """
```json
{"schema": "attnrt/1",}
```
""",
    "a language that is not known": """
```rust
fn main() {}
```
""",
    "no language": """
```
attnrt list
```
""",
    "an indented block": """
text

    attnrt list
""",
    "a fragment without a reason": """
<!-- fragment -->
```sh
false
```
""",
    "a part that is not in its file": """
<!-- from: config/cpu_only.yaml -->
```yaml
threads: 5
```
""",
}


class Blocks(unittest.TestCase):
    def failures(self, text):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("# A page\n\n" + text + "\n")
            options = argparse.Namespace(
                source=SOURCE, tree=TREE, work=pathlib.Path(folder) / "work", python=None
            )
            return blocks.check_page(page, options)[0]

    def test_right_blocks(self):
        for what, text in RIGHT.items():
            with self.subTest(what):
                self.assertEqual(self.failures(text), [])

    def test_broken_blocks(self):
        for what, text in BROKEN.items():
            with self.subTest(what):
                self.assertEqual(len(self.failures(text)), 1)

    def test_every_block_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text(
                "one\n\n    a\n\n    b\n\n```sh x\nc\n```\n\n1. item\n\n   ```json\n   {}\n   ```\n"
            )
            found = [
                (block.line, block.language, block.name, block.text)
                for block in markdown.blocks(page)
            ]
        self.assertEqual(
            found, [(3, "", "", "a\n\nb\n"), (8, "sh", "x", "c\n"), (14, "json", "", "{}\n")]
        )


if __name__ == "__main__":
    unittest.main()
