# tests/docs/schema_test.py: compares the JSON Schemas of docs/ with files and with the runtime
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import core_yaml
import jsonschema
import yaml

SOURCE, TREE = pathlib.Path(os.environ["ATTNRT_SOURCE"]), pathlib.Path(os.environ["ATTNRT_TREE"])
UNKNOWN = "zzzzzzzzzzzz"  # near to no word of the runtime, which then lists what it knows

# What the schema cannot see, because reading the YAML hides it.
HIDDEN = {
    "duplicate_backend.yaml": "of two equal keys the reader keeps one",
    "duplicate_key.yaml": "of two equal keys the reader keeps one",
    "condition_infinite.yaml": "the reader has an infinite number, which JSON does not have",
    "tag.yaml": "the reader has applied the tag",
}


def schema(name):
    return json.loads((SOURCE / f"docs/{name}.schema.json").read_text())


def validator(name, definition=None):
    document = schema(name)
    jsonschema.Draft202012Validator.check_schema(document)
    if definition:  # the whole schema, and what the definition requires besides
        document["required"] = document["$defs"][definition]["required"]
    return jsonschema.Draft202012Validator(document)


def attnrt(*words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ATTNRT_")}
    done = subprocess.run(
        [TREE / "bin/attnrt", *words], env=environment, text=True, capture_output=True
    )
    return done.returncode, done.stdout, done.stderr


def words_known(message):
    """The words that a message lists after "expected"."""
    listed = re.search(r"expected (?:one of )?([\w, ]+)", message)[1]
    return set(re.split(r", | or ", listed.strip()))


class Files(unittest.TestCase):
    """Every file that the runtime accepts fits, and those that it refuses do not."""

    def check(self, validator, document, what):
        self.assertEqual(
            [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)], [], what
        )

    def test_policies(self):
        policy = validator("policy")
        files = [f for f in sorted((SOURCE / "config").glob("*.yaml")) if f.name != "bench.yaml"]
        files += sorted(
            (SOURCE / "tests/golden/config").glob("warn_*.yaml")
        )  # a warning is no error
        self.assertGreater(len(files), 10)
        for file in files:
            self.check(policy, core_yaml.load(file.read_text()), file.name)

    def test_broken_policies(self):
        policy, seen = validator("policy"), set()
        for line in (SOURCE / "tests/golden/config/errors.txt").read_text().splitlines():
            name = line.split(":")[0]
            with self.subTest(name):
                try:
                    fits = policy.is_valid(
                        core_yaml.load((SOURCE / "tests/golden/config" / name).read_text())
                    )
                except yaml.YAMLError:
                    fits = False
                self.assertEqual(fits, name in HIDDEN, line)
                seen.add(name)
        self.assertLessEqual(set(HIDDEN), seen)

    def test_manifests_as_written(self):
        files = [
            *sorted((SOURCE / "plugins").glob("*/manifest.yaml")),
            SOURCE / "examples/minimal_plugin/manifest.yaml",
        ]
        self.assertGreaterEqual(len(files), 4)
        for file in files:
            self.check(validator("manifest"), core_yaml.load(file.read_text()), file)

    def test_manifests_as_embedded(self):
        files = sorted(TREE.glob("lib*/**/attnrt/plugins/*.so"))
        self.assertGreaterEqual(len(files), 1)
        for file in files:
            with tempfile.TemporaryDirectory() as folder:
                text = pathlib.Path(folder) / "manifest.yaml"
                subprocess.run(
                    ["objcopy", "--dump-section", f".attnrt_manifest={text}", file, "/dev/null"],
                    check=True,
                )
                self.check(
                    validator("manifest", "embedded"), core_yaml.load(text.read_text()), file
                )

    def test_broken_manifests(self):
        right = {
            "name": "x",
            "version": "1.0.0",
            "abi": 1,
            "devices": ["cpu"],
            "supports": [{"dtype": "f32"}],
        }
        embedded = validator("manifest", "embedded")
        self.assertTrue(embedded.is_valid(right))
        for key in right:
            self.assertFalse(embedded.is_valid({k: v for k, v in right.items() if k != key}), key)
        for change in (
            {"name": "X"},
            {"version": "1.0"},
            {"abi": 2},
            {"abi": "1"},
            {"devices": ["tpu"]},
            {"supports": []},
            {"supports": [{"dtypes": "f32"}]},
            {"supports": [{"features": ["gpa"]}]},
            {"nmae": "x"},
            {"supports": [{"batch": 4}]},
            {"supports": [{"seq_q": {"min": 1, "max": 4}}]},
            {"supports": [{"head_dim": {"maximum": 4}}]},
            {"supports": [{"causal": {"max": 1}}]},
            {"supports": [{"head_dim": {}}]},
            {"supports": [{"dtype": []}]},
            {"supports": {"dtype": "f32"}},
        ):
            self.assertFalse(embedded.is_valid({**right, **change}), change)


