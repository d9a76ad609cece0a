"""A recipe's YAML as a plain tree of settings, before anything is made of it.

What builds the settings (jsonargparse) imports whatever module a `class_path` names and reads
whatever file stands where settings should; a recipe sent by somebody else could run code so. Here
it is held to what a recipe is: the settings there are, each once, with plain values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from mrknee.errors import MrkneeError
from mrknee.untrusted import read_text

_MAX_BYTES = 64_000  # a recipe with every setting written out has 2,000

_MAX_DEPTH = 10  # a recipe has settings of parts, and lists of them


def read_tree(file: Path, kind: type) -> dict[str, Any]:
    """Reads a YAML file that holds some of a dataclass's fields.

    Args:
        file: the file.
        kind: the dataclass; a field that is a dataclass holds settings of its own.

    Returns:
        Setting -> value: text, a number, a boolean, None, a list of these, or a tree.

    Raises:
        MrkneeError: no such file; it isn't YAML in UTF-8; a setting comes twice or doesn't exist;
            a tag, an alias (nested ones grow without end), or something else than a plain value.
    """
    text = read_text(file, "recipe", at_most=_MAX_BYTES)
    try:
        tree = yaml.load(text, Loader=_Plain)  # noqa: S506  # a SafeLoader that refuses more
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(file, str(error)) from None
    if tree is None:
        return {}
    _refuse_foreign(tree, kind, "", file)
    assert isinstance(tree, dict)  # noqa: S101  # for the type checker
    return tree


class _Plain(yaml.SafeLoader):
    """YAML without what recipes don't need: aliases, tags, merged and repeated keys."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"an anchor or alias: write the value out\n{event.start_mark}")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"the tag {event.tag}: only plain values\n{event.start_mark}")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.YAMLError("nested too deep")
        node = super().compose_node(parent, index)  # type: ignore[arg-type]  # nodes too
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen or key.value == "<<":
                raise yaml.YAMLError(f"a setting that is no name or comes twice\n{key.start_mark}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refuse_foreign(tree: object, kind: type, prefix: str, file: Path) -> None:
    if not isinstance(tree, dict):
        raise _refused(file, f"{tree!r:.80}", f"settings below {prefix or 'the file'}")
    hints = get_type_hints(kind)
    for name, value in tree.items():
        if name not in hints:
            raise _refused(file, f"{prefix}{name}", "one of " + ", ".join(hints))
        if dataclasses.is_dataclass(hints[name]):
            _refuse_foreign(value, hints[name], f"{prefix}{name}.", file)
            continue
        for one in value if isinstance(value, list) else [value]:
            if not (one is None or isinstance(one, str | int | float)):
                raise _refused(file, f"{prefix}{name}: {one!r:.80}", "a plain value, or a list")
            if isinstance(one, float) and not math.isfinite(one):
                raise _refused(file, f"{prefix}{name}: {one}", "a finite number")


def _refused(file: Path, found: str, expected: str | None = None) -> MrkneeError:
    return MrkneeError("a recipe can't be read", file=file, expected=expected, found=found)
