"""What the reading room says about why: findings, heat maps, scores, masks, what-if, notes."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import needs_chromium
from tests.server.client import Served
from tests.server.room_page import SHAPES, RoomPage, grey_of, key_of

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def tab(browser: Browser, reading_room: Served) -> Iterator[RoomPage]:
    """A tab of the browser."""
    tab = RoomPage(browser, reading_room)
    yield tab
    assert tab.console == []
    tab.close()


@pytest.fixture
def room(tab: RoomPage) -> RoomPage:
    """Exam 0001 and the finding ACL tear."""
    tab.open_exam(1, finding="acl")
    return tab


def asked(service: Served, path: str) -> Any:  # noqa: ANN401  # JSON
    """Returns the service's answer about exam 0001."""
    return json.loads(service.ask("GET", f"/api/v1/exams/{key_of(1)}/{path}").body)


def decisive(explanation: dict[str, Any], finding: str, positive: bool) -> dict[str, Any]:
    """Returns the slice that decides: the one that lowers the logit most if the call is absent."""
    found = explanation["findings"][finding]
    lowest: dict[str, Any] = found["most_lowering_slice"]
    highest: dict[str, Any] = found["most_raising_slice"]
    return lowest if not positive and lowest["score"] < 0 else highest


def in_order(explanation: dict[str, Any], finding: str, series: str) -> list[int]:
    """Returns the slices of a series, the decisive one first.

    It acts in the direction of the finding's call, or, if no slice does, most in the other one.
    """
    found = explanation["findings"][finding]
    lowest = found["most_lowering_slice"]
    sign = -1 if found["probability"] < 0.5 and lowest["score"] < 0 else 1
    scores = [sign * score for score in found["slices"][series]]
    if max(scores) <= 0:
        scores = [-score for score in scores]
    return sorted(range(len(scores)), key=lambda k: -scores[k])


def test_an_exam_opens_with_what_decides(room: RoomPage, reading_room: Served) -> None:
    """Finding, probability, call, label, decisive slice and its viewport are shown at once."""
    explanation = asked(reading_room, "explanation")
    found = explanation["findings"]["acl"]
    positive = found["probability"] >= 0.5  # the operating point of the model
    place = decisive(explanation, "acl", positive)
    text = room.page.inner_text(".panel.answer")
    assert "ACL tear" in text
    assert f"{found['probability']:.2f}" in text
    assert ("Present" if positive else "Absent") in text
    assert "Label: absent" in text
    assert f"{place['series'].capitalize()} {place['slice'] + 1}" in text
    assert room.shown(place["series"]) == place["slice"] + 1
    active = room.page.get_attribute(".viewport.active", "aria-label")
    assert active == place["series"].capitalize()
    assert "Decisive slice" in room.page.inner_text(".viewport.active")


def test_findings_are_switched_by_key_and_click(room: RoomPage, reading_room: Served) -> None:
    """Scores, decisive slices, heat map and address follow."""
    explanation = asked(reading_room, "explanation")
    for key, finding in (("3", "meniscus"), ("1", "abnormal")):
        room.page.keyboard.press(key)
        assert (
            room.page.get_attribute(f".findings button:has(kbd:text-is('{key}'))", "aria-pressed")
            == "true"
        )
        positive = explanation["findings"][finding]["probability"] >= 0.5
        place = decisive(explanation, finding, positive)
        assert room.shown(place["series"]) == place["slice"] + 1
        for series in SHAPES:
            assert room.shown(series) == in_order(explanation, finding, series)[0] + 1
        room.page.wait_for_url(f"**finding={finding}**")
    room.page.click(".findings button >> nth=1")
    assert "ACL tear" in room.page.inner_text(".panel.answer h2")


def test_the_heat_map_colours_cells_by_their_sign(room: RoomPage, reading_room: Served) -> None:
    """Orange where a cell adds to the logit, blue where it takes from it; `t` switches it off."""
    explanation = asked(reading_room, "explanation")
    frame = explanation["maps"]["axial"]
    path = f"/api/v1/exams/{key_of(1)}/heat/axial/acl"
    body = reading_room.ask("GET", path, headers={"Accept-Encoding": "identity"}).body
    heat = np.frombuffer(body, "<f4").reshape(frame["slices"], frame["rows"], frame["cols"])
    room.page.focus("section[aria-label=Axial] canvas[tabindex]")
    room.page.fill("input[type=range]", "1")
    box = room.canvas("axial").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    strongest = np.unravel_index(np.abs(heat).argmax(), heat.shape)
    shown = {}
    for cell in (
        strongest,
        np.unravel_index(heat.argmax(), heat.shape),
        np.unravel_index(heat.argmin(), heat.shape),
    ):
        index, row, col = (int(value) for value in cell)
        room.page.evaluate(
            "document.querySelector('section[aria-label=Axial] canvas[tabindex]').focus()"
        )
        room.page.keyboard.press("Home")
        for _ in range(index):
            room.page.keyboard.press("ArrowDown")
        down = (frame["top"] + (row + 0.5) * frame["height"] / frame["rows"]) / SHAPES["axial"][1]
        across = (frame["left"] + (col + 0.5) * frame["width"] / frame["cols"]) / SHAPES["axial"][2]
        if not (0.05 < down < 0.95 and 0.05 < across < 0.95):
            continue
        at = 0.5 + (across - 0.5) * side / box["width"], 0.5 + (down - 0.5) * side / box["height"]
        red, _, blue = room.pixel("axial", *at)
        shown[float(heat[cell])] = red - blue
        room.page.keyboard.press("t")
        red, _, blue = room.pixel("axial", *at)
        assert red == blue
        room.page.keyboard.press("t")
    assert shown
    for value, difference in shown.items():
        assert difference * value > 0, shown


