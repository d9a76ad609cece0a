"""Keys and gestures on the viewports of the reading room, by their effect on pixels and state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import needs_chromium
from tests.server.client import Served
from tests.server.room_page import SHAPES, RoomPage, grey_of

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
    """An exam without heat map, whose axial viewport shows slice 7."""
    tab.open_exam(1, "stacks", at="axial.7")
    tab.page.keyboard.press("t")
    return tab


@pytest.fixture(autouse=True)
def with_heat_again(room: RoomPage) -> Iterator[None]:
    """Restores the setting of the heat map, which the browser remembers."""
    yield
    room.page.evaluate("localStorage.clear()")


def test_keys_change_slices(room: RoomPage) -> None:
    """Arrow keys, page keys, Home and End; the ends of the stack are not passed."""
    last = SHAPES["axial"][0]
    steps = [("ArrowDown", 8), ("ArrowUp", 7), ("PageDown", last), ("ArrowDown", last)]
    steps += [("PageUp", 4), ("PageUp", 1), ("ArrowUp", 1), ("End", last), ("Home", 1)]
    for key, slice_ in steps:
        room.page.keyboard.press(key)
        assert room.shown("axial") == slice_, key
    red, green, blue = room.pixel("axial")
    assert red == green == blue == grey_of(0)


def test_the_wheel_changes_slices_and_keeps_small_deltas(room: RoomPage) -> None:
    """A notch is one slice; the deltas of a trackpad, also below 1 pixel, add up."""
    room.wheel("axial", 100)
    assert room.shown("axial") == 8
    room.wheel("axial", 120)
    assert room.shown("axial") == 9
    room.wheel("axial", -100)
    assert room.shown("axial") == 8
    room.wheel("axial", *[10.0] * 3)
    assert room.shown("axial") == 8
    room.wheel("axial", 10)
    assert room.shown("axial") == 9
    room.canvas("axial").evaluate(
        """canvas => { for (let i = 0; i < 81; i += 1)
            canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: 0.5, cancelable: true})) }"""
    )
    assert room.shown("axial") == 10


def test_left_drag_changes_the_window(room: RoomPage) -> None:
    """Across changes the width (contrast), up makes the image brighter."""
    before = room.pixel("axial")[0]
    room.drag("axial", 0, -40)
    assert room.pixel("axial")[0] == pytest.approx(before + 40, abs=2)
    room.page.keyboard.press(" ")
    assert room.pixel("axial")[0] == before
    room.drag("axial", -100, 0)
    dark, bright = room.pixel("axial", 0.5, 0.3)[0], room.pixel("axial")[0]
    assert bright - dark > before - 20
    assert "W 155" in room.text("axial")


@pytest.mark.parametrize("button", ["right", "ctrl-wheel"])
def test_zoom(room: RoomPage, button: str) -> None:
    """Right drag and a pinch on a trackpad enlarge the image around the pointer."""
    left, right, *_ = room.square("axial")
    if button == "right":
        room.drag("axial", 0, -100, "right")
    else:
        room.page.keyboard.down("Control")
        room.wheel("axial", -139)
        room.page.keyboard.up("Control")
    found = room.square("axial")
    factor = (found[1] - found[0]) / (right - left)
    assert factor == pytest.approx(2, abs=0.2)
    assert (found[0] + found[1]) / 2 == pytest.approx((left + right) / 2, abs=3)
    assert room.shown("axial") == 7
    assert room.page.locator("menu").count() == 0


def test_middle_drag_moves_the_image(room: RoomPage) -> None:
    """The image follows the pointer."""
    before = room.square("axial")
    room.drag("axial", 30, 50, "middle")
    after = room.square("axial")
    moved = [after[k] - before[k] for k in range(4)]
    assert moved == pytest.approx([30, 30, 50, 50], abs=1)


def test_scroll_zoom_and_pan_work_together(room: RoomPage) -> None:
    """There are no modes: after a zoom, the wheel still changes slices, and drags still pan."""
    room.drag("axial", 0, -60, "right")
    room.drag("axial", 20, 0, "middle")
    zoomed = room.square("axial")
    room.wheel("axial", 100)
    assert room.shown("axial") == 8
    assert room.square("axial") == pytest.approx(zoomed, abs=1)


def test_space_resets_window_zoom_and_position(room: RoomPage) -> None:
    """All changes of the image are undone, the slice stays."""
    before = room.square("axial"), room.pixel("axial")
    room.drag("axial", 40, 30)
    room.drag("axial", 0, -60, "right")
    room.drag("axial", 20, 10, "middle")
    room.page.keyboard.press("i")
    room.page.keyboard.press(" ")
    assert (room.square("axial"), room.pixel("axial")) == before
    assert room.shown("axial") == 7


def test_invert(room: RoomPage) -> None:
    """Grey values are inverted, and back."""
    grey = room.pixel("axial")[0]
    room.page.keyboard.press("i")
    assert room.pixel("axial")[0] == 255 - grey
    room.page.keyboard.press("i")
    assert room.pixel("axial")[0] == grey


def test_keys_zoom_pan_and_window(room: RoomPage) -> None:
    """What drags do, keys do too (WCAG 2.5.7)."""
    left, right, top, bottom = room.square("axial")
    room.page.keyboard.press("+")
    assert room.square("axial")[1] > right
    room.page.keyboard.press("-")
    assert room.square("axial") == pytest.approx((left, right, top, bottom), abs=1)
    room.page.keyboard.press("Shift+ArrowRight")
    assert room.square("axial")[0] > left + 5
    room.page.keyboard.press("Shift+ArrowLeft")
    room.page.keyboard.press("Shift+ArrowDown")
    assert room.square("axial")[2] > top + 5
    room.page.keyboard.press(" ")
    grey = room.pixel("axial")[0]
    room.page.keyboard.press("b")
    assert room.pixel("axial")[0] > grey
    room.page.keyboard.press("Shift+B")
    assert room.pixel("axial")[0] == grey
    room.page.keyboard.press("v")
    assert "W 240" in room.text("axial")


def test_cine_runs_until_it_is_stopped(room: RoomPage) -> None:
    """`c` starts it, any choice of a slice stops it."""
    room.page.keyboard.press("c")
    shown = "section[aria-label=Axial] canvas[data-shown='axial 9']"
    room.page.wait_for_selector(shown, state="attached")
    room.page.keyboard.press("Home")
    assert room.shown("axial") == 1
    room.page.wait_for_timeout(250)
    assert room.shown("axial") == 1


def test_double_click_maximises_and_restores(room: RoomPage) -> None:
    """The viewport fills the stage; the others are hidden."""
    room.canvas("coronal").dblclick()
    assert room.canvas("axial").is_hidden()
    assert room.canvas("coronal").is_visible()
    room.page.keyboard.press("ArrowRight")
    assert room.canvas("sagittal").is_visible()
    room.page.keyboard.press("m")
    assert room.canvas("axial").is_visible()


def test_left_and_right_select_viewports(room: RoomPage) -> None:
    """Keys act on the selected viewport, which has the focus."""
    for series in ("coronal", "sagittal", "axial"):
        room.page.keyboard.press("ArrowRight")
        assert room.page.evaluate("document.activeElement.dataset.shown").startswith(series)
        before = room.shown(series)
        room.page.keyboard.press("ArrowUp" if before > 1 else "ArrowDown")
        assert room.shown(series) != before


@pytest.mark.parametrize(("layout", "visible"), [("1", 1), ("2", 2), ("3", 3), ("2x2", 3)])
def test_layouts(room: RoomPage, layout: str, visible: int) -> None:
    """Each layout shows as many series as it has viewports, and the address remembers it."""
    room.page.click(f"button[data-layout='{layout}']")
    assert room.page.locator(".viewport:visible").count() == visible
    room.page.wait_for_timeout(300)
    expected = (
        "layout=" not in room.page.url if layout == "3" else f"layout={layout}" in room.page.url
    )
    assert expected, room.page.url
    room.page.reload()
    room.page.wait_for_selector("[data-loaded]", state="attached")
    assert room.page.locator(".viewport:visible").count() == visible


def test_redundant_layouts_are_omitted(room: RoomPage) -> None:
    """With three series, layout 6 would equal layout 3."""
    buttons = room.page.locator("button[data-layout]").all()
    assert [button.get_attribute("data-layout") for button in buttons] == ["1", "2", "3", "2x2"]


def test_keys_work_after_any_click(room: RoomPage) -> None:
    """Strips, buttons, boxes and sliders give the focus back to the viewport."""
    page = room.page
    for target in (
        "section[aria-label=Axial] .strip",
        "button[data-layout='3']",
        ".findings button >> nth=1",
        "input[name=outline]",
        "input[type=range]",
        ".jump",
    ):
        page.click(target)
        viewport = page.evaluate("document.activeElement.dataset.shown")
        assert viewport, target
        series = viewport.split()[0]
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        assert room.shown(series) == 2, target


def test_the_strip_jumps_to_slices(room: RoomPage) -> None:
    """A click on the strip shows the slice there; a drag passes through slices."""
    box = room.page.locator("section[aria-label=Axial] .strip").bounding_box()
    assert box is not None
    each, y = box["width"] / SHAPES["axial"][0], box["y"] + 30
    room.page.mouse.click(box["x"] + 2.5 * each, y)
    assert room.shown("axial") == 3
    room.page.mouse.move(box["x"] + 2.5 * each, y)
    room.page.mouse.down()
    room.page.mouse.move(box["x"] + 11.5 * each, y)
    room.page.mouse.up()
    assert room.shown("axial") == 12


def test_no_reference_lines_between_stacks_without_common_geometry(room: RoomPage) -> None:
    """What one viewport shows does not change when another one shows another slice."""
    script = "canvas => canvas.toDataURL()"
    before = room.canvas("sagittal").evaluate(script)
    room.canvas("axial").hover()
    for _ in range(3):
        room.page.keyboard.press("ArrowDown")
    assert room.shown("axial") == 10
    assert room.canvas("sagittal").evaluate(script) == before


def point_at(room: RoomPage, across: float, down: float) -> None:
    """Moves the pointer over the axial viewport, in pixels of the stack from its centre."""
    box = room.canvas("axial").bounding_box()
    assert box is not None
    each = min(box["width"], box["height"]) / 48
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    room.page.mouse.move(x + across * each, y + down * each)
    room.settle()


def cross(room: RoomPage, series: str) -> list[float]:
    """Returns row and column of the mark in a viewport; empty if there is none."""
    room.settle()
    text = room.canvas(series).get_attribute("data-cross")
    assert text is not None
    return [float(part) for part in text.split()]


def test_cursors_are_linked_where_positions_are_known(room: RoomPage) -> None:
    """The pointer's place is marked in series of the same frame; with Shift they show its slice.

    Axial slices are 4 mm apart, from the head down, and sagittal ones from right to left; pixels
    have 2 mm. The point is 12 mm to the left of the centre, 10 mm in front of it and 2 mm above it.
    """
    room.open_exam(2, "stacks", at="axial.7")
    coronal = room.shown("coronal")
    room.page.keyboard.down("Shift")
    point_at(room, 6, -5)
    room.page.keyboard.up("Shift")
    assert room.shown("sagittal") == 9 + 3
    assert cross(room, "sagittal") == pytest.approx([23, 19], abs=0.3)
    before = room.canvas("sagittal").evaluate("canvas => canvas.toDataURL()")
    point_at(room, 10, -5)  # two slices further, which the sagittal viewport does not show
    assert (room.shown("sagittal"), cross(room, "sagittal")) == (12, [])
    assert room.canvas("sagittal").evaluate("canvas => canvas.toDataURL()") != before
    assert (room.shown("coronal"), cross(room, "coronal")) == (coronal, [])
    room.page.mouse.move(2, 2)
    room.page.keyboard.press("l")
    assert room.shown("sagittal") == 9
    expect(room.page.locator("#live")).to_have_text("Sagittal 9 of 17")


def test_cursors_are_not_linked_where_positions_are_unknown(room: RoomPage) -> None:
    """Nothing moves, and the key says why."""
    shown = [room.shown(series) for series in SHAPES]
    room.page.keyboard.down("Shift")
    point_at(room, 6, -5)
    room.page.keyboard.up("Shift")
    room.page.keyboard.press("l")
    assert [room.shown(series) for series in SHAPES] == shown
    assert [cross(room, series) for series in SHAPES] == [[], [], []]
    text = "No other series is known to contain this point"
    expect(room.page.locator("#live")).to_have_text(text)
    assert room.page.locator("button:text-is('Link')").count() == 0


def test_link_button(room: RoomPage) -> None:
    """Without a pointer, series are linked at the centre of the active viewport."""
    room.open_exam(2, "stacks", at="axial.7")
    room.page.locator("button:text-is('Link')").dispatch_event("click")
    assert room.shown("sagittal") == 9
    expect(room.page.locator("#live")).to_have_text("Sagittal 9 of 17")


def test_the_pointer_reads_values(room: RoomPage) -> None:
    """The corner states the grey value below the pointer."""
    room.canvas("axial").hover()
    assert f"Grey {grey_of(6)}" in room.text("axial")


def test_research_use_only_is_in_every_viewport(room: RoomPage) -> None:
    """Also at the top of the page."""
    assert room.page.get_by_text("Research use only", exact=True).count() >= 4


def test_bindings_are_one_table(browser: Browser, reading_room: Served) -> None:
    """Another mouse button or key in bindings.js is all that a change of a binding takes."""
    room = RoomPage(browser, reading_room)

    def change(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]
        text = response.text()
        text = text.replace('buttons: 1, command: "window"', 'buttons: 1, command: "pan"')
        text = text.replace('command: "invert", keys: ["i"]', 'command: "invert", keys: ["j"]')
        route.fulfill(response=response, body=text)  # type: ignore[attr-defined]

    room.page.route("**/bindings.js", change)
    room.open_exam(1, "stacks", at="axial.7")
    room.page.keyboard.press("t")
    before = room.square("axial")
    room.drag("axial", 30, 0)
    assert room.square("axial")[0] == pytest.approx(before[0] + 30, abs=1)
    grey = room.pixel("axial")[0]
    room.page.keyboard.press("j")
    assert room.pixel("axial")[0] == 255 - grey
    room.page.keyboard.press("?")
    row = room.page.locator("dialog tr", has_text="Invert grey values")
    assert row.locator("kbd").inner_text() == "J"
    room.close()
