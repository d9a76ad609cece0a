"""Screenshots of an explanation page at phone and desktop width, from the run of a demo.

    mrknee demo --out demo
    python benchmarks/explanation_pictures.py demo [--exam 0746] [--out docs/images]

Writes explanation_page_390.png and explanation_page_1280.png. Without --exam, the exam with the
highest probability of a torn ACL is shown: the best case, not a typical one. Requires Playwright
and Chromium (`apt install chromium`).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from screenshots import SIZES, picture

from mrknee.metrics.predictions import Predictions
from mrknee.reports.exam_page import explain_exam


def surest(predictions: Path) -> str:
    """Returns the id of the exam with the highest probability of a torn ACL."""
    table = Predictions.read(predictions)
    column = table.findings.index("acl")
    return table.ids[int(table.probabilities[:, column].argmax())]


def main() -> None:
    """Reads the command line, explains the exam and takes the screenshots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--exam")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    exam = given.exam or surest(given.demo / "predictions.csv")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        started = time.perf_counter()
        explain_exam(given.demo / "run", given.demo / "data", exam, Path(folder))
        source = Path(folder) / "index.html"
        size = source.stat().st_size / 1e6
        print(f"exam {exam}: {time.perf_counter() - started:.1f} s, page of {size:.1f} MB")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        for width in SIZES:
            picture(page, source, given.out / f"explanation_page_{width}.png", width)
        browser.close()


if __name__ == "__main__":
    main()
