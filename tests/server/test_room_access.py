"""Accessibility, themes, sizes, loading and faults of the reading room."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.conftest import needs_chromium
from tests.server.client import Served
from tests.server.room_page import SHAPES, RoomPage, key_of

pytestmark = [pytest.mark.slow, needs_chromium]

ROW = "tr[data-index] a"
STATIC = Path(__file__).parents[2] / "src/mrknee/server/page"
VIEWS = {
    "list": ("", ROW),
    "exam": (f"exam/{key_of(1)}?finding=acl", "[data-loaded~=heat]"),
    "quiz": ("quiz", ".intro"),
    "upload": ("upload", ".drop"),
}

SMALL_TARGETS = """() => [...document.querySelectorAll(
        'button, select, summary, nav a, input[type=range]')]
    .map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.width < 24 || box.height < 24))
    .map(([html]) => html)"""
"""Controls smaller than 24 x 24 pixels (WCAG 2.5.8)."""

OVERLAPS = """() => [...document.querySelectorAll('.screen')].filter(e => e.offsetParent)
    .flatMap(screen => {
        const boxes = [...screen.querySelectorAll('.corner')].map(e => {
            const range = document.createRange();
            range.selectNodeContents(e);
            return [e.className, range.getBoundingClientRect()];
        }).filter(([, box]) => box.width);
        return boxes.flatMap(([one, a], k) => boxes.slice(k + 1)
            .filter(([, b]) => a.left < b.right && b.left < a.right
                && a.top < b.bottom && b.top < a.bottom)
            .map(([other]) => one + ' / ' + other));
    })"""
"""Pairs of texts of a viewport that overlap."""


@pytest.fixture(scope="module")
def tab(browser: Browser, reading_room: Served) -> Iterator[RoomPage]:
    """A tab of the browser."""
    tab = RoomPage(browser, reading_room)
    yield tab
    tab.close()


@pytest.fixture
def room(tab: RoomPage) -> RoomPage:
    """The tab at the size of a laptop, with an empty console."""
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    tab.console.clear()
    return tab


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_violation(room: RoomPage, view: str, theme: str) -> None:
    """WCAG 2.2 A and AA, and axe's best practices."""
    room.open("upload", ".drop")
    room.page.select_option("#theme", theme)
    room.open(*VIEWS[view])
    assert room.page.get_attribute("html", "data-theme") == theme
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": tags, "resultTypes": ["violations"]}
    found = Axe().run(room.page, options=options).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    room.page.keyboard.press("?")
    found = Axe().run(room.page, options=options).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    assert room.console == []


def test_the_live_region_says_what_is_shown(room: RoomPage) -> None:
    """Series, slice and contribution, for each slice that is chosen, and on the canvas's label."""
    room.open_exam(1, finding="acl")
    room.canvas("sagittal").focus()
    room.page.keyboard.press("Home")
    room.page.keyboard.press("ArrowDown")
    says = (
        r"^Sagittal 2 of 17, (adds \d+\.\d\d to|takes \d+\.\d\d from|adds nothing to) the ACL tear"
    )
    expect(room.page.locator("#live")).to_have_text(re.compile(says))
    assert re.match(says, room.canvas("sagittal").get_attribute("aria-label") or "")


def test_everything_by_keyboard(room: RoomPage) -> None:
    """From the top of the page to a viewport, with a visible focus all the way."""
    room.open_exam(1, finding="acl")
    room.page.focus(".skip")
    reached = []
    for _ in range(60):
        room.page.keyboard.press("Tab")
        reached.append(
            room.page.evaluate(
                """() => { const e = document.activeElement, around = e.closest('.viewport');
                const ring = around ? getComputedStyle(around).boxShadow
                    : getComputedStyle(e).outlineStyle;
                return [e.tagName, e.className, ring !== 'none']; }"""
            )
        )
        if reached[-1][0] == "TEXTAREA":
            break
    assert [entry for entry in reached if not entry[2] and entry[0] != "BODY"] == []
    tags = {entry[0] for entry in reached}
    assert {"A", "SELECT", "BUTTON", "CANVAS", "INPUT", "TEXTAREA"} <= tags


def test_single_keys_can_be_limited_to_the_viewports(room: RoomPage) -> None:
    """WCAG 2.1.4: with the setting off, a key elsewhere does nothing."""
    room.open_exam(1, finding="acl")
    room.page.keyboard.press("?")
    room.page.uncheck("dialog input[type=checkbox]")
    room.page.keyboard.press("Escape")
    room.page.focus("nav a >> nth=0")
    room.page.keyboard.press("3")
    assert "ACL tear" in room.page.inner_text(".panel.answer h2")
    room.canvas("axial").focus()
    room.page.keyboard.press("3")
    assert "Meniscal tear" in room.page.inner_text(".panel.answer h2")
    room.page.evaluate("localStorage.clear()")


