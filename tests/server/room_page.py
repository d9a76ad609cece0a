"""The reading room's page in a browser, and a data set for its tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from mrknee.exams import MRNET_FINDINGS, Dataset, Plane, write_labels, write_stack
from mrknee.exams.lesions import mask_file
from mrknee.sources.clinical.geometry import SHOWN
from tests.server.client import Served

expect.set_options(timeout=30_000)  # as other waits of Playwright; the default is 5 s

SHAPES = {"axial": (14, 48, 48), "coronal": (11, 48, 40), "sagittal": (17, 48, 48)}
EXAMS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Exams of the data set: the first four in valid, the others in train."""


def grey_of(index: int) -> int:
    """Returns the grey value of the square in the centre of a slice."""
    return 60 + 10 * index


def write_page_data(root: Path) -> Path:
    """Writes a data set whose slices can be told apart: a square in their centre, of another grey.

    Labels are those of `k // 2**finding % 2`; exam 0001 has a mask of an ACL tear in slice 3 of all
    series. An import's record states the positions of two series of exam 0002.
    """
    for number, exam_id in enumerate(EXAMS):
        split = root / ("valid" if number < 4 else "train")
        rng = np.random.default_rng(number)
        for series, (slices, rows, cols) in SHAPES.items():
            stack = rng.integers(0, 40, (slices, rows, cols)).astype(np.uint8)
            for index in range(slices):
                stack[index, rows // 2 - 6 : rows // 2 + 6, cols // 2 - 6 : cols // 2 + 6] = (
                    grey_of(index)
                )
            write_stack(split, series, exam_id, stack)
    for position, finding in enumerate(MRNET_FINDINGS):
        for part, ids in (("valid", EXAMS[:4]), ("train", EXAMS[4:])):
            labels = {one: float((k >> position) % 2) for k, one in enumerate(ids)}
            write_labels(root, part, finding, labels)
    valid = Dataset.of_split(root, "valid")
    for series, shape in SHAPES.items():
        mask = np.zeros(shape, np.uint8)
        mask[3, 10:20, 5:9] = 1
        path = mask_file(valid, "acl", series, "0001")
        write_stack(path.parents[1], series, "0001", mask)
    planes = {
        name: {
            "slices": SHAPES[name][0],
            "size": 48,
            "pixel_mm": 2.0,
            "spacing_mm": 4.0,
            "frame": 1,
            "centre_mm": [0.0, 0.0, 0.0],
            "axes": SHOWN[Plane(name)].tolist(),
        }
        for name in ("axial", "sagittal")
    }
    record = {"exams": {"0002": {"planes": planes, "mirrored": False, "split": "valid"}}}
    (root / "import.json").write_text(json.dumps(record))
    return root


class RoomPage:
    """The page in a tab of a browser.

    Args:
        browser: the browser.
        service: the service.
        options: of the tab, as of `Browser.new_page`.

    Attributes:
        page: the tab.
        console: errors and warnings of the console, and uncaught errors.
        requested: addresses that were requested.
    """

    def __init__(self, browser: Browser, service: Served, **options: Any) -> None:  # noqa: ANN401
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self.page: Page = browser.new_page(**options)
        self.home = f"http://127.0.0.1:{service.port}/"
        self.console: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def _note(self, message: ConsoleMessage) -> None:
        if "willReadFrequently" not in message.text:  # about `pixel` and `square` below
            self.console.append(message.text)

    def open(self, place: str = "", wait: str = "", **query: str) -> None:
        """Opens a place of the page anew.

        Args:
            place: the part of the address after `#/`.
            wait: selector of an element to wait for.
            query: parameters of the place.
        """
        self.page.goto("about:blank")
        parameters = f"?{urlencode(query)}" if query else ""
        self.page.goto(f"{self.home}#/{place}{parameters}")
        if wait:
            self.page.wait_for_selector(wait, state="attached")

    def open_exam(self, number: int = 1, loaded: str = "heat", **query: str) -> None:
        """Opens an exam of the data set and waits until it is loaded.

        Args:
            number: of the exam in `EXAMS`, counted from 1.
            loaded: `stacks` or `heat` (heat maps too).
            query: parameters of the place, such as the finding.
        """
        self.open(f"exam/{key_of(number)}", f"[data-loaded~={loaded}]", **query)

    def canvas(self, series: str) -> Locator:
        """Returns the canvas of a series' viewport."""
        return self.page.locator(f"section[aria-label={series.capitalize()}] .screen canvas")

    def shown(self, series: str) -> int:
        """Returns the number of the slice that was drawn last in a viewport, counted from 1."""
        self.settle()
        text = self.canvas(series).get_attribute("data-shown")
        assert text is not None
        name, _, number = text.rpartition(" ")
        assert name == series, text
        return int(number)

    def text(self, series: str) -> str:
        """Returns the texts in a viewport, after what was asked for has been drawn."""
        self.settle()
        return self.page.inner_text(f"section[aria-label={series.capitalize()}]")

    def settle(self) -> None:
        """Waits until what was asked for has been drawn."""
        self.page.evaluate("() => new Promise(f => requestAnimationFrame(() => setTimeout(f)))")

    def pixel(self, series: str, across: float = 0.5, down: float = 0.5) -> tuple[int, int, int]:
        """Returns the colour at a position of a viewport, in shares of its size."""
        self.settle()
        script = """(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(
            Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data]"""
        red, green, blue, _ = self.canvas(series).evaluate(script, [across, down])
        return red, green, blue

    def square(self, series: str) -> tuple[int, int, int, int]:
        """Returns left, right, top and bottom of the square of a slice, in pixels of the canvas.

        These are the pixels along the middle row and column that are as grey as the square.
        """
        self.settle()
        script = """(canvas, grey) => {
            const { width, height } = canvas;
            const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
            const found = [width, -1, height, -1];
            for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1)
                if (Math.abs(pixels[4 * (y * width + x)] - grey) <= 2
                    && Math.abs(pixels[4 * (y * width + x) + 2] - grey) <= 2) {
                    found[0] = Math.min(found[0], x); found[1] = Math.max(found[1], x);
                    found[2] = Math.min(found[2], y); found[3] = Math.max(found[3], y);
                }
            return found; }"""
        grey = grey_of(self.shown(series) - 1)
        left, right, top, bottom = self.canvas(series).evaluate(script, grey)
        return left, right, top, bottom

    def drag(self, series: str, across: float, down: float, button: Any = "left") -> None:  # noqa: ANN401
        """Drags the mouse from the centre of a viewport, in CSS pixels."""
        box = self.canvas(series).bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down(button=button)
        mouse.move(x + across / 2, y + down / 2)
        mouse.move(x + across, y + down)
        mouse.up(button=button)

    def wheel(self, series: str, *deltas: float) -> None:
        """Turns the wheel over a viewport, one event per delta in pixels."""
        box = self.canvas(series).bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for delta in deltas:
            self.page.mouse.wheel(0, delta)
        self.page.wait_for_timeout(60)  # wheel events are sent with the next frame

    def close(self) -> None:
        """Closes the tab; requests that a route still handles are given up."""
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.close()


def key_of(number: int) -> str:
    """Returns the key of an exam in the data set, counted from 1."""
    return f"knees~{'valid' if number <= 4 else 'train'}~{EXAMS[number - 1]}"
