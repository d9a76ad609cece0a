"""Base class of all settings: immutable pydantic models with limits and descriptions.

A value of the wrong type or out of range, or an unknown name, raises one `SettingsError`, whether
the settings come from Python, a recipe file or the command line. Values are not converted: text is
not accepted as a number, a number not as text, and 1 not as true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

from mrknee.errors import ModelError, SettingsError
from mrknee.suggestions import SETTINGS, meant

SomeSettings = TypeVar("SomeSettings", bound="Settings")


class Settings(BaseModel):
    """A group of settings: a recipe, or one section of a recipe.

    Attributes:
        section: the name of the section in a recipe; empty for the recipe itself.
        keys_listed_in: advice where all settings are listed.

    Raises:
        SettingsError: a setting is unknown, has the wrong type or is out of range, or settings
            contradict each other.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    section: ClassVar[str] = ""
    keys_listed_in: ClassVar[str] = "`mrknee train --help` lists all settings"

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_our_words(cls, given: Any, handler: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # pydantic's
        try:
            return handler(given)
        except ValidationError as error:
            raise _refusal(cls, error) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values, each section as a nested dictionary."""
        return self.model_dump()

    def replace(self: SomeSettings, **changes: Any) -> SomeSettings:  # noqa: ANN401  # any setting's
        """Returns a copy with some settings changed; the new values are validated."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**kept, **changes})


def described(kind: type[Settings]) -> dict[str, dict[str, Any]]:
    """Returns the schemas of all settings, including those of sections.

    Returns:
        Dotted name -> JSON schema of the setting: type, limits, default and description.
    """
    schema = kind.model_json_schema()
    return _flat_schema(schema, schema.get("$defs", {}), f"{kind.section}." if kind.section else "")


def allowed(schema: Mapping[str, Any]) -> str:
    """Describes the allowed values of a setting in words.

    Args:
        schema: the JSON schema of the setting.
    """
    if "anyOf" in schema:
        return " or ".join(map(allowed, schema["anyOf"]))
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    kind: str = schema["type"]
    if kind in ("integer", "number"):
        return _range(schema, whole=kind == "integer")
    if kind == "array":
        items = schema["items"]
        return "some of " + ", ".join(items["enum"]) if "enum" in items else "a list of text"
    words = {"boolean": "true or false", "string": "text"}
    return words.get(kind, kind)


def stated_settings(
    kind: type[SomeSettings], content: Mapping[str, Any], file: Path | None = None
) -> SomeSettings:
    """Creates settings from a model's file, in which every setting must be stated.

    Args:
        kind: the class of the settings.
        content: setting -> value, as returned by `to_dict`.
        file: the file that was read, for error messages.

    Raises:
        ModelError: a setting is missing, unknown or invalid.
    """
    expected, found = ", ".join(kind.model_fields), ", ".join(map(str, content)) or "nothing"
    if content.keys() == set(kind.model_fields):
        try:
            return kind(**content)
        except SettingsError as fault:
            expected, found = f"{fault.what}: {fault.expected}", fault.found or ""
    raise ModelError(
        f"the {kind.section} settings of a model can't be read",
        code="description",
        file=file,
        expected=expected,
        found=found,
        advice="copy the model again, or make it again",
    )


def cannot_be_used(
    name: str,
    *,
    expected: str | None,
    found: str | None,
    why: str = "",
    advice: str | None = None,
) -> SettingsError:
    """Returns the error for an invalid value of a setting.

    Args:
        name: the dotted name of the setting.
        expected: the allowed values, in words.
        found: the value, in words.
        why: the reason, if it isn't obvious from the rest.
        advice: what to do.
    """
    return SettingsError(
        f"the setting {name} can't be used" + (f": {why}" if why else ""),
        code="setting",
        expected=expected,
        found=found,
        advice=advice,
    )


def unknown_setting(name: str, kind: type[Settings]) -> SettingsError:
    """Returns the error for an unknown setting; it suggests the most similar known one."""
    known = list(described(kind))
    near = meant(name, known, SETTINGS)
    return SettingsError(
        f"there is no setting {name}",
        code="unknown-setting",
        expected="one of " + ", ".join(known),
        found=name,
        advice=kind.keys_listed_in if near is None else f"did you mean {near}?",
    )


def _refusal(kind: type[Settings], error: ValidationError) -> SettingsError:
    """Converts the first of pydantic's validation errors to a `SettingsError`."""
    fault = error.errors(include_url=False)[0]
    own = (str(fault["loc"][0]) or "''") if fault["loc"] else ""
    name = ".".join(filter(None, (kind.section, own)))
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        return unknown_setting(name, kind)
    if own:
        expected = allowed(kind.model_json_schema()["properties"][own])
    else:
        expected = f"settings of its own, such as {next(iter(described(kind)))}"
    looks_otherwise = "text" in expected and isinstance(fault["input"], int | float)
    return cannot_be_used(
        name or "recipe",
        expected=expected,
        found=_shown(fault["input"]),
        advice="put it in quotes, if it is meant as text" if looks_otherwise else None,
    )


def _flat_schema(
    schema: Mapping[str, Any], parts: Mapping[str, Any], prefix: str
) -> dict[str, dict[str, Any]]:
    flat: dict[str, dict[str, Any]] = {}
    for name, one in schema["properties"].items():
        if "$ref" in one:
            part = parts[one["$ref"].rpartition("/")[2]]
            flat |= _flat_schema(part, parts, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = one
    return flat


def _range(schema: Mapping[str, Any], *, whole: bool) -> str:
    limits = (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "to below"),
    )
    words = ["a whole number" if whole else "a number"]
    for limit, word in limits:
        if limit in schema:
            words.append(f"{word} {schema[limit]:,}" if whole else f"{word} {schema[limit]:g}")
    return " ".join(words)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python doesn't print integers of more than some thousand digits
        return "a number of thousands of digits"