def test_a_held_key_hides_the_heat_map(room: RoomPage) -> None:
    """While `h` is held, only the image is shown."""
    page = room.page
    page.fill("input[type=range]", "1")
    series = room.page.get_attribute(".viewport.active", "aria-label").lower()  # type: ignore[union-attr]
    script = """canvas => { const data = canvas.getContext('2d').getImageData(0, 0, canvas.width,
        canvas.height).data; let n = 0;
        for (let i = 0; i < data.length; i += 4) n += data[i] !== data[i + 2]; return n; }"""
    room.canvas(series).focus()
    room.settle()
    assert room.canvas(series).evaluate(script) > 0
    page.keyboard.down("h")
    room.settle()
    assert room.canvas(series).evaluate(script) == 0
    page.keyboard.up("h")
    room.settle()
    assert room.canvas(series).evaluate(script) > 0


def test_d_jumps_through_the_decisive_slices(room: RoomPage, reading_room: Served) -> None:
    """From the decisive slice to the next most decisive ones, and back."""
    explanation = asked(reading_room, "explanation")
    order = in_order(explanation, "acl", "coronal")
    room.canvas("coronal").focus()
    room.page.keyboard.press("Home" if order[0] != 0 else "End")
    for expected in (order[0], order[1], order[2]):
        room.page.keyboard.press("d")
        assert room.shown("coronal") == expected + 1
    room.page.keyboard.press("Shift+D")
    assert room.shown("coronal") == order[1] + 1


def test_the_waterfall_adds_up(room: RoomPage, reading_room: Served) -> None:
    """Bias and series are shown with the logit, the probability and the operating points."""
    found = asked(reading_room, "explanation")["findings"]["acl"]
    label = room.page.get_attribute("svg.waterfall", "aria-label")
    assert label is not None
    parts = [found["bias"], *found["series"].values()]
    assert sum(parts) == pytest.approx(found["logit"], abs=1e-3)
    for part in (*parts, found["logit"]):
        assert f"{abs(part):.2f}" in label
    assert "Youden at 0.50" in label
    assert room.page.locator("svg.waterfall .point").count() == 1


def test_one_colour_scale_for_the_exam(room: RoomPage, reading_room: Served) -> None:
    """The colour bar is in logits per cell and the same for all findings."""
    scale = asked(reading_room, "explanation")["cell_scale"]
    texts = []
    for key in "123":
        room.page.keyboard.press(key)
        texts.append(room.page.inner_text(".panel .scale"))
    assert len(set(texts)) == 1
    assert f"+{scale:.3f}" in texts[0]
    assert "effect of each cell on the logit" in texts[0]


def test_lesions_are_outlined_and_hits_are_said(room: RoomPage) -> None:
    """The outline of the mask is drawn in its slice; `o` hides it; the text says hit or miss."""
    room.canvas("axial").focus()
    room.page.keyboard.press("t")
    room.page.keyboard.press("Home")
    for _ in range(3):
        room.page.keyboard.press("ArrowDown")
    script = """canvas => { const data = canvas.getContext('2d').getImageData(0, 0, canvas.width,
        canvas.height).data; let n = 0;
        for (let i = 0; i < data.length; i += 4) n += data[i] > 200 && data[i + 2] < 140;
        return n; }"""
    room.settle()
    assert room.canvas("axial").evaluate(script) > 50
    room.page.keyboard.press("o")
    room.settle()
    assert room.canvas("axial").evaluate(script) == 0
    room.page.keyboard.press("o")
    room.page.keyboard.press("t")
    assert room.page.locator(".hit").inner_text().split(":")[0] in {"Hit", "Miss", "Near miss"}
    room.page.keyboard.press("3")  # meniscus: no mask
    assert room.page.locator(".hit, input[name=outline]").count() == 0


