"""Plain-text tables, identical in a terminal, a file and a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

_WIDTH = 100_000  # characters; a line is never wrapped or cut


def table_lines(rows: Sequence[Sequence[str]], *, left: int | None = None) -> list[str]:
    """Formats a header, a rule and rows in aligned columns.

    Wide characters (Chinese, Japanese, Korean) count as two, as terminals display them.

    Args:
        rows: the header, then the rows; all with the same number of cells.
        left: the number of left-aligned columns, before right-aligned ones; None aligns all left.

    Returns:
        The lines, without trailing spaces.
    """
    from rich.cells import cell_len  # imported here because rich is slow to import
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(justify="left" if left is None or column < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # Text, so that brackets in names aren't parsed as markup
    console = Console(
        file=StringIO(), width=_WIDTH, color_system=None, force_terminal=False, force_jupyter=False
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return [lines[0], "-" * max(map(cell_len, lines)), *lines[1:]]
