"""Base class of all settings: immutable pydantic models with limits and descriptions.

A value of the wrong type or out of range, or an unknown name, raises one `SettingsError`, whether
the settings come from Python, a recipe file or the command line. Values are not converted: text is
not accepted as a number, a number not as text, and 1 not as true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

from mrknee.errors import ModelError, SettingsError
from mrknee.suggestions import SETTINGS, suggest

SomeSettings = TypeVar("SomeSettings", bound="Settings")


class Settings(BaseModel):
    """A group of settings: a recipe, or one section of a recipe.

    Attributes:
        section: the name of the section in a recipe; empty for the recipe itself.
        added: settings that models of earlier versions don't state; their defaults are what these
            versions did.
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
    added: ClassVar[frozenset[str]] = frozenset()
    keys_listed_in: ClassVar[str] = "`mrknee train --help` lists all settings"

    @model_validator(mode="wrap")
    @classmethod
    def _raise_settings_error(cls, given: Any, handler: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # pydantic's
        try:
            return handler(given)
        except ValidationError as error:
            raise _to_settings_error(cls, error) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values, each section as a nested dictionary."""
        return self.model_dump()

    def replace(self: SomeSettings, **changes: Any) -> SomeSettings:  # noqa: ANN401  # any setting's
        """Returns a copy with some settings changed; the new values are validated."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**kept, **changes})


@cache
def setting_schemas(kind: type[Settings]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the schemas of all settings, including those of sections.

    Returns:
        Dotted name -> JSON schema of the setting: type, limits, default and description.
    """
    schema = kind.model_json_schema()
    return _flat_schema(schema, schema.get("$defs", {}), f"{kind.section}." if kind.section else "")


def describe_allowed(schema: Mapping[str, Any]) -> str:
    """Describes the allowed values of a setting in words.

    Args:
        schema: the JSON schema of the setting.
    """
    if "anyOf" in schema:
        return " or ".join(map(describe_allowed, schema["anyOf"]))
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    kind: str = schema["type"]
    if kind in ("integer", "number"):
        return _range(schema, whole=kind == "integer")
    if kind == "array":
        items = schema["items"]
        if "enum" in items:
            return "some of " + ", ".join(items["enum"])
        return "a list of whole numbers" if items["type"] == "integer" else "a list of text"
    descriptions = {"boolean": "true or false", "string": "text", "object": "values by name"}
    return descriptions.get(kind, kind)


def settings_from_model(
    kind: type[SomeSettings], content: Mapping[str, Any], file: Path | None = None
) -> SomeSettings:
    """Creates settings from a model's file, in which every setting but `added` ones must be stated.

    Args:
        kind: the class of the settings.
        content: setting -> value, as returned by `to_dict`.
        file: the file that was read, for error messages.

    Raises:
        ModelError: a setting is missing, unknown or invalid.
    """
    expected, found = ", ".join(kind.model_fields), ", ".join(map(str, content)) or "nothing"
    if set(kind.model_fields) - kind.added <= content.keys() <= set(kind.model_fields):
        try:
            return kind(**content)
        except SettingsError as error:
            expected, found = f"{error.what}: {error.expected}", error.found or ""
    raise ModelError(
        f"the {kind.section} settings of a model can't be read",
        code="description",
        file=file,
        expected=expected,
        found=found,
        advice="copy the model again, or create it again",
    )


def invalid_setting(
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
    known = list(setting_schemas(kind))
    suggestion = suggest(name, known, SETTINGS)
    return SettingsError(
        f"there is no setting {name}",
        code="unknown-setting",
        expected="one of " + ", ".join(known),
        found=name,
        advice=kind.keys_listed_in if suggestion is None else f"did you mean {suggestion}?",
    )


def _to_settings_error(kind: type[Settings], error: ValidationError) -> SettingsError:
    """Converts the first of pydantic's validation errors to a `SettingsError`."""
    first = error.errors(include_url=False)[0]
    field = (str(first["loc"][0]) or "''") if first["loc"] else ""
    name = ".".join(filter(None, (kind.section, field)))
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return unknown_setting(name, kind)
    if field:
        expected = describe_allowed(kind.model_json_schema()["properties"][field])
    else:
        expected = f"a section of settings, such as {next(iter(setting_schemas(kind)))}"
    needs_quotes = "text" in expected and isinstance(first["input"], int | float)
    return invalid_setting(
        name or "recipe",
        expected=expected,
        found=_display(first["input"]),
        advice="to give the value as text, put it in quotes" if needs_quotes else None,
    )


def _flat_schema(
    schema: Mapping[str, Any], sections: Mapping[str, Any], prefix: str
) -> dict[str, dict[str, Any]]:
    flat: dict[str, dict[str, Any]] = {}
    for name, field in schema["properties"].items():
        if "$ref" in field:
            section = sections[field["$ref"].rpartition("/")[2]]
            flat |= _flat_schema(section, sections, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = field
    return flat


def _range(schema: Mapping[str, Any], *, whole: bool) -> str:
    limits = (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "to below"),
    )
    text = "a whole number" if whole else "a number"
    for limit, preposition in limits:
        if limit in schema:
            value = f"{schema[limit]:,}" if whole else f"{schema[limit]:g}"
            text += f" {preposition} {value}"
    return text


def _display(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python doesn't print integers of more than some thousand digits
        return "a number with thousands of digits"
