"""A pytest plugin, for ``-p tests.scheduling``: which tests run first, and which tests never run beside one another."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

MEASURING = frozenset(
    f"tests/faults/{name}.py"
    for name in ("test_soak", "test_span_disk", "test_span_faults", "test_span_pressure", "test_stalled_reader")
)
"""Files of tests that keep a processor busy, or compare throughputs: all of them run in one test process, one after the other."""
STARTING_PROCESSES = ("tests/faults/", "tests/simulation/", "tests/e2e/", "tests/cli/")
"""Folders of tests that take long: a test process gets them one by one."""
FIRST = (*STARTING_PROCESSES, "tests/fuzz/", "tests/workers/")
"""Folders that run first, in this order: the short tests of the others leave no test process without work at the end."""


class TestByTest(LoadFileScheduling):  # type: ignore[misc]
    """Gives test processes single tests where tests take long, and whole files where they are short or share something."""

    __test__ = False

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        if file in MEASURING:
            return "measuring"
        if file.startswith(STARTING_PROCESSES) and not _shares(self.config.rootpath / file):
            return nodeid
        return file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TestByTest:
    return TestByTest(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take long first, and of these the ones that measure."""
    items.sort(key=lambda item: _order(_file(item.nodeid)))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import a share of all test modules before the rest, if all tests run.

    In a new clone, pytest rewrites the assertions of each module at its first import and stores the result, which takes
    6 seconds of CPU for all. The test processes begin at different modules, so that each finds what the others have stored.
    """
    share = getattr(session.config, "workerinput", None)
    if share is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    number, count = int(share["workerid"].removeprefix("gw")), share["workercount"]
    root = session.config.rootpath
    modules = sorted((root / "tests").rglob("test_*.py"), key=lambda path: (path.stat().st_size, path))
    for module in modules[number % count :: count]:
        with suppress(Exception, pytest.skip.Exception):  # the collection reports it
            import_module(".".join(module.relative_to(root).with_suffix("").parts))


def _order(file: str) -> int:
    if file in MEASURING:
        return 0
    return next((rank for rank, folder in enumerate(FIRST, 1) if file.startswith(folder)), len(FIRST) + 1)


def _shares(file: Path) -> bool:
    """Return whether the tests of a file share a fixture."""
    return 'scope="module"' in file.read_text()


def _file(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]