def test_help_lists_the_table_of_bindings(room: RoomPage) -> None:
    """Each key and gesture of bindings.js has a row."""
    room.open("", ROW)
    room.page.keyboard.press("?")
    counts = room.page.evaluate(
        """async () => { const { KEYS, GESTURES } = await import('./page/bindings.js');
        return KEYS.length + GESTURES.length; }"""
    )
    rows = [row.inner_text().split("\t") for row in room.page.locator("dialog tbody tr").all()]
    assert len(rows) == counts
    guide = (STATIC.parents[3] / "docs/how-to/reading-room.md").read_text()
    assert [row for row in rows if "| " + " | ".join(row) + " |\n" not in guide] == []
    room.page.keyboard.press("Escape")
    assert room.page.locator("dialog").is_hidden()


def test_themes_are_kept(room: RoomPage) -> None:
    """Dark by default; light, or as the system has it, stays after a reload."""
    room.open("", ROW)
    room.page.evaluate("localStorage.clear()")
    room.page.emulate_media(color_scheme="light")
    room.open("", ROW)
    theme = "document.documentElement.dataset.theme"
    assert room.page.evaluate(theme) == "dark"
    shown = room.page.locator("html")
    room.page.select_option("#theme", "system")
    expect(shown).to_have_attribute("data-theme", "light")
    room.page.emulate_media(color_scheme="dark")
    expect(shown).to_have_attribute("data-theme", "dark")
    room.page.select_option("#theme", "light")
    room.page.reload()
    assert room.page.evaluate(theme) == "light"
    assert (
        room.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(13, 18, 22)"
    )
    room.page.evaluate("localStorage.clear()")
    room.page.emulate_media(color_scheme=None)


@pytest.mark.parametrize(("preference", "animated"), [("reduce", False), ("no-preference", True)])
def test_reduced_motion(
    room: RoomPage, preference: Literal["reduce", "no-preference"], animated: bool
) -> None:
    """Bars have no transition if the system requests reduced motion."""
    room.page.emulate_media(reduced_motion=preference)
    room.open_exam(1)
    seconds = "node => parseFloat(getComputedStyle(node).transitionDuration)"
    bars = room.page.locator(".fill").all()
    assert bars
    assert {bar.evaluate(seconds) > 0 for bar in bars} == {animated}
    room.page.emulate_media(reduced_motion=None)


@pytest.mark.parametrize(
    ("view", "widths"),
    [
        ("list", (320, 390, 1280, 2560)),
        ("quiz", (320, 390, 1280, 2560)),
        ("upload", (320, 390, 1280, 2560)),
        ("exam", (390, 320)),
        ("exam", (1280, 2560)),
    ],
)
def test_views_fit_their_width(room: RoomPage, view: str, widths: Sequence[int]) -> None:
    """Nothing is wider than the window; targets are at least 24 px; corner texts don't overlap."""
    room.page.set_viewport_size({"width": widths[0], "height": 900})
    room.open(*VIEWS[view])
    for width in widths:
        room.page.set_viewport_size({"width": width, "height": 900})
        room.settle()
        assert room.page.evaluate("document.documentElement.scrollWidth") <= width
        assert room.page.evaluate(SMALL_TARGETS) == []
        assert room.page.evaluate(OVERLAPS) == []


def test_touch(browser: Browser, reading_room: Served) -> None:
    """On a phone: one finger changes slices, two fingers zoom and move, tabs change the series."""
    room = RoomPage(
        browser,
        reading_room,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    room.open_exam(1, "stacks", at="axial.7")
    assert room.page.locator(".viewport:visible").count() == 1
    room.page.evaluate("localStorage.setItem('mrknee.heat', 'off')")
    room.open_exam(1, "stacks", at="axial.7")
    box = room.canvas("axial").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = room.page.context.new_cdp_session(room.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x + a, "y": y + b, "id": k} for k, (a, b) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (0, 0))
    for way in range(10, 70, 10):
        touch("touchMove", (0, way))
    touch("touchEnd")
    assert room.shown("axial") > 7
    before = room.square("axial")
    touch("touchStart", (-30, 0), (30, 0))
    for way in (40, 50, 60):
        touch("touchMove", (-way, 0), (way, 0))
    touch("touchEnd")
    after = room.square("axial")
    assert (after[1] - after[0]) / (before[1] - before[0]) == pytest.approx(2, abs=0.2)
    touch("touchStart", (-30, 0), (30, 0))
    for way in (10, 20, 30):
        touch("touchMove", (-30, way), (30, way))
    touch("touchEnd")
    ratio = room.page.evaluate("devicePixelRatio")
    assert room.square("axial")[2] - after[2] == pytest.approx(30 * ratio, abs=4)
    room.page.tap(".tabs button >> nth=1")
    assert room.canvas("coronal").is_visible()
    assert room.canvas("axial").is_hidden()
    room.close()


