"""Work list, upload and quiz of the reading room."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from mrknee.exams import PLANES, write_stack
from mrknee.metrics.proportions import wilson
from tests.conftest import needs_chromium
from tests.server.client import Served
from tests.server.room_page import EXAMS, RoomPage

pytestmark = [pytest.mark.slow, needs_chromium]

ROW = "tr[data-index] a"


@pytest.fixture(scope="module")
def tab(browser: Browser, reading_room: Served) -> Iterator[RoomPage]:
    """A tab of the browser."""
    tab = RoomPage(browser, reading_room)
    yield tab
    tab.close()


@pytest.fixture
def room(tab: RoomPage) -> RoomPage:
    """The tab, with an empty console."""
    tab.console.clear()
    return tab


def listed(room: RoomPage) -> list[str]:
    """Returns the ids of the shown rows of the data set."""
    names = [link.inner_text() for link in room.page.locator(ROW).all()]
    return [name for name in names if name in EXAMS]


def expected(service: Served, **query: str) -> list[str]:
    """Returns the ids that the service lists."""
    answer = json.loads(service.ask("GET", f"/api/v1/exams?{urlencode(query)}").body)
    return [exam["id"] for exam in answer["exams"] if exam["id"] in EXAMS]


def test_the_work_list_sorts_and_keeps_its_state_in_the_address(
    room: RoomPage, reading_room: Served
) -> None:
    """By any column, in both orders; a reload and a link show the same."""
    room.open("", ROW)
    assert listed(room) == expected(reading_room)
    for clicks, order in ((1, "desc"), (2, "asc")):
        room.open("", ROW)
        for _ in range(clicks):
            room.page.click("thead button:has-text('ACL tear')")
        wanted = expected(reading_room, sort="acl", order=order)
        expect(room.page.locator(ROW).first).to_have_text(wanted[0])
        assert listed(room) == wanted
        sorted_by = room.page.locator("th[aria-sort]")
        assert sorted_by.get_attribute("aria-sort") == order + "ending"
        room.page.wait_for_url("**sort=acl**")
        room.page.reload()
        room.page.wait_for_selector(ROW)
        assert listed(room) == wanted
    assert room.console == []


def test_the_work_list_is_searched_and_filtered(room: RoomPage, reading_room: Served) -> None:
    """By id, split, and the call of a finding; nothing found is said in words."""
    room.open("", ROW)
    room.page.keyboard.press("/")
    room.page.keyboard.type("0003")
    expect(room.page.locator(ROW)).to_have_count(1)
    assert listed(room) == ["0003"]
    room.page.fill("input[type=search]", "nobody")
    expect(room.page.locator("td.none")).to_contain_text("No exam matches")
    room.page.fill("input[type=search]", "")
    room.page.select_option("select[name=split]", "train")
    expect(room.page.locator(ROW).first).to_have_text("0005")
    assert listed(room) == ["0005", "0006"]
    room.page.select_option("select[name=split]", "")
    room.page.select_option("select[name=is]", "wrong")
    wanted = expected(reading_room, finding="abnormal", **{"is": "wrong"})
    expect(room.page.locator(".summary")).to_have_text(re.compile(rf"^{len(wanted)} of "))
    expect(room.page.locator(ROW)).to_have_count(len(wanted))
    assert listed(room) == wanted
    assert room.page.locator("tr[data-index] td:nth-child(2) .truth.wrong").count() == len(wanted)
    assert room.console == []


def test_the_work_list_by_keyboard_and_back(room: RoomPage) -> None:
    """Down, down, Enter opens an exam; the back button returns to the sorted list."""
    room.open("", ROW, sort="meniscus")
    order = [link.inner_text() for link in room.page.locator(ROW).all()]
    room.page.focus(".scroller")
    room.page.keyboard.press("ArrowDown")
    room.page.keyboard.press("ArrowDown")
    room.page.keyboard.press("Enter")
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")
    assert room.page.inner_text("h1") == order[1]
    assert "Meniscal tear" in room.page.inner_text(".panel.answer h2")
    room.page.keyboard.press("n")
    expect(room.page.locator("h1")).to_have_text(order[2])
    room.page.go_back()
    expect(room.page.locator("h1")).to_have_text(order[1])
    room.page.go_back()
    room.page.wait_for_selector(ROW)
    assert [link.inner_text() for link in room.page.locator(ROW).all()] == order
    assert room.console == []


def test_the_way_back_leads_to_the_same_list(room: RoomPage) -> None:
    """From an exam, also after a reload, the list has its filters, and N follows its order."""
    room.open("", ROW, split="valid", sort="meniscus")
    order = [link.inner_text() for link in room.page.locator(ROW).all()]
    assert len(order) == 4
    room.page.click(ROW)
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")
    room.page.reload()
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")
    previous = room.page.get_by_label("Previous exam")
    expect(previous).to_have_attribute("aria-disabled", "true")
    for exam in order[1:]:
        room.page.keyboard.press("n")
        expect(room.page.locator("h1")).to_have_text(exam)
    expect(room.page.get_by_label("Next exam")).to_have_attribute("aria-disabled", "true")
    room.page.click("nav a[data-view=list]")
    room.page.wait_for_selector(ROW)
    assert [link.inner_text() for link in room.page.locator(ROW).all()] == order
    room.page.click("nav a[data-view=list]")  # in the list: all exams
    expect(room.page.locator("select[name=split]")).to_have_value("")


def test_neighbours_of_an_exam_beyond_the_first_page(
    browser: Browser, onnx_file: Path, tmp_path: Path
) -> None:
    """Previous and Next are available if the exam is opened by its address."""
    for number in range(420):
        for series in PLANES:
            stack = np.full((1, 32, 32), number % 250, np.uint8)
            write_stack(tmp_path / "many", series, f"{number:04d}", stack)
    words = ("--exams", str(tmp_path / "many"), "--threads", "1")
    with Served(onnx_file, tmp_path / "served", *words) as service:
        room = RoomPage(browser, service)
        room.open("exam/many~0299", "[data-loaded~=stacks]")
        expect(room.page.get_by_label("Previous exam")).to_have_attribute(
            "href", re.compile("0298")
        )
        room.page.keyboard.press("n")
        expect(room.page.locator("h1")).to_have_text("0300")
        room.open("exam/many~0419", "[data-loaded~=stacks]")
        expect(room.page.get_by_label("Previous exam")).to_have_attribute(
            "href", re.compile("0418")
        )
        expect(room.page.get_by_label("Next exam")).to_have_attribute("aria-disabled", "true")
        assert room.console == []
        room.close()
        service.end()


def test_parameters_that_do_not_exist_are_left_out(room: RoomPage) -> None:
    """Addresses typed by hand open what they can."""
    room.open("", ROW, order="up", **{"is": "zzz"}, sort="age")
    assert set(EXAMS) <= set(listed(room))
    room.open("exam/", ROW)
    assert set(EXAMS) <= set(listed(room))
    assert room.console == []


def test_a_link_is_followed_while_the_state_of_an_exam_is_being_kept(room: RoomPage) -> None:
    """The state that is put into the address with a delay doesn't replace a newer address."""
    room.open_exam(1, "stacks", at="axial.7")
    room.page.keyboard.press("ArrowDown")  # its slice is kept in the address 200 ms later
    room.page.evaluate(
        """() => { location.hash = '#/quiz';
        const began = performance.now(); while (performance.now() - began < 300); }"""
    )
    room.page.wait_for_selector("[data-view=quiz]", state="attached")
    room.page.wait_for_timeout(300)
    assert urlsplit(room.page.url).fragment.startswith("/quiz")


