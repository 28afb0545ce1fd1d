"""Values that hold in a part of the program: set for what runs inside a `with`, and in copies of its context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Generic, TypeVar

Values = TypeVar("Values")


class Scoped(Generic[Values]):
    """A frozen dataclass whose values may be others in a part of the program. Called, it returns those that hold."""

    def __init__(self, name: str, default: Values) -> None:
        """Take the values that hold unless something else is said."""
        self._values: ContextVar[Values] = ContextVar(name, default=default)

    def __call__(self) -> Values:
        """Return the values that hold here."""
        return self._values.get()

    @contextmanager
    def changed(self, **changes: int) -> Iterator[None]:
        """Let other values hold inside, by name."""
        token = self._values.set(replace(self._values.get(), **changes))
        try:
            yield
        finally:
            self._values.reset(token)
