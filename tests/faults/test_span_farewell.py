"""A client that ends while no collector listens leaves its word on lost runs with the broker, which passes it on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace import WorkerLostError
from headrace.files.engine_directory import COLLECTOR_SOCKET
from headrace.spans.span import Rank
from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.span_sets import content, stored
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def stop_collector(engine: FaultyEngine) -> None:
    """Have it listen to nobody, until it goes on."""
    engine.signal("collector", signal.SIGSTOP)


def kill_collector(engine: FaultyEngine) -> None:
    """Have none, until the supervisor goes on, which would start another."""
    engine.signal("supervisor", signal.SIGSTOP)
    engine.signal("collector", signal.SIGKILL)
    (engine.directory / COLLECTOR_SOCKET).unlink(missing_ok=True)  # it may have been killed before it listened


@pytest.mark.parametrize(
    ("silence", "resumed"), [(stop_collector, "collector"), (kill_collector, "supervisor")], ids=["stopped", "gone"]
)
def test_what_a_client_saw_is_stored_though_it_ended_before_there_was_a_collector(
    provider: SimulatedProvider, tmp_path: Path, silence: Callable[[FaultyEngine], None], resumed: str
) -> None:
    data = tmp_path / "data"
    with faulty_engine(provider, workers=2, data=data, is_young=True) as engine:
        client = engine.client()
        streams = [engine.stream(client, repeat=500, pace=0.02) for _ in range(4)]
        begun = [next(iter(stream)) for stream in streams]
        silence(engine)
        for name in ("w1", "w2"):
            engine.signal(name, signal.SIGKILL)
        texts = {}
        for stream, first in zip(streams, begun, strict=True):
            with pytest.raises(WorkerLostError) as error:
                stream.result.result()
            texts[stream.span_id] = error.value.partial_text
            assert error.value.partial_text.startswith(first)
        client.close()
        engine.signal(resumed, signal.SIGCONT)
        wait_until(
            lambda: {name: row.span.rank for name, row in stored(data).items()} == dict.fromkeys(texts, Rank.CLIENT),
            30.0,
            "the client's spans",
        )

    rows = stored(data)
    assert {name: content(row).text for name, row in rows.items()} == texts
    assert {row.span.error_type for row in rows.values()} == {"WorkerLostError"}