def test_ids_are_text(browser: Browser, reading_room: Served) -> None:
    """Markup in an id, in a data set's name or in a problem is shown, not run."""
    room = RoomPage(browser, reading_room)
    evil = "<img src=x onerror=alert(1)>"

    def answer(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]
        text = response.text().replace('"0001"', json.dumps(evil))
        route.fulfill(response=response, body=text)  # type: ignore[attr-defined]

    room.page.route("**/api/v1/exams*", answer)
    room.page.route("**/api/v1/exams/*", answer)
    room.open("", ROW)
    assert room.page.locator(ROW).first.inner_text() == evil
    room.page.locator(ROW).first.click()
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")
    assert room.page.inner_text("h1") == evil
    assert room.page.locator("main img").count() == 0
    assert room.console == []
    room.close()


def test_ten_thousand_rows_are_listed_without_loading_them_all(
    browser: Browser, reading_room: Served
) -> None:
    """Only the visible pages are requested; End shows the last row."""
    room = RoomPage(browser, reading_room)
    asked: list[int] = []

    def answer(route: object) -> None:
        request = route.request  # type: ignore[attr-defined]
        offset = int(re.search(r"offset=(\d+)", request.url)[1])  # type: ignore[index]
        asked.append(offset)
        row = json.loads(reading_room.ask("GET", "/api/v1/exams?limit=1").body)["exams"][0]
        rows = [
            {**row, "id": f"{k:05d}", "key": f"knees~{k:05d}"}
            for k in range(offset, min(10_000, offset + 100))
        ]
        body = {
            "total": 10_000,
            "matched": 10_000,
            "scored": 0,
            "failed": 0,
            "offset": offset,
            "exams": rows,
        }
        route.fulfill(json=body)  # type: ignore[attr-defined]

    room.page.route("**/api/v1/exams?**", answer)
    room.open("", ROW)
    assert room.page.locator("tr[data-index]").count() < 60
    assert asked == [0]
    room.page.focus(".scroller")
    room.page.keyboard.press("End")
    expect(room.page.locator(ROW).last).to_have_text("09999")
    assert room.page.evaluate("document.activeElement.textContent") == "09999"
    assert len(asked) < 5
    room.page.keyboard.press("Home")
    expect(room.page.locator(ROW).first).to_have_text("00000")
    room.close()


