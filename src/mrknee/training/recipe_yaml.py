"""Reading and writing a recipe's YAML as a plain tree of settings, without validating it.

Plain values follow the core schema of YAML 1.2 rather than YAML 1.1, in which `1:30` is 90, `010`
is 8, `1_000` is 1000, `no` is false and `1e-4` is text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from mrknee.errors import SettingsError
from mrknee.untrusted import read_text

_MAX_BYTES = 64_000  # a recipe that states every setting has 2,000

_MAX_DEPTH = 10  # sections, settings and lists need far less


def read_yaml(file: Path, what: str = "recipe", *, example: str = "epochs: 30") -> dict[str, Any]:
    """Reads a YAML file of settings, without checking their names and values.

    Args:
        file: the file.
        what: what the file contains, for messages.
        example: a setting that it may contain, for messages.

    Returns:
        Setting -> value: text, a number, a boolean, None, a list of these, or a tree.

    Raises:
        SettingsError: the file is missing, is not YAML in UTF-8, or holds no settings; a setting
            is repeated; or the file has tags, aliases (nested ones can expand without bound) or
            values that aren't plain.
    """
    text = read_text(file, what, at_most=_MAX_BYTES, kind=SettingsError)
    try:
        tree = yaml.load(text, Loader=_YamlLoader)  # noqa: S506  # a SafeLoader that refuses more
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(
            f"the {what} can't be read", code="recipe", file=file, found=str(error)
        ) from None
    if tree is None or tree == {}:
        raise SettingsError(
            f"the {what} is empty",
            code="recipe",
            file=file,
            expected=f"at least one setting, such as {example}",
            found="no setting",
            advice="add a setting, or omit --recipe to use the default recipe"
            if what == "recipe"
            else None,
        )
    if not isinstance(tree, dict):
        raise SettingsError(
            f"the {what} can't be read",
            code="recipe",
            file=file,
            expected=f"settings with their values, such as {example}",
            found=f"{tree!r:.80}",
        )
    return tree


def parse_value(text: str) -> Any:  # noqa: ANN401  # the type depends on the text
    """Parses one value of a recipe or of the command line by YAML 1.2's core schema.

    Raises:
        yaml.YAMLError: the text is not YAML, or uses a feature that recipes don't accept.
    """
    try:
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506  # a SafeLoader that refuses more
    except ValueError as error:  # such as an integer with more digits than Python converts
        raise yaml.YAMLError(str(error)) from None


def dump(tree: dict[str, Any]) -> str:
    """Returns a tree as YAML that `read_yaml` can read; text that looks like a number is quoted."""
    return str(yaml.dump(tree, Dumper=_YamlDumper, sort_keys=False))


_CORE_SCHEMA = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Type -> pattern of its values, and their first characters (NUL: empty text).

https://yaml.org/spec/1.2.2/#103-core-schema
"""


class _YamlLoader(yaml.SafeLoader):
    """Loader of YAML 1.2 that refuses aliases, tags, merged and repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's interface; without those of 1.1
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(
                f"anchors and aliases are not supported: write out the value\n{event.start_mark}"
            )
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"the tag {event.tag} is not supported\n{event.start_mark}")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")
        node = super().compose_node(parent, index)  # type: ignore[arg-type]  # nodes too
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen or key.value == "<<":
                raise yaml.YAMLError(
                    f"a setting that is not a name or is repeated\n{key.start_mark}"
                )
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep)
        if not all(isinstance(key, str) for key in mapping):
            raise yaml.YAMLError(f"a setting whose name is not text\n{node.start_mark}")
        return mapping

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Constructs an integer; 010 is ten."""
        text = str(node.value)
        base = {"0o": 8, "0x": 16}.get(text[:2])
        return int(text) if base is None else int(text[2:], base)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """Constructs a float, also an infinite one or NaN."""
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _YamlDumper(yaml.SafeDumper):
    """Dumper of YAML that `_YamlLoader` can read."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's interface


for _type, (_pattern, _first) in _CORE_SCHEMA.items():
    for _class in (_YamlLoader, _YamlDumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_type}",
            re.compile(f"(?:{_pattern})$"),
            ["" if character == "\0" else character for character in _first],
        )
_YamlLoader.add_constructor("tag:yaml.org,2002:int", _YamlLoader.construct_int)
_YamlLoader.add_constructor("tag:yaml.org,2002:float", _YamlLoader.construct_float)
