"""Readers' notes: stored, counted, exported, and kept after a kill."""

from __future__ import annotations

import csv
import io
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mrknee.cli import main
from mrknee.server.notes import COLUMNS, MIGRATIONS
from tests.export.test_onnx import FINDINGS
from tests.server.client import Answer, Served
from tests.server.room import API, get, problem

pytestmark = pytest.mark.slow

FIRST = "knees~valid~0001"


@pytest.fixture(scope="module")
def noted(
    onnx_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A service that keeps notes."""
    folder = tmp_path_factory.mktemp("noted")
    words = ("--exams", str(data), "--notes", str(folder / "notes.sqlite"))
    with Served(onnx_file, folder / "served", *words) as service:
        yield service
        assert service.end() == 0
        assert service.stderr == ""
    assert sorted(file.name for file in folder.iterdir()) == ["notes.sqlite", "served"]


def put(service: Served, key: str, finding: str, **note: Any) -> Answer:  # noqa: ANN401  # JSON
    """Stores a note."""
    path = f"{API}/exams/{quote(key)}/notes/{finding}"
    return service.ask("PUT", path, json.dumps(note).encode(), "application/json")


def test_a_note_is_stored_counted_and_removed(noted: Served) -> None:
    """GET returns what PUT stored; rows of the work list count it; an empty note removes it."""
    path = f"/exams/{FIRST}/notes/acl"
    nothing = {"agree": None, "comment": "", "slice": None, "changed": None}
    assert get(noted, path) == nothing
    note = {
        "agree": False,
        "comment": "Grade 1 only,\n„?“",
        "slice": {"series": "axial", "index": 2},
    }
    answer = put(noted, FIRST, "acl", **note)
    assert answer.status == 200
    stored = get(noted, path)
    assert answer.json == stored
    assert stored.pop("changed") is not None
    assert stored == note
    put(noted, FIRST, "abnormal", agree=True)
    rows = {row["key"]: row["note"] for row in get(noted, "/exams")["exams"]}
    assert rows.pop(FIRST) == {"agree": 1, "disagree": 1, "comments": 1}
    assert set(rows.values()) == {None}
    for finding in ("acl", "abnormal"):
        assert put(noted, FIRST, finding).json == nothing
    assert get(noted, path) == nothing
    assert get(noted, "/exams?q=0001")["exams"][0]["note"] is None
    assert get(noted, "/model")["notes"] is True


def test_the_table_starts_no_formula(noted: Served) -> None:
    """Text that a spreadsheet would execute begins with an apostrophe, and markup is kept."""
    odd = "knees~train~Knie=20=3C5=3E=20100=25"
    comments = {"abnormal": "=1+1", "acl": " @SUM(1)", "meniscus": "<script>alert(1)</script>"}
    for finding, comment in comments.items():
        assert put(noted, odd, finding, comment=comment).json["comment"] == comment
    answer = noted.ask("GET", API + "/notes.csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="notes.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert list(rows[0]) == list(COLUMNS)
    found = {row["finding"]: row["comment"] for row in rows if row["exam"] == odd}
    expected = {"abnormal": "'=1+1", "acl": "' @SUM(1)", "meniscus": comments["meniscus"]}
    assert found == expected
    assert {row["id"] for row in rows} == {"Knie <5> 100%"}


@pytest.mark.parametrize(
    ("note", "code"),
    [
        ({"comment": "x" * 2001}, "body"),
        ({"comment": "a\0b"}, "body"),
        ({"agree": "yes"}, "body"),
        ({"slice": {"series": "axial", "index": -1}}, "body"),
        ({"slice": {"series": "knee", "index": 0}}, "parameter"),
        ({"slice": {"series": "axial", "index": 500}}, "parameter"),
        ({"slice": {"series": "axial", "index": 10**30}}, "parameter"),
        ({"comments": ""}, "body"),
    ],
)
def test_invalid_notes_are_refused(noted: Served, note: dict[str, Any], code: str) -> None:
    """Nothing is stored."""
    assert problem(put(noted, FIRST, "acl", **note), 422)["code"] == code
    assert get(noted, f"/exams/{FIRST}/notes/acl")["changed"] is None


def test_unknown_exams_and_findings_have_no_notes(noted: Served, room: Served) -> None:
    """Unknown exams and findings are refused, and all notes if the service keeps none."""
    problem(put(noted, "knees~valid~9", "acl", agree=True), 404)
    problem(put(noted, FIRST, "age", agree=True), 404)
    assert "--notes" in problem(put(room, FIRST, "acl", agree=True), 404)["advice"]
    problem(room.ask("GET", API + "/notes.csv"), 404)


def test_a_kill_loses_nothing_acknowledged(onnx_file: Path, data: Path, tmp_path: Path) -> None:
    """After SIGKILL while notes are stored, all acknowledged ones are in the file."""
    file = tmp_path / "notes.sqlite"
    words = ("--exams", str(data), "--notes", str(file))
    acknowledged: dict[str, str] = {}
    enough = threading.Event()
    with Served(onnx_file, tmp_path / "first", *words) as service:

        def write() -> None:
            for number in range(100_000):
                finding = FINDINGS[number % 3]
                try:
                    answer = put(service, FIRST, finding, comment=str(number))
                except OSError:  # killed
                    return
                acknowledged[finding] = answer.json["comment"]
                if number == 20:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(60)
        service.end(signal.SIGKILL)
        writer.join()
    with Served(onnx_file, tmp_path / "second", *words) as service:
        for finding, comment in acknowledged.items():
            stored = get(service, f"/exams/{FIRST}/notes/{finding}")["comment"]
            # the last one may have been stored and not acknowledged
            assert int(stored) in (int(comment), int(comment) + 3)
        assert service.end() == 0


@pytest.mark.parametrize("kind", ["text", "database", "later", "folder"])
def test_other_files_are_refused(
    onnx_file: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that isn't one of notes, or is from a later version, is unchanged and refused."""
    file = tmp_path / "notes.sqlite"
    if kind == "text":
        file.write_text("a,b\n" * 1000)
    elif kind == "folder":
        file.mkdir()
    else:
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE photos (id INTEGER)")
            if kind == "later":
                other.execute("PRAGMA application_id = 1836215150")
                other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        other.close()
    before = None if kind == "folder" else file.read_bytes()
    assert main(["serve", str(onnx_file), "--port", "0", "--notes", str(file)]) == 1
    assert "notes" in capsys.readouterr().err
    assert before is None or file.read_bytes() == before
