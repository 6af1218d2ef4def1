"""The official SDKs of providers, each imported when a test first uses it."""

from __future__ import annotations

from typing import Any

import pytest


class Sdk:
    """An SDK by the name of its module. Its import takes seconds, which each test process would spend at its start."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks each global of a test module for such names when it collects
            raise AttributeError(name)
        return getattr(pytest.importorskip(self._module), name)
