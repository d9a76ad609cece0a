"""The pictures of the report: a page's first screens, in a phone's and a desk's width.

    python benchmarks/screenshots.py report.html [--out docs/images] [--name report]

Needs Playwright and a Chromium (`apt install chromium`). Looks at the page as a person with that
width does; also with the colours of night, and as print, where `--all` asks for it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SIZES = {390: 844, 1280: 900}
"""Width -> height of a screen, in CSS pixels: a phone and a laptop."""

SCREENS = {390: 3.0, 1280: 2.0}
"""Width -> how many screens of the page a picture shows."""


def picture(page: Page, source: Path, target: Path, width: int, *, whole: bool = False) -> None:
    """Takes a picture of a page.

    Args:
        page: a browser's page.
        source: the HTML file.
        target: the PNG to write.
        width: of the window, one of `SIZES`.
        whole: the whole page instead of its first screens.
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
    """Reads the command line and takes the pictures."""
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
