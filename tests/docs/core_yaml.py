# tests/docs/core_yaml.py: reads YAML as the runtime does, with the plain scalars of YAML 1.2
#
# They are true, false, null, decimal numbers and text. PyYAML itself follows YAML 1.1, where yes is
# a boolean and 010 is eight.
import re

import yaml


class Loader(yaml.SafeLoader):
    pass


Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's


for tag, pattern, first in [
    ("bool", r"true|false", "tf"),
    ("int", r"-?(0|[1-9][0-9]*)", "-0123456789"),
    (
        "float",
        r"-?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-.0123456789",
    ),
    ("null", r"null|~|", ["n", "~", ""]),
]:
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"^({pattern})$"), list(first)
    )


def load(text):
    """Returns the one document of the text. Errors: yaml.YAMLError."""
    return yaml.load(text, Loader)
