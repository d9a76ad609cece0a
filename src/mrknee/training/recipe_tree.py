"""A recipe's YAML as a plain tree of settings, before anything is made of it.

What builds the settings (jsonargparse) imports whatever module a `class_path` names and reads
whatever file stands where settings should; a recipe sent by somebody else could run code so. Here
it is held to what a recipe is: the settings there are, each once, with plain values.

Plain values are read by the core schema of YAML 1.2, not by YAML 1.1, in which `1:30` is 90, `010`
is 8, `1_000` is 1000, `no` is false and `1e-4` is text.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from mrknee.errors import MrkneeError, SettingsError
from mrknee.suggestions import SETTINGS, meant
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
    text = read_text(file, "recipe", at_most=_MAX_BYTES, kind=SettingsError)
    try:
        tree = yaml.load(text, Loader=_Plain)  # noqa: S506  # a SafeLoader that refuses more
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(file, str(error)) from None
    if tree is None or tree == {}:
        raise SettingsError(
            "a recipe is empty",
            code="recipe",
            file=file,
            expected="at least one setting, such as epochs: 30",
            found="no setting",
            advice="write a setting into it, or leave --recipe out for the default recipe",
        )
    _refuse_foreign(tree, kind, "", file, list(setting_hints(kind)))
    assert isinstance(tree, dict)  # noqa: S101  # for the type checker
    return tree


def setting_hints(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of all settings of a dataclass, those of its parts after the part."""
    hints: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        hints[f"{prefix}{name}"] = hint
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            hints |= setting_hints(hint, f"{prefix}{name}.")
    return hints


def wrong_kind(value: object, hint: Any) -> str | None:  # noqa: ANN401  # a type or a union
    """What a setting of that type has to be, where the value isn't; None where it is.

    Text is not taken for a number that it might be meant as, nor a number for text.
    """
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else "one of " + ", ".join(get_args(hint))
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    for kind, right, words in (
        (bool, (bool,), "true or false"),
        (int, (int,), "a whole number"),
        (float, (int, float), "a finite number"),
    ):
        if kind in kinds:
            fits = type(value) in right and (kind is not float or _is_finite(value))
            return None if fits else words + (" or null" if NoneType in kinds else "")
    if str in kinds:
        several = any(get_origin(kind) is list for kind in kinds)
        texts = value if several and isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in texts):
            return (
                "text, or a list of it" if several else "text, in quotes where it looks otherwise"
            )
    return None


def _is_finite(value: Any) -> bool:  # noqa: ANN401  # a number
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def parse_value(text: str) -> Any:  # noqa: ANN401  # whatever a setting may hold
    """One value as it stands in a recipe or on the command line, by YAML 1.2's core schema.

    Raises:
        yaml.YAMLError: it isn't YAML, or has what recipes don't take.
    """
    try:
        return yaml.load(text, Loader=_Plain)  # noqa: S506  # a SafeLoader that refuses more
    except ValueError as error:  # such as a number of more digits than Python converts
        raise yaml.YAMLError(str(error)) from None


def dump(tree: dict[str, Any]) -> str:
    """Plain values as YAML that `read_tree` reads back: text that looks like a number is quoted."""
    return str(yaml.dump(tree, Dumper=_PlainDumper, sort_keys=False))


_CORE = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Kind -> what is of it, and the characters it begins with (NUL: nothing at all).

https://yaml.org/spec/1.2.2/#103-core-schema
"""


class _Plain(yaml.SafeLoader):
    """YAML 1.2 without what recipes don't need: aliases, tags, merged and repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's form; none of 1.1's
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

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """A whole number: 010 is ten."""
        text = str(node.value)
        base = {"0o": 8, "0x": 16}.get(text[:2])
        return int(text) if base is None else int(text[2:], base)

    def construct_real(self, node: yaml.ScalarNode) -> float:
        """A number with a fraction or an exponent, or not finite."""
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _PlainDumper(yaml.SafeDumper):
    """Writes what `_Plain` reads."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's form


for _kind, (_text, _first) in _CORE.items():
    for _form in (_Plain, _PlainDumper):
        _form.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}",
            re.compile(f"(?:{_text})$"),
            ["" if one == "\0" else one for one in _first],
        )
_Plain.add_constructor("tag:yaml.org,2002:int", _Plain.construct_whole)
_Plain.add_constructor("tag:yaml.org,2002:float", _Plain.construct_real)


def _refuse_foreign(
    tree: object, kind: type, prefix: str, file: Path, known: Sequence[str]
) -> None:
    if not isinstance(tree, dict):
        raise _refused(file, f"{tree!r:.80}", f"settings below {prefix or 'the file'}")
    hints = get_type_hints(kind)
    for name, value in tree.items():
        if name not in hints:
            near = meant(f"{prefix}{name}", known, SETTINGS)
            raise _refused(
                file,
                f"{prefix}{name}",
                "one of " + ", ".join(hints),
                None if near is None else f"did you mean {near}?",
            )
        if dataclasses.is_dataclass(hints[name]):
            _refuse_foreign(value, hints[name], f"{prefix}{name}.", file, known)
            continue
        for one in value if isinstance(value, list) else [value]:
            if not (one is None or isinstance(one, str | int | float)):
                raise _refused(file, f"{prefix}{name}: {one!r:.80}", "a plain value, or a list")
        expected = wrong_kind(value, hints[name])
        if expected is not None:
            raise _refused(file, f"{prefix}{name}: {value!r:.80}", expected)


def _refused(
    file: Path, found: str, expected: str | None = None, advice: str | None = None
) -> MrkneeError:
    return SettingsError(
        "a recipe can't be read",
        code="recipe",
        file=file,
        expected=expected,
        found=found,
        advice=advice,
    )
