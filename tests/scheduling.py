"""A pytest plugin, for ``-p tests.scheduling``: which files run first, and which never beside one another."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

HEAVY = frozenset(
    f"tests/{name}.py"
    for name in (
        "faults/test_soak",
        "faults/test_span_faults",
        "faults/test_stalled_reader",
        "simulation/test_simulation",
    )
)
"""Those that keep a processor busy: two at once would slow what the others measure."""


class OneHeavyFileAtATime(LoadFileScheduling):  # type: ignore[misc]
    """Gives whole files to test processes, all the heavy ones to the same."""

    def _split_scope(self, nodeid: str) -> str:
        return "heavy" if _file(nodeid) in HEAVY else _file(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneHeavyFileAtATime:
    return OneHeavyFileAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those begin first that take minutes: begun last, they would leave other test processes without work."""
    items.sort(key=lambda item: (_file(item.nodeid) not in HEAVY, not item.nodeid.startswith("tests/faults/")))


def _file(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]
