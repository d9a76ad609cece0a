"""Optional packages, imported only when needed: pandas for tables, matplotlib for plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mrknee.errors import MrkneeError, PlatformError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(
    columns: Mapping[str, Any],
    index: Sequence[str] | Sequence[int] | None = None,
    name: str = "",
) -> DataFrame:
    """Creates a pandas DataFrame.

    Args:
        columns: name -> values, one per row.
        index: labels of the rows; None numbers the rows.
        name: name of the index, such as "exam".

    Raises:
        PlatformError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise not_installed("pandas", "frame") from None
    rows = None if index is None else pd.Index(list(index), name=name)
    return pd.DataFrame(dict(columns), index=rows)


def pyplot() -> Any:  # noqa: ANN401  # a module
    """Imports matplotlib's pyplot; the backend is not changed.

    Raises:
        PlatformError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ModuleNotFoundError:
        raise not_installed("matplotlib", "plot") from None
    return plt


def not_installed(package: str, extra: str) -> MrkneeError:
    """Returns the error for a missing optional package, with the extra that installs it."""
    return PlatformError(
        f"{package} is not installed",
        code="not-installed",
        expected=f"the package {package}",
        advice=f"pip install 'mrknee[{extra}]'",
    )