class Words(unittest.TestCase):
    """The schema's keys and values are the runtime's: neither knows one that the other does not."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.policy = schema("policy")
        self.conditions = self.policy["$defs"]["conditions"]["properties"]

    def findings(self, document):
        file = self.folder / "policy.yaml"
        file.write_text(yaml.safe_dump(document))
        return [
            one["message"]
            for one in json.loads(attnrt("check", "--json", str(file))[1])["findings"]
        ]

    def known_at(self, document):
        """The keys that the runtime knows where the document has the unknown one."""
        messages = [one for one in self.findings(document) if UNKNOWN in one]
        self.assertEqual(len(messages), 1, document)
        return words_known(messages[0].split(UNKNOWN, 1)[1])

    def test_keys_of_a_policy(self):
        properties = self.policy["properties"]
        backend = properties["backends"]["additionalProperties"]["properties"]
        rule = self.policy["$defs"]["rule"]["properties"]
        ranges = {**self.policy["$defs"]["range"]["properties"], "equals": {}}
        for keys, document in (
            (properties, {UNKNOWN: 1}),
            (properties["plugins"]["properties"], {"plugins": {UNKNOWN: 1}}),
            (properties["plan_cache"]["properties"], {"plan_cache": {UNKNOWN: 1}}),
            (properties["trust"]["properties"], {"trust": {UNKNOWN: 1}}),
            (
                properties["trust"]["properties"]["allow"]["properties"],
                {"trust": {"allow": {UNKNOWN: "why"}}},
            ),
            (backend, {"backends": {"cpu": {UNKNOWN: 1}}}),
            (rule, {"rules": [{"deny": "cpu", UNKNOWN: 1}]}),
            (self.conditions, {"backends": {"cpu": {"only": {UNKNOWN: 1}}}}),
            (ranges, {"backends": {"cpu": {"only": {"head_dim": {UNKNOWN: 1}}}}}),
        ):
            self.assertEqual(set(keys), self.known_at(document))

    def test_policy_md_names_every_key(self):
        page, properties = (SOURCE / "docs/policy.md").read_text(), self.policy["properties"]
        maps = ("plugins", "admission", "plan_cache", "trust")
        keys = [key for key in properties if key not in (*maps, "backends")]
        keys += [f"{name}.{key}" for name in maps for key in properties[name]["properties"]]
        keys += [
            f"backends.NAME.{key}"
            for key in properties["backends"]["additionalProperties"]["properties"]
        ]
        keys += [f"rules[].{key}" for key in self.policy["$defs"]["rule"]["properties"]]
        for key in keys:
            self.assertIn(f"| `{key}` |", page)

    def test_design_md_names_every_word(self):
        page = (SOURCE / "docs/design.md").read_text()
        for word in self.conditions:
            self.assertRegex(page, rf"\n\|[^|]*`{word}`[^|]*\|")

    def test_values_of_choices(self):
        properties = self.policy["properties"]
        for document, choices in (
            ({"staging": UNKNOWN}, properties["staging"]),
            ({"unlisted": UNKNOWN}, properties["unlisted"]),
            ({"on_fallback": UNKNOWN}, properties["on_fallback"]),
            ({"plugins": {"load": UNKNOWN}}, properties["plugins"]["properties"]["load"]),
            (
                {"trust": {"signatures": UNKNOWN}},
                properties["trust"]["properties"]["signatures"]["anyOf"][0],
            ),
        ):
            self.assertEqual(set(choices["enum"]), words_known(self.findings(document)[0]))
        for word, condition in self.conditions.items():
            choices = condition.get("anyOf", [{}])[0].get("enum")
            if choices:
                self.assertEqual(
                    set(choices), words_known(attnrt("explain", f"{word}={UNKNOWN}")[2]), word
                )

    def test_the_vocabulary_is_that_of_explain(self):
        self.assertEqual(set(self.conditions), words_known(attnrt("explain", f"{UNKNOWN}=1")[2]))

    def test_the_policy_in_effect_has_every_key(self):
        file = self.folder / "policy.yaml"
        file.write_text(
            yaml.safe_dump(
                {
                    "schema": 1,
                    "backends": {
                        "cpu": {
                            "version": ">=1",
                            "rollout": {"version": ">=1", "canary": "1/2"},
                            "only": {"batch": 1},
                            "options": {"target": "avx2"},
                            "sha256": ["0" * 64],
                        }
                    },
                    "rules": [{"deny": "x"}],
                    "trust": {
                        "keys": ["RWQ7m52EvRK3se5xXCtB9Spuc9UYaN/lchvp8OfNroo5XO0+Dddcitay"],
                        "allow": {"set_id": "a test"},
                    },
                }
            )
        )
        values = json.loads(attnrt("policy", "--json", "--policy", str(file))[1])["values"]
        keys = {one["key"] for one in values if not one["key"].startswith("(")}
        self.assertEqual(
            {key.split(".")[0] for key in keys} | {"schema"}, set(self.policy["properties"])
        )
        self.assertEqual(
            {key.split(".")[1] for key in keys if key.startswith("plugins.")},
            set(self.policy["properties"]["plugins"]["properties"]),
        )
        self.assertEqual(
            {key.split(".")[1] for key in keys if key.startswith("trust.")},
            set(self.policy["properties"]["trust"]["properties"]),
        )
        self.assertEqual(
            {key.split(".")[2] for key in keys if key.startswith("backends.cpu.")},
            set(self.policy["properties"]["backends"]["additionalProperties"]["properties"]),
        )

    def notes(self, supports):
        """Returns what the runtime says of a copy of the backend cpu with this entry."""
        plugin = next(TREE.glob("lib*/**/attnrt/plugins/cpu.so"))
        manifest, copied = self.folder / "manifest.yaml", self.folder / "plugins/cpu.so"
        copied.parent.mkdir(exist_ok=True)
        manifest.write_text(
            yaml.safe_dump(
                {
                    "name": "cpu",
                    "version": "1.0.0",
                    "abi": 1,
                    "devices": ["cpu"],
                    "supports": [supports],
                }
            )
        )
        shutil.copy(plugin, copied)
        subprocess.run(["objcopy", "--remove-section", ".attnrt_manifest", copied], check=True)
        subprocess.run(
            ["objcopy", "--add-section", f".attnrt_manifest={manifest}", copied], check=True
        )
        row = json.loads(attnrt("list", "--json", "--plugins", str(copied.parent))[1])["plugins"][0]
        return row["notes"], row["state"], row["reason"]

    def test_every_word_of_a_manifest_is_known_to_the_runtime(self):
        entry = schema("manifest")["$defs"]["entry"]["properties"]
        features = entry["features"]["anyOf"][0]["enum"]
        values = {"batch": {"max": 4}, "seq_q": {"max": 4}, "seq_kv": {"max": 4}, "arch": "sm_80+"}
        for word, condition in entry.items():
            choices = condition.get("anyOf", [{}])[0].get("enum")
            flag = condition.get("$ref", "").endswith("/flag")
            values.setdefault(word, choices or ([True, False] if flag else [1, 2]))
        notes, state, reason = self.notes({**values, "features": features})
        self.assertEqual((notes, state), ([], "ready"), reason)
        self.assertEqual(len(self.notes({"features": [UNKNOWN]})[0]), 1)

    def test_every_feature_is_in_the_schema(self):
        complete = core_yaml.load((SOURCE / "plugins/cpu/manifest.yaml").read_text())["supports"][0]
        entry = schema("manifest")["$defs"]["entry"]["properties"]
        self.assertEqual(set(entry["features"]["anyOf"][0]["enum"]), set(complete["features"]))
        self.assertEqual(set(entry) - {"features"}, set(self.conditions))


if __name__ == "__main__":
    unittest.main()
