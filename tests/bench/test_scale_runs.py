"""The benchmark of scale runs: many client processes begin at once, hold their streams and are killed at once, and the engine is clean."""

from __future__ import annotations

from bench.scale.measured_engine import provider
from bench.scale.measurements import client_storm, held_streams
from tests.repetition import long_test
from tests.waiting import busyness


@long_test
def test_client_processes_that_begin_and_are_killed_at_once_are_all_served_and_leave_nothing() -> None:
    processes = 200
    with provider() as source:
        found = client_storm(source, processes=processes, streams=2 * processes, seconds=0.5)

    assert found.streams.faults == {}
    assert found.streams.held == 2 * processes
    assert max(found.runs_gone, found.connections_gone, found.peers_gone) < 10.0 * busyness()


@long_test
def test_each_chunk_of_many_slow_streams_of_ten_clients_comes_in_order() -> None:
    with provider() as source:
        found = held_streams(source, streams=5000, processes=10, workers=1, pace=1.0, seconds=10.0, to_the_end=True)

    assert found.faults == {}
    assert (found.held, found.complete) == (5000, 5000)
