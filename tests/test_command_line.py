from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from mrknee.command_line import create_parser
from mrknee.commands import COMMANDS
from mrknee.errors import SettingsError


def view(
    data: Annotated[Path, "a folder"],
    models: Annotated[tuple[Path, ...], "models"],
    *,
    out: Annotated[str, "a name"],
    size: Annotated[int | None, "pixels"] = None,
    share: Annotated[float, "a share"] = 0.5,
    seed: Annotated[int, "a seed"] = 0,
    deep: Annotated[bool, "view twice"] = False,
    kind: Annotated[Literal["a", "b"], "which"] = "a",
    only: Annotated[list[str] | None, "names"] = None,
    rare: Annotated[dict[str, float] | None, "shares"] = None,
    **others: object,
) -> None:
    """Views a folder."""


def parse(*words: str) -> dict[str, Any]:
    """Parses a command line of `view`."""
    return vars(create_parser("view", view).parse_args(words))


def test_parameters_become_arguments_and_options() -> None:
    """Positional parameters are arguments, keyword-only ones options; `**others` is ignored."""
    assert parse("D", "a,b", "--out", "x") == {
        "data": Path("D"),
        "models": (Path("a"), Path("b")),
        "out": "x",
        "size": None,
        "share": 0.5,
        "seed": 0,
        "deep": False,
        "kind": "a",
        "only": None,
        "rare": None,
    }
    words = "D m --out=x --size 3 --share 1e-1 --deep --kind b --only p q --only r --rare acl=0.1"
    parsed = parse(*words.split())
    assert (parsed["size"], parsed["share"], parsed["deep"], parsed["kind"]) == (3, 0.1, True, "b")
    assert parsed["only"] == ["p", "q", "r"]
    assert parsed["rare"] == {"acl": 0.1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("D m", "the following arguments are required: --out"),
        ("D m --out x --size 3.5", "argument --size: invalid int value: '3.5'"),
        ("D m --out x --kind c", "argument --kind: invalid choice: 'c'"),
        ("D m --out x --rare acl=2", "expected NAME=SHARE,..."),
    ],
)
def test_invalid_arguments_end_with_status_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines are printed: the error, and how to get help."""
    with pytest.raises(SystemExit) as ended:
        parse(*words.split())
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 2


def test_an_existing_path_with_a_comma_is_one_path(tmp_path: Path) -> None:
    """Other paths are split at commas into the members of an ensemble."""
    (tmp_path / "a,b").mkdir()
    assert parse("D", f"{tmp_path}/a,b", "--out", "x")["models"] == (tmp_path / "a,b",)
    with pytest.raises(SettingsError, match="a path can't be used"):
        parse("D\0", "m", "--out", "x")


def test_help_has_each_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Help contains the docstring, the texts of the annotations, and the defaults, also 0."""
    with pytest.raises(SystemExit):
        parse("--help")
    printed = " ".join(capsys.readouterr().out.split())
    texts = (
        "Views a folder.",
        "view twice",
        "a share (default: 0.5)",
        "a seed (default: 0)",
        "{a,b}",
    )
    for text in texts:
        assert text in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_parser(command: str) -> None:
    """Each parameter of a command has a type that can be parsed, and a help text."""
    parser = create_parser(command, COMMANDS[command])
    assert all(action.help for action in parser._actions)
