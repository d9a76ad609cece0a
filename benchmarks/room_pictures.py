"""Screenshots of the reading room at the widths of a phone, a laptop and a large screen.

    mrknee serve model.onnx --exams knees
    python benchmarks/room_pictures.py http://127.0.0.1:8000/ knees~valid~0065 acl

Writes room_390.png, room_1280.png and room_2560.png (the exam), the same with `_light` in light
colours, and room_list_1280.png (the work list). Requires Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZES = {390: 844, 1280: 800, 2560: 1300}
"""Width -> height of the window, in CSS pixels."""


def main() -> None:
    """Reads the command line and takes the screenshots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", help="of the service, with the final slash")
    parser.add_argument("exam", help="key of the exam, as in its address")
    parser.add_argument("finding")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    exam = f"{given.address}#/exam/{given.exam}?finding={given.finding}"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"))
        for theme, suffix in (("dark", ""), ("light", "_light")):
            page = browser.new_page()
            page.goto(given.address)
            page.select_option("#theme", theme)
            for width, height in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                page.goto("about:blank")
                page.goto(exam)
                page.wait_for_selector("[data-loaded~=heat]", state="attached", timeout=120_000)
                page.wait_for_timeout(400)  # bars grow
                page.screenshot(path=given.out / f"room_{width}{suffix}.png")
            page.close()
        page = browser.new_page(viewport={"width": 1280, "height": SIZES[1280]})
        page.goto(f"{given.address}#/?sort={given.finding}")
        page.wait_for_selector("tr[data-index] a")
        page.wait_for_timeout(400)
        page.screenshot(path=given.out / "room_list_1280.png")
        browser.close()


if __name__ == "__main__":
    main()
