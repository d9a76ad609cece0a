"""An exam that has been read, with the hashes of its stacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from mrknee.exams import Exam, Stack

Signature = tuple[tuple[str, int, int], ...]
"""Series, size and time of change (ns) of each file."""


@dataclass(frozen=True)
class ReadExam:
    """An exam and the hashes of its stacks.

    Attributes:
        exam: the exam.
        digests: series -> SHA-256 of the stack, see `stack_digest`.
        signature: sizes and times of the files that it was read from.
    """

    exam: Exam
    digests: Mapping[str, str]
    signature: Signature = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and hashes of all stacks."""
        lines = "".join(f"{name} {digest}\n" for name, digest in self.digests.items())
        return sha256(lines.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all stacks."""
        return sum(stack.nbytes for stack in self.exam.stacks.values())


def stack_digest(stack: Stack) -> str:
    """Returns the SHA-256 of a stack: of its shape as `34 256 256` and a line break, and its bytes.

    Args:
        stack: the stack.
    """
    digest = sha256(" ".join(map(str, stack.shape)).encode() + b"\n")
    digest.update(np.ascontiguousarray(stack).data)
    return digest.hexdigest()


def with_digests(exam: Exam, signature: Signature = ()) -> ReadExam:
    """Computes the hashes of an exam's stacks."""
    return ReadExam(exam, {n: stack_digest(s) for n, s in exam.stacks.items()}, signature)
