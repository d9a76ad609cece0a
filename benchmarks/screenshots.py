"""Screenshots of a report: the top of the page at phone and desktop width.

    python benchmarks/screenshots.py report.html [--out docs/images] [--name report]

With `--all`, the complete page is also captured, in light and dark colours and as printed. Requires
Playwright and Chromium (`apt install chromium`).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SIZES = {390: 844, 1280: 900}
"""Width -> height of the screen, in CSS pixels: a phone and a laptop."""

SCREENS = {390: 3.0, 1280: 2.0}
"""Width -> maximum height of a screenshot, as a multiple of the screen's height."""


def picture(page: Page, source: Path, target: Path, width: int, *, whole: bool = False) -> None:
    """Takes a screenshot of an HTML file.

    Args:
        page: the page of a browser.
        source: the HTML file.
        target: the PNG to write.
        width: width of the window, one of `SIZES`.
        whole: capture the complete page instead of its top.
    """
    page.set_viewport_size({"width": width, "height": SIZES[width]})
    page.goto(source.resolve().as_uri())
    if whole:
        page.screenshot(path=target, full_page=True)
        return
    tall = page.evaluate("document.documentElement.scrollHeight")
    shown = min(int(SIZES[width] * SCREENS[width]), tall)
    clip = {"x": 0.0, "y": 0.0, "width": float(width), "height": float(shown)}
    page.screenshot(path=target, full_page=True, clip=clip)  # type: ignore[arg-type]


def main() -> None:
    """Reads the command line and takes the screenshots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--name", default="report")
    parser.add_argument("--all", action="store_true", help="the whole page, night and print too")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        for width in SIZES:
            picture(page, given.report, given.out / f"{given.name}_{width}.png", width)
            if given.all:
                whole = given.out / f"{given.name}_{width}_whole.png"
                picture(page, given.report, whole, width, whole=True)
        if given.all:
            page.pdf(path=given.out / f"{given.name}.pdf", format="A4")
            page.emulate_media(color_scheme="dark")
            for width in SIZES:
                night = given.out / f"{given.name}_{width}_night.png"
                picture(page, given.report, night, width, whole=True)
        browser.close()


if __name__ == "__main__":
    main()
