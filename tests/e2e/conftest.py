"""Fixtures of end-to-end tests: a slot of the span store, sinks on it, and a program without an engine of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connections import client_process
from headrace.settings.settings import SinkConfig
from headrace_engine.spans.sinks.runner import Sinks
from tests.e2e.sink_runs import Start
from tests.e2e.span_slots import SlotWriter


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[SlotWriter]:
    writer = SlotWriter(tmp_path / "0")
    yield writer
    writer.close()


@pytest.fixture
def start(slot: SlotWriter) -> Iterator[Start]:
    """Start sinks by name; they are closed at the test's end."""
    started: list[Sinks] = []

    def run(**configs: SinkConfig) -> Sinks:
        sinks = Sinks(slot.slot, configs)
        sinks.start()
        started.append(sinks)
        return sinks

    yield run
    for sinks in started:
        sinks.close(1.0)


@pytest.fixture
def _without_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test a program that has not started an engine yet."""
    made = client_process.ClientProcess()
    monkeypatch.setattr(client_process, "_process", made)
    yield
    made.shut_down()
