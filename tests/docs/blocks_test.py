# tests/docs/blocks_test.py: shows that blocks.py finds each kind of broken block, and accepts each right one
import argparse
import os
import pathlib
import tempfile
import unittest

import blocks
import markdown

SOURCE, TREE = pathlib.Path(os.environ["ATTNRT_SOURCE"]), pathlib.Path(os.environ["ATTNRT_TREE"])

RIGHT = {
    "shell": "```sh\nattnrt --version\ntest -e /opt/attnrt/bin/attnrt\n```",
    "C": "```c\n#include <attnrt/attnrt.h>\nint main(void) { return attnrt_version()[0] == 0; }\n```",
    "C++": "```cpp\n#include <attnrt/attnrt.hpp>\nint main() { return attnrt::Problem{}.batch != 1; }\n```",
    "a policy": "```yaml\nschema: 1\nthreads: 2\n```",
    "a manifest": "```yaml\nsupports:\n  - {dtype: f32}\n```",
    "JSON": '```json\n{"schema": "attnrt/1"}\n```',
    "output": "```text\nno such command\n```",
    "a fragment": "<!-- fragment: it needs another machine -->\n```sh\nfalse\n```",
    "an indented fragment": "text\n\n<!-- fragment: it needs another machine -->\n\n    false",
    "a part of a file": "<!-- from: config/pinned_version.yaml -->\n```yaml\nhip_flash:\n  version: \">=1.2, <1.3\"\n```",
    "a list": "- an item\n\n    that goes on",
}
BROKEN = {
    "a failing command": "```sh\nfalse\ntrue\n```",
    "a command that does not exist": "```sh\nattnrt lst\n```",
    "C that does not compile": "```c\nint x = y;\n```",
    "C++ that does not compile": "```cpp\n#include <attnrt/attnrt.hpp>\nint main() { return attnrt::Problem{}.btach; }\n```",
    "a program that fails": "```cpp\nint main() { return 1; }\n```",
    "a project that does not build": "```cmake\nproject(x C)\nadd_executable(x absent.c)\n```",
    "a policy with an unknown key": "```yaml\nschema: 1\nthraeds: 2\n```",
    "a policy with a warning": "```yaml\nrules:\n  - {when: {batch: {max: 0}}, deny: cpu}\n```",
    "a manifest with an unknown feature": "```yaml\nsupports:\n  - {dtype: f32, features: [gpa]}\n```",
    "JSON with a comma too many": '```json\n{"schema": "attnrt/1",}\n```',
    "a language that is not known": "```rust\nfn main() {}\n```",
    "no language": "```\nattnrt list\n```",
    "an indented block": "text\n\n    attnrt list",
    "a fragment without a reason": "<!-- fragment -->\n```sh\nfalse\n```",
    "a part that is not in its file": "<!-- from: config/cpu_only.yaml -->\n```yaml\nthreads: 5\n```",
}


class Blocks(unittest.TestCase):
    def failures(self, text):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("# A page\n\n" + text + "\n")
            options = argparse.Namespace(source=SOURCE, tree=TREE, work=pathlib.Path(folder) / "work", python=None)
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
            page.write_text("one\n\n    a\n\n    b\n\n```sh x\nc\n```\n\n1. item\n\n   ```json\n   {}\n   ```\n")
            found = [(block.line, block.language, block.name, block.text) for block in markdown.blocks(page)]
        self.assertEqual(found, [(3, "", "", "a\n\nb\n"), (8, "sh", "x", "c\n"), (14, "json", "", "{}\n")])


if __name__ == "__main__":
    unittest.main()
