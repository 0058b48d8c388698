# tests/docs/json_test.py: docs/json.md names every field that the commands write, and no others
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SOURCE, TREE = pathlib.Path(os.environ["ATTNRT_SOURCE"]), pathlib.Path(os.environ["ATTNRT_TREE"])
PROBLEM = "dtype=f32 heads_q=2 heads_kv=1 seq_q=4 seq_kv=4 head_dim=8 causal=true"
COMMANDS = {
    "error": ["explain", "head_dim=many"],
    "plugins": ["list"],
    "decision": ["explain", PROBLEM],
    "policy": ["policy"],
    "check": ["check", str(SOURCE / "tests/golden/config/threads_negative.yaml")],
    "run": ["run", "--input", str(SOURCE / "tests/data/smollm2_layer18_decode.safetensors")],
    "bench": ["bench", "--seq", "16", "--samples", "1"],
    "stats": ["stats", "STATS"],  # of the run above
    "doctor": ["doctor"],
    "verification": ["verify", "--backend", "cpu", "--rule", "ABI-1"],
}
# Maps whose fields the section of another kind names, or that have any fields.
ELSEWHERE = {"problem", "decision", "environment"}
# Documented, but only in documents that these commands do not give.
NOT_HERE = {"detail", "effect", "reproduce", "kind"}


def fields(document):
    """Yields the name of every field at any depth."""
    if isinstance(document, list):
        for one in document:
            yield from fields(one)
    elif isinstance(document, dict):
        for name, value in document.items():
            yield name
            is_document = isinstance(value, dict) and "kind" in value
            if name not in ELSEWHERE and not is_document:
                yield from fields(value)


def section(kind):
    """Returns the part of docs/json.md about one kind of document."""
    page = (SOURCE / "docs/json.md").read_text()
    return re.search(rf"^## {kind}\b.*?(?=^## |\Z)", page, re.M | re.S)[0]


class Fields(unittest.TestCase):
    def document(self, words):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ATTNRT_")}

        def run(words, **variables):
            command = [TREE / "bin/attnrt", *words, "--json"]
            return subprocess.run(
                command, env=environment | variables, text=True, capture_output=True
            ).stdout

        with tempfile.TemporaryDirectory() as folder:
            if words[0] == "stats":
                words = ["stats", folder + "/stats.json"]
                policy = pathlib.Path(folder, "policy.yaml")
                policy.write_text(
                    "backends: {cpu: {rollout: {version: '>=0.1', canary: 1/2, after: 9}}}\n"
                )
                run(COMMANDS["run"], ATTNRT_STATS=words[1], ATTNRT_POLICY=str(policy))
            return json.loads(run(words))

    def test_every_field_is_documented(self):
        for kind, words in COMMANDS.items():
            with self.subTest(kind):
                document = self.document(words)
                self.assertEqual((document.pop("schema"), document.pop("kind")), ("attnrt/1", kind))
                text = section(kind)
                missing = {name for name in fields(document) if not re.search(rf"\b{name}\b", text)}
                self.assertEqual(missing, set())

    def test_every_documented_field_is_written(self):
        for kind, words in COMMANDS.items():
            with self.subTest(kind):
                document = self.document(words)
                first_cells = re.findall(r"^\| ([^|]+) \|", section(kind), re.M)[1:]
                names = {name for cell in first_cells for name in re.findall(r"\w+", cell)}
                self.assertLessEqual(names - NOT_HERE, set(fields(document)))


if __name__ == "__main__":
    unittest.main()
