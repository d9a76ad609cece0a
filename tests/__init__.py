"""Tests; `check` holds every annotation of the package, shapes too, while they run."""

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
import jaxtyping._import_hook
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

# one thread a process: pytest runs one process a core, and more would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Bytecode is kept even if the environment forbids it: without it, each process compiles the
# package anew, and pytest rewrites the assertions of all test files.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

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
    """Jaxtyping's decorator, but cheaper where that loses nothing.

    - A function within a function is checked the first time it is made. It is decorated each time
      that the outer function runs, which took half of the time of training a small network.
    - A function without shapes in its annotations is checked by beartype alone. Jaxtyping checks
      parameters twice and binds them to names, so that it can report shapes.
    - The check of a function is built the first time that it is called. A process calls few of the
      functions that it imports.
    """

    def decorated(made: Any) -> Any:  # noqa: ANN401  # a class or a function
        if inspect.isclass(made):
            if hasattr(made, "__post_init__"):  # it checks the fields first
                return decorate(made, typechecker=typechecker)
            if is_dataclass(made) and "__init__" in vars(made):
                made.__init__ = decorated(made.__init__)  # type: ignore[method-assign]
            return made
        code = getattr(made, "__code__", None)
        if code is None or code.co_flags & SUSPENDED:
            return decorate(made, typechecker=typechecker)
        if "<locals>" in made.__qualname__:
            if code in checked:
                return made
            checked.add(code)
            return check_function(made, typechecker)  # its annotations name what is local here
        return check_when_called(made, typechecker)

    return decorated


SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""Flags of functions whose result isn't of the annotated type before it is used."""


def hints_without_shapes(made: FunctionType) -> dict[str, Any] | None:
    """Returns the annotations; None if one has a shape, or can't be resolved where it stands."""
    try:
        hints = get_type_hints(made, include_extras=True)
    except Exception:  # a name that is defined later, or for type checkers only
        return None
    todo = list(hints.values())
    while todo:
        hint = todo.pop()
        if isinstance(hint, type) and issubclass(hint, AbstractArray):
            return None
        todo += hint if isinstance(hint, list) else get_args(hint)
    return hints


def check_function(made: FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that is checked unless `jaxtyping_disable` is set."""
    hints = hints_without_shapes(made)
    if hints is None:
        return decorate(made, typechecker=typechecker)
    made.__annotations__ = hints
    strict = typechecker(made)

    @wraps(made)
    def function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # any function's
        return (made if jaxtyping.config.jaxtyping_disable else strict)(*args, **kwargs)

    return function


def check_when_called(made: FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that is checked unless `jaxtyping_disable` is set.

    The check is built the first time that it is needed.
    """
    strict: Callable[..., Any] | None = None

    @wraps(made)
    def function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # any function's
        nonlocal strict
        if jaxtyping.config.jaxtyping_disable:
            return made(*args, **kwargs)
        if strict is None:
            strict = check_function(made, typechecker)
        return strict(*args, **kwargs)

    return function


jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]
