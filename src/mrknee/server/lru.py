"""A cache of limited size that drops the values used least recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LeastRecentlyUsed(Generic[Value]):
    """Values by key, whose total size is limited.

    Args:
        most_bytes: maximum total size. A single larger value is not kept.
        size: returns the size of a value in bytes.
    """

    def __init__(self, most_bytes: int, size: Callable[[Value], int]) -> None:
        self._most, self._size, self._bytes = most_bytes, size, 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """Returns the value of a key, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Hashable, value: Value) -> None:
        """Stores a value, and drops others if the total size exceeds the limit."""
        self.remove(key)
        size = self._size(value)
        if size > self._most:
            return
        self._values[key] = value
        self._bytes += size
        while self._bytes > self._most:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= self._size(dropped)

    def remove(self, key: Hashable) -> None:
        """Drops the value of a key, if there is one."""
        if key in self._values:
            self._bytes -= self._size(self._values.pop(key))

    def __len__(self) -> int:
        return len(self._values)
