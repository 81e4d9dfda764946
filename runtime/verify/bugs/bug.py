"""One planted bug: its name, what goes wrong, and how it is put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while; it must have been there, in this very owner."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@dataclass(frozen=True)
class Plant:
    """Replaces `owner.name` by what `make` makes of it."""

    owner: Any
    name: str
    make: Callable[[Any], Any]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with swapped(self.owner, self.name, self.make(getattr(self.owner, self.name))):
            yield


@dataclass(frozen=True)
class Bug:
    name: str
    plants: tuple[Plant, ...]
    """One, or two that mask each other."""

    @property
    def is_pair(self) -> bool:
        return len(self.plants) > 1

    @contextmanager
    def planted(self, which: int | None = None) -> Iterator[None]:
        """Have the bug for a while.

        Args:
            which: only this half of a pair.
        """
        with ExitStack() as stack:
            for number, plant in enumerate(self.plants):
                if which in (None, number):
                    stack.enter_context(plant.planted())
            yield
