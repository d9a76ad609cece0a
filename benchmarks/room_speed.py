"""Speed of the reading room's page in headless Chromium, with exams of MRNet's largest size.

    python benchmarks/room_speed.py model.onnx [--exams 20] [--rows 10000] [--opened 100]

Prints, with the figure to reach in brackets:

- time from the click on an exam to its first image, and to all slices of 3 x 61 x 256 x 256, for
  exams that are opened for the first time, and again;
- frames per second while scrolling with the heat map, and the arithmetic of a window change;
- time from the start of the page to the first rows of a work list of `--rows` exams;
- size of the page's files, as sent;
- memory of the page (JavaScript heap and buffers) after 10 and after `--opened` exams.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from shutil import which

from playwright.sync_api import Page, Request, sync_playwright
from serving_load import serving, write_exams

ADDRESS = "http://127.0.0.1:{}/"

SHAPE = (61, 256, 256)
"""Slices, rows and columns of the largest series of MRNet."""

FIRST_IMAGE = """key => new Promise(done => {
    const began = performance.now();
    let first = 0;
    const watch = () => {
        const shown = document.querySelector(`.screen canvas[data-shown]:not([data-shown=""])`);
        if (shown && !first) first = performance.now() - began;
        if ((document.getElementById('view').dataset.loaded ?? '').includes('stacks'))
            done([first, performance.now() - began]);
        else requestAnimationFrame(watch);
    };
    location.hash = `#/exam/${key}`;
    requestAnimationFrame(watch);
})"""

SCROLL = """() => new Promise(done => {
    const canvas = document.querySelector('.viewport.active canvas[tabindex]');
    const began = performance.now();
    let frames = 0, way = 1;
    const step = () => {
        frames += 1;
        if (frames % 50 === 0) way = -way;
        canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: 100 * way, cancelable: true }));
        if (frames < 200) requestAnimationFrame(step);
        else done(1000 * frames / (performance.now() - began));
    };
    requestAnimationFrame(step);
})"""

FIRST_ROW = """
const watch = () => {
    if (document.querySelector('tr[data-index] a')) window.firstRow = performance.now();
    else requestAnimationFrame(watch);
};
requestAnimationFrame(watch);
"""

WINDOW = """async () => {
    const { lookUpTable, paint } = await import('./page/stack.js');
    const pixels = new Uint8Array(256 * 256).map((_, k) => k % 251);
    const image = new ImageData(256, 256);
    const times = [];
    for (let level = 0; level < 100; level += 1) {
        const began = performance.now();
        paint(pixels, lookUpTable({ level, width: 200, inverted: false }), image);
        times.push(performance.now() - began);
    }
    return times;
}"""


def wait_until_scored(page: Page) -> None:
    """Waits until the background scoring is done, so that it doesn't compete with the page."""
    page.wait_for_function(
        """async () => { const p = await (await fetch('api/v1/progress')).json();
        return p.scored + p.failed === p.total; }""",
        timeout=3_600_000,
        polling=2000,
    )


def memory(page: Page) -> float:
    """Returns the size of the JavaScript heap and its buffers in MB, after garbage collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    session.detach()
    return float(used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6


def measure_exams(page: Page, address: str, count: int, opened: int) -> None:
    """Prints the times and the memory of opening exams."""
    sent: dict[str, int] = {}

    def note(request: Request) -> None:
        sent.setdefault(request.url, request.sizes()["responseBodySize"])

    page.on("requestfinished", note)
    page.goto(address)
    wait_until_scored(page)
    first, whole = [], []
    for number in range(opened):
        times = page.evaluate(FIRST_IMAGE, f"large~valid~{number % count:05d}")
        first.append(times[0])
        whole.append(times[1])
        if number == 0:
            page.wait_for_selector("[data-loaded~=heat]", state="attached", timeout=600_000)
            print(f"scrolling with heat map: {page.evaluate(SCROLL):.0f} frames/s (30)")
        page.evaluate("location.hash = '#/'")
        page.wait_for_selector("tr[data-index] a")
        if number + 1 in (10, opened):
            print(f"memory after {number + 1} exams: {memory(page):.1f} MB")
    for name, times, goal in (("first image", first, 300), ("all slices", whole, 1500)):
        for when, part in (("first time", times[:count]), ("again", times[count:])):
            if part:
                late = sum(time > goal for time in part)
                print(
                    f"{name}, {when}: median {statistics.median(part):.0f} ms, largest "
                    f"{max(part):.0f} ms ({goal}), later in {late} of {len(part)}"
                )
    window = statistics.median(page.evaluate(WINDOW))
    print(f"window change, 256 x 256 pixels: {window:.2f} ms (16)")
    size = sum(size for url, size in sent.items() if "/page/" in url)
    print(f"files of the page, as sent: {size / 1000:.0f} kB (150)")


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--exams", type=int, default=20, help="number of large exams")
    parser.add_argument("--rows", type=int, default=10_000, help="exams of the work list")
    parser.add_argument("--opened", type=int, default=100, help="exams opened for the memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=which("chromium"))
        exams = Path(folder) / "large"
        write_exams(exams, given.exams, SHAPE)
        with serving(given.model, "--exams", str(exams)) as (port, _):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            measure_exams(page, ADDRESS.format(port), given.exams, given.opened)
            page.close()
        exams = Path(folder) / "many"
        write_exams(exams, given.rows, (1, 16, 16))
        with serving(given.model, "--exams", str(exams)) as (port, _):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(FIRST_ROW)
            page.goto(ADDRESS.format(port))
            times = []
            for _ in range(10):
                page.reload()
                page.wait_for_selector("tr[data-index] a")
                times.append(page.evaluate("window.firstRow"))
            print(
                f"work list of {given.rows} exams, while they are scored: median "
                f"{statistics.median(times):.0f} ms, largest {max(times):.0f} ms (500)"
            )
        browser.close()


if __name__ == "__main__":
    main()