def test_what_if_leaves_out_series_and_slices(room: RoomPage, reading_room: Served) -> None:
    """The number is the service's; slices are marked in the strip; taking back restores it."""
    page = room.page
    page.check("input[name=without][value=axial]")
    page.wait_for_selector(".what-if-result .now")
    body = json.dumps({"without_series": ["axial"]}).encode()
    path = f"/api/v1/exams/{key_of(1)}/what-if"
    answer = json.loads(reading_room.ask("POST", path, body, kind="application/json").body)
    text = page.inner_text(".what-if-result")
    assert f"{answer['probabilities']['acl']:.2f}" in text
    assert f"{abs(answer['logits']['acl']):.2f}" in text
    assert "→" in page.inner_text(".findings button >> nth=1")
    now = answer["probabilities"]["acl"] >= 0.5
    assert ("present" if now else "absent") + " (threshold 0.50)" in text
    assert (
        room.page.locator(".findings button >> nth=1").evaluate(
            "button => button.classList.contains('positive')"
        )
        == now
    )
    assert "Left out" in room.text("axial")
    page.uncheck("input[name=without][value=axial]")
    assert page.locator(".what-if-result .now").count() == 0
    room.canvas("coronal").focus()
    page.keyboard.press("Home")
    page.keyboard.press("x")
    page.wait_for_selector(".what-if-result .now")
    assert page.inner_text(".chips") == "Coronal 1 ×"  # noqa: RUF001
    page.click(".chip")
    assert page.locator(".what-if-result .now").count() == 0
    assert "→" not in page.inner_text(".findings")


def test_leaving_out_everything_is_refused_in_words(room: RoomPage) -> None:
    """The panel says that something must remain."""
    for series in SHAPES:
        room.page.check(f"input[name=without][value={series}]")
    assert "At least one slice" in room.page.inner_text(".what-if-result .warning")


def test_notes_are_kept_and_exported(room: RoomPage, reading_room: Served) -> None:
    """Agreement, comment and marked slice survive a reload and are in the table."""
    page = room.page
    room.canvas("sagittal").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.check("input[name=agree][value=false]")
    page.fill("textarea", "<b>no tear</b> =1+1")
    page.click("text=Attach the shown slice")
    page.click("text=Save the note")
    page.wait_for_selector("text=Saved.")
    room.open_exam(1, finding="acl")
    page.wait_for_selector(".notes .chip:has-text('Sagittal 2')")
    assert page.input_value("textarea") == "<b>no tear</b> =1+1"
    assert page.is_checked("input[name=agree][value=false]")
    table = reading_room.ask("GET", "/api/v1/notes.csv").body.decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert any("no tear" in "".join(map(str, row.values())) for row in rows)


def test_notes_that_are_not_saved_are_kept_in_the_tab(room: RoomPage) -> None:
    """Another finding, another exam and a reload don't lose what was typed."""
    page = room.page
    page.fill("textarea", "draft about the ACL")
    page.keyboard.press("Escape")
    page.click(".findings button >> nth=2")
    assert page.input_value("textarea") == ""
    page.click(".findings button >> nth=1")
    page.wait_for_selector("text=Not saved yet.")
    assert page.input_value("textarea") == "draft about the ACL"
    page.reload()
    page.wait_for_selector("text=Not saved yet.")
    assert page.input_value("textarea") == "draft about the ACL"
    page.fill("textarea", "")
    page.click("text=Save the note")
    page.wait_for_selector("text=Saved.")
    page.fill("textarea", "x")
    page.wait_for_selector("text=Not saved yet.")
    page.fill("textarea", "")
    page.click("text=Save the note")
    page.wait_for_selector("text=Saved.")


def test_a_note_that_was_not_seen_is_not_replaced(room: RoomPage, reading_room: Served) -> None:
    """Neither one that can't be loaded, nor one that was changed elsewhere meanwhile."""
    page = room.page
    path = f"/api/v1/exams/{key_of(2)}/notes/acl"

    def put(comment: str) -> None:
        body = json.dumps({"comment": comment}).encode()
        assert reading_room.ask("PUT", path, body, kind="application/json").status == 200

    def stored() -> str:
        return str(json.loads(reading_room.ask("GET", path).body)["comment"])

    put("first")
    page.route(f"**{path}", lambda route: route.abort())
    room.open_exam(2, finding="acl")
    page.wait_for_selector(".notes .warning:has-text('does not answer')")
    assert page.is_disabled("textarea")
    page.unroute(f"**{path}")
    page.click(".notes >> text=Try again")
    expect(page.locator("textarea")).to_have_value("first")
    time.sleep(1.1)  # times of notes are in seconds
    put("second")
    page.fill("textarea", "third")
    page.click("text=Save the note")
    page.wait_for_selector(".notes .warning:has-text('changed elsewhere')")
    assert stored() == "second"
    page.click("text=Save the note")
    page.wait_for_selector("text=Saved.")
    assert stored() == "third"
    room.console.clear()  # the request that was aborted


def test_keys_typed_into_a_comment_are_text(room: RoomPage) -> None:
    """Shortcuts don't act in text fields."""
    before = room.shown("axial")
    room.page.fill("textarea", "")
    room.page.type("textarea", "h3 dxi")
    assert room.page.input_value("textarea") == "h3 dxi"
    assert room.shown("axial") == before
    assert "ACL tear" in room.page.inner_text(".panel.answer h2")


def test_grey_values_are_those_of_the_file(room: RoomPage) -> None:
    """Without heat map, a pixel's colour is its grey value."""
    room.canvas("axial").focus()
    room.page.keyboard.press("t")
    room.page.keyboard.press("Home")
    assert room.pixel("axial") == (grey_of(0),) * 3
    room.page.keyboard.press("t")
