"""Tests; `check` holds every annotation of the package, shapes too, while they run."""

import os
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType
from typing import Any

import jaxtyping
import jaxtyping._import_hook
from beartype import BeartypeConf, beartype

# one thread a process: pytest runs one process a core, and more would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

# an int is as good as a float (PEP 484's numeric tower)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

PACKAGE = str(Path(__file__).parents[1] / "src" / "mrknee")
checked_cache = jaxtyping._import_hook._optimized_cache_from_source


def cache_path(checker: str, path: str, debug_override: bool | None = None) -> str:
    """Where a module's bytecode is kept: under a name of jaxtyping's own for this package only.

    While a module of the package is imported, jaxtyping gives that name to the libraries it
    imports too, for which there is no such bytecode: compiling torch, scipy and scikit-learn anew
    took 40 s per process.
    """
    if path.startswith(PACKAGE):
        return str(checked_cache(checker, path, debug_override))  # type: ignore[no-untyped-call]
    return cache_from_source(path, debug_override)


jaxtyping._import_hook._optimized_cache_from_source = cache_path

decorate = jaxtyping.jaxtyped
checked: set[CodeType] = set()


def jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """Jaxtyping's decorator, but a function within a function is checked the first time it is made.

    It is decorated each time that the outer function runs, which took half of the time of training
    a small network.
    """

    def once(made: Callable[..., Any]) -> Callable[..., Any]:
        code = getattr(made, "__code__", None)  # a class has none
        if code is not None and "<locals>" in made.__qualname__:
            if code in checked:
                return made
            checked.add(code)
        return decorate(made, typechecker=typechecker)

    return once


jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]
