"""Tables as plain text, the same in a terminal, in a file and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

_WIDTH = 100_000  # characters; a line is never wrapped or cut


def table_lines(rows: Sequence[Sequence[str]], *, left: int | None = None) -> list[str]:
    """A header, a rule and rows, in aligned columns.

    Wide characters (Chinese, Japanese, Korean) count as two, as terminals show them.

    Args:
        rows: the header, then the rows; each with the same number of cells.
        left: the number of columns aligned to the left, the others to the right; None for all.

    Returns:
        Lines without trailing spaces.
    """
    from rich.cells import cell_len  # slow to import, as the others of rich
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(len(rows[0])):
        table.add_column(justify="left" if left is None or column < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: brackets in a name are no markup
    console = Console(
        file=StringIO(), width=_WIDTH, color_system=None, force_terminal=False, force_jupyter=False
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return [lines[0], "-" * max(map(cell_len, lines)), *lines[1:]]