# upload


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one exam, and archives."""
    folder = tmp_path_factory.mktemp("upload")
    rng = np.random.default_rng(77)
    for plane in PLANES:
        stack = rng.integers(0, 256, (4, 40, 40)).astype(np.uint8)
        write_stack(folder / "one", plane, f"knee {plane}", stack)
        for name in ("1001", "1002"):
            write_stack(
                folder / "set" / "valid",
                plane,
                name,
                rng.integers(0, 256, (3, 40, 40)).astype(np.uint8),
            )
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for file in sorted((folder / "set").rglob("*.npy")):
            archive.write(file, file.relative_to(folder / "set"))
    for name in ("bad.npy", "bad.txt", *(f"bad {plane}.npy" for plane in PLANES)):
        (folder / name).write_bytes(b"<b>no stack</b>")
    (folder / "bad.zip").write_bytes(b"PK\x03\x04 no archive")
    return folder


def paths(files: Path) -> list[Path]:
    """Returns the files of the exam."""
    return [files / "one" / plane / f"knee {plane}.npy" for plane in PLANES]


def test_an_uploaded_exam_opens(room: RoomPage, files: Path) -> None:
    """Series are recognised by the files' names; the exam's view opens and is listed."""
    room.open("upload", ".drop")
    room.page.set_input_files("input[type=file]", paths(files))
    chosen = [select.input_value() for select in room.page.locator(".files select").all()]
    assert chosen == list(PLANES)
    room.page.click(".upload > .row button")
    room.page.wait_for_selector("[data-loaded~=heat]", state="attached")
    assert "upload" in room.page.url
    assert room.shown("axial") in range(1, 5)
    assert room.console == []


def test_series_are_not_guessed_from_the_order_of_files(room: RoomPage, files: Path) -> None:
    """Files of MRNet have the same name in each plane, so the reader chooses."""
    room.open("upload", ".drop")
    room.page.set_input_files("input[type=file]", [files / "bad.npy", files / "bad.npy"])
    chosen = [select.input_value() for select in room.page.locator(".files select").all()]
    assert chosen == ["", ""]
    for select in room.page.locator(".files select").all():
        select.select_option("axial")
    room.page.click(".upload > .row button")
    expect(room.page.locator(".problem")).to_contain_text("Two files are assigned")


def test_files_dropped_anywhere_are_uploaded(room: RoomPage, files: Path) -> None:
    """A drop on the work list opens the upload with the files."""
    room.open("", ROW)
    room.page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'axial.npy'));
            document.body.dispatchEvent(new DragEvent('drop',
                {dataTransfer: transfer, bubbles: true, cancelable: true})); }""",
        list(paths(files)[0].read_bytes()),
    )
    expect(room.page.locator(".files .name")).to_have_text("axial.npy")