def test_nothing_is_loaded_from_elsewhere_and_the_page_is_light(
    browser: Browser, reading_room: Served
) -> None:
    """All requests go to the service; it sends less than 60 kB of files for a first visit."""
    room = RoomPage(browser, reading_room)
    sent: dict[str, int] = {}
    room.page.on(
        "requestfinished",
        lambda one: sent.update({one.url: one.sizes()["responseBodySize"]}),
    )
    room.open_exam(1, finding="acl")
    home = urlsplit(room.home)
    assert {urlsplit(url).netloc for url in room.requested if url != "about:blank"} == {home.netloc}
    names = {Path(urlsplit(url).path).name for url in room.requested if "/page/" in url}
    assert {"main.js", "room.css"} <= names
    of_page = [size for url, size in sent.items() if "/page/" in url]
    assert len(of_page) == len(names)
    assert 30_000 < sum(of_page) < 60_000
    assert room.console == []
    room.close()


def test_all_modules_that_the_page_starts_with_are_preloaded() -> None:
    """index.html lists what main.js imports, also indirectly, so that it is loaded at once."""
    wanted, found = ["main.js"], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += re.findall(r'^import .* from "\./(.*)";$', (STATIC / name).read_text(), re.M)
    listed = re.findall(
        r'rel="modulepreload" href="page/(.*)"', (STATIC / "index.html").read_text()
    )
    assert sorted(listed) == sorted(found - {"main.js"})


def test_decisive_slices_are_loaded_first_and_scrolling_needs_no_requests(
    browser: Browser, reading_room: Served
) -> None:
    """Single slices are asked for before complete stacks; afterwards everything is there."""
    room = RoomPage(browser, reading_room)
    room.open_exam(1, finding="acl")
    stacks = [urlsplit(url).path for url in room.requested if "/stacks/" in url]
    whole = [k for k, path in enumerate(stacks) if path.count("/") == 4]
    assert len(whole) == len(SHAPES)
    assert min(whole) >= len(SHAPES)
    room.requested.clear()
    room.canvas("axial").focus()
    for _ in range(SHAPES["axial"][0]):
        room.page.keyboard.press("ArrowDown")
    assert room.shown("axial") == SHAPES["axial"][0]
    assert [url for url in room.requested if "/api/" in url] == []
    room.close()


def test_a_busy_service_is_asked_again(browser: Browser, reading_room: Served) -> None:
    """503 with Retry-After: the page waits and asks again, without an error."""
    room = RoomPage(browser, reading_room)
    refused: list[str] = []

    def refuse_once(route: Any) -> None:  # noqa: ANN401
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"title": "busy"})

    room.page.route("**/explanation", refuse_once)
    room.open_exam(1, finding="acl")
    assert refused
    assert room.page.locator(".problem").count() == 0
    room.close()


def test_without_a_connection_the_page_says_so_and_tries_again(
    browser: Browser, reading_room: Served
) -> None:
    """Offline: a problem in words with a button; back online the button opens the exam."""
    room = RoomPage(browser, reading_room)
    room.open("", ROW)
    room.page.context.set_offline(True)
    room.page.locator(ROW).first.click()
    problem = room.page.locator(".problem")
    expect(problem).to_contain_text("The service does not answer")
    room.page.context.set_offline(False)
    problem.get_by_role("button").click()
    room.page.wait_for_selector("[data-loaded~=stacks]", state="attached")
    room.close()


def test_an_unknown_exam_is_a_problem_in_words(room: RoomPage) -> None:
    """The problem of the service is shown."""
    room.open("exam/knees~valid~9999", ".problem")
    assert "no exam" in room.page.inner_text(".problem")


def test_the_service_may_be_restarted_under_the_page(
    browser: Browser, onnx_file: Path, page_data: Path, tmp_path: Path
) -> None:
    """The new process knows no hashes of stacks yet; the page asks for the exam again."""
    words = ("--exams", str(page_data), "--threads", "1")
    gate = threading.Event()
    with Served(onnx_file, tmp_path / "first", *words) as service:
        room = RoomPage(browser, service)
        room.open_exam(1, finding="acl")
        room.open("", ROW)
        service.end()
    with Served(onnx_file, tmp_path / "second", *words) as service:
        port = service.port

        def redirect(route: Any) -> None:  # noqa: ANN401
            url = route.request.url.replace(room.home, f"http://127.0.0.1:{port}/")
            answer = route.fetch(url=url)
            if "/stacks/" in url and not gate.is_set():
                gate.set()
                route.fulfill(status=404, json={"title": "Not Found", "detail": "unknown stack"})
            else:
                route.fulfill(response=answer)

        room.page.route("**/api/**", redirect)
        room.page.locator(ROW).nth(1).click()
        room.page.wait_for_selector("[data-loaded~=heat]", state="attached")
        assert gate.is_set()
        assert room.page.locator(".problem").count() == 0
        room.close()
