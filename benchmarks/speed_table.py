"""Conversion of the results of speed.py to the tables of docs/results/speed.md.

python benchmarks/speed_table.py docs/results/speed.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REFERENCE = "reference"


def rounded(figure: float) -> str:
    """Formats a figure with three significant digits, without a power of ten."""
    return f"{figure:.3g}" if figure < 1000 else f"{figure:,.0f}"


def lines(row: dict[str, Any]) -> Iterator[str]:
    """Yields one line per side: median, range, ratio to the reference, share of the limit."""
    for side, figure in row["figures"].items():
        low, high = row["spread"][side]
        base = row["figures"].get(REFERENCE)
        ratio = "" if base is None else f"{base / figure:.2f}"
        floor = f"{row['floor'] / figure:.2f}" if side == row["floor_of"] else ""
        shown = f"{rounded(low)} to {rounded(high)}"
        cells = (row["name"], side, rounded(figure), shown, ratio, floor)
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints a description of the machine, the table and the notes."""
    result = json.loads(Path(sys.argv[1]).read_text())
    machine = result["environment"]
    packages = machine["packages"]
    known = ", ".join(f"{name} {packages[name]}" for name in ("torch", "numpy"))
    peaks = ", ".join(f"{kind} {peak / 1e9:.0f}" for kind, peak in result["peaks"].items())
    print(f"{machine['processor']}, {machine['cores']} cores; Python {machine['python']}, {known}.")
    print(f"Peaks in Gop/s: {peaks}; copying {result['bandwidth'] / 1e9:.1f} GB/s.\n")
    heads = ["what", "side", "seconds, median", "lowest to highest"]
    heads += ["ratio to the reference", "share of the theoretical limit"]
    print(f"| {' | '.join(heads)} |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in result["rows"]:
        print("\n".join(lines(row)))
    print()
    for row in result["rows"]:
        for name, value in row["notes"].items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"- {row['name']}, n = {row['n']}: {name} {shown}")


if __name__ == "__main__":
    main()