def test_an_archive_lists_its_exams(room: RoomPage, files: Path) -> None:
    """Several exams are listed with links."""
    room.open("upload", ".drop")
    room.page.set_input_files("input[type=file]", files / "set.zip")
    room.page.click(".upload > .row button")
    expect(room.page.locator(".upload-state")).to_contain_text("Read 2 exams")
    room.page.click(".upload-state a >> nth=0")
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (["bad.npy"], ["The series of bad.npy is not chosen"]),
        (["bad axial.npy"], ["No file for coronal, sagittal"]),
        ([f"bad {plane}.npy" for plane in PLANES], ["axial"]),
        (["bad.txt"], ["The file bad.txt is neither a .npy nor a .zip file"]),
        (["bad.zip"], ["zip"]),
        (["set.zip", "bad.npy"], ["One .zip per upload"]),
    ],
)
def test_bad_uploads_are_explained(
    room: RoomPage, files: Path, chosen: list[str], words: list[str]
) -> None:
    """Each problem is said in words, and the files can be changed and sent again."""
    room.open("upload", ".drop")
    room.page.set_input_files("input[type=file]", [files / name for name in chosen])
    room.page.click(".upload > .row button")
    problem = room.page.locator(".problem, .upload-state .warning").first
    problem.wait_for()
    text = problem.inner_text()
    for word in words:
        assert word in text
    assert "Traceback" not in text
    assert room.page.locator(".problem b").count() == 0


# quiz


def test_the_quiz_compares_reader_label_and_network(room: RoomPage) -> None:
    """Nothing of the network is shown before the answer; all exams are asked once."""
    room.open("quiz", ".intro", finding="acl", split="valid")
    sent: list[str] = []
    room.page.on("request", lambda request: sent.append(request.method))
    room.page.click("text=Start")
    for number in range(1, 5):
        room.page.wait_for_selector(f"#question:has-text('Exam {number}')")
        text = room.page.inner_text("main")
        assert "probability" not in text.lower()
        assert not any(exam in text for exam in EXAMS)
        assert "null" not in text
        room.page.click(f"[data-answer='{number % 2}']")
        room.page.wait_for_selector("#result")
        result = room.page.inner_text(".result")
        present = "ACL tear present" in result.splitlines()[0]
        right = present == bool(number % 2)
        assert result.startswith("Right" if right else "Wrong")
        assert re.search(r"probability [<>]?\d\.\d\d", result)
        room.page.click(".result .primary")
    assert set(sent) == {"GET"}
    score = room.page.inner_text(".score-panel")
    assert "4 exams" in score.lower()
    row = re.search(r"Right\s+(\d) of 4: (\d+) % \((\d+)–(\d+) %\)", score)  # noqa: RUF001
    assert row is not None
    correct, share, low, high = (int(value) for value in row.groups())
    assert share == 25 * correct
    expected = wilson(correct, 4)
    assert [low, high] == pytest.approx([100 * expected.low, 100 * expected.high], abs=0.51)


def test_a_quiz_can_be_continued(room: RoomPage) -> None:
    """After leaving the view, the unanswered exam is shown again and the answers are kept."""
    room.open("quiz", ".intro", finding="acl", split="valid")
    room.page.click("text=Start")
    room.page.wait_for_selector("#question:has-text('Exam 1')")
    room.page.click("[data-answer='1']")
    room.page.click(".result .primary")
    room.page.wait_for_selector("#question:has-text('Exam 2')")
    asked = [url for url in room.requested if "/exams/" in url][-1]
    room.page.click("nav a[data-view=list]")
    room.page.wait_for_selector(ROW)
    room.page.click("nav a[data-view=quiz]")
    room.page.click("text=Continue: ACL tear, exam 2")
    room.page.wait_for_selector("#question:has-text('Exam 2')")
    assert [url for url in room.requested if "/exams/" in url][-1] == asked
    for number in (2, 3, 4):
        room.page.wait_for_selector(f"#question:has-text('Exam {number}')")
        room.page.click("[data-answer='1']")
        room.page.click(".result .primary")
    room.page.wait_for_selector(".intro")
    assert "4 exams" in room.page.inner_text(".score-panel").lower()
    assert room.page.locator("text=Continue").count() == 0
    assert room.console == []
