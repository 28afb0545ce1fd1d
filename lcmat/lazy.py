"""Doors that open when they are knocked at: what a package hands on is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def handed_on(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`, by which it hands on names from modules below it.

    modules: by each name, the module that holds it. So command lines and `--help` do not wait seconds for PyTorch.
    """

    def of_name(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return of_name, lambda: sorted({*vars(importlib.import_module(package)), *modules})
