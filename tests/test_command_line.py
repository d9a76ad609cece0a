from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from mrknee.command_line import parser_of
from mrknee.errors import SettingsError
from mrknee.verbs import VERBS


def look(
    data: Annotated[Path, "a folder"],
    models: Annotated[tuple[Path, ...], "models"],
    *,
    out: Annotated[str, "a name"],
    size: Annotated[int | None, "pixels"] = None,
    share: Annotated[float, "a share"] = 0.5,
    deep: Annotated[bool, "look twice"] = False,
    kind: Annotated[Literal["a", "b"], "which"] = "a",
    only: Annotated[list[str] | None, "names"] = None,
    rare: Annotated[dict[str, float] | None, "shares"] = None,
    **others: object,
) -> None:
    """Looks at a folder."""


def given(*words: str) -> dict[str, Any]:
    """What the command line of `look` says."""
    return vars(parser_of("look", look).parse_args(words))


def test_a_signature_is_a_command_line() -> None:
    """Positional parameters are arguments, keyword-only ones options; `**others` is left out."""
    assert given("D", "a,b", "--out", "x") == {
        "data": Path("D"),
        "models": (Path("a"), Path("b")),
        "out": "x",
        "size": None,
        "share": 0.5,
        "deep": False,
        "kind": "a",
        "only": None,
        "rare": None,
    }
    words = "D m --out=x --size 3 --share 1e-1 --deep --kind b --only p q --only r --rare acl=0.1"
    said = given(*words.split())
    assert (said["size"], said["share"], said["deep"], said["kind"]) == (3, 0.1, True, "b")
    assert said["only"] == ["p", "q", "r"]
    assert said["rare"] == {"acl": 0.1}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("D m", "the following arguments are required: --out"),
        ("D m --out x --size 3.5", "argument --size: invalid int value: '3.5'"),
        ("D m --out x --kind c", "argument --kind: invalid choice: 'c'"),
        ("D m --out x --rare acl=2", "expected NAME=SHARE,..."),
    ],
)
def test_words_that_are_no_arguments_end_with_status_2(
    words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines: what is wrong, and where to read more."""
    with pytest.raises(SystemExit) as ended:
        given(*words.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 2


def test_a_path_with_a_comma_is_itself_where_it_is_there(tmp_path: Path) -> None:
    """Otherwise commas part the members of an ensemble."""
    (tmp_path / "a,b").mkdir()
    assert given("D", f"{tmp_path}/a,b", "--out", "x")["models"] == (tmp_path / "a,b",)
    with pytest.raises(SettingsError, match="a path can't be used"):
        given("D\0", "m", "--out", "x")


def test_help_has_each_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The docstring, the annotations' texts and the defaults."""
    with pytest.raises(SystemExit):
        given("--help")
    said = " ".join(capsys.readouterr().out.split())
    for text in ("Looks at a folder.", "look twice", "a share (default: 0.5)", "{a,b}"):
        assert text in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_parser(verb: str) -> None:
    """Each parameter of a verb has a type that can be parsed, and a help text."""
    parser = parser_of(verb, VERBS[verb])
    assert all(action.help for action in parser._actions)
