"""The report of the benchmark of scale: results become tables and plots, and the model finds the costs they were made with."""

from __future__ import annotations

import pytest

from bench.cost_model import Load, predicted
from bench.scale.engine_costs import engine_costs, errors
from bench.scale.figures import BrokerCost, CallCosts, ClientStorm, FullEngine, HeldStreams, ScaleResults
from bench.scale.report import TABLES, filled, report
from bench.scale.scale_plots import scale_plots
from tests.bench.test_cost_model import COSTS


def held(streams: int, clients: int, workers: int, pace: float = 1.0) -> HeldStreams:
    """Return a measurement that is as the model says."""
    shares = predicted(COSTS, Load(workers=workers, clients=clients, chunk_rate=streams / pace))
    idle = predicted(COSTS, Load(workers=workers, clients=clients, chunk_rate=0.0))
    return HeldStreams(
        streams=streams,
        clients=clients,
        workers=workers,
        pace=pace,
        open_seconds=1.5,
        first_p99=1.25,
        held=streams,
        complete=streams,
        faults={},
        seconds=10.0,
        chunks=round(10 * streams / pace),
        deltas=round(10 * streams / pace),
        latency_p50=0.001,
        latency_p99=0.25,
        latency_max=0.5,
        idle={"broker": idle.broker, "collector": idle.collector},
        cpu={
            "workers": shares.workers,
            "client": shares.client,
            "broker": shares.broker,
            "collector": shares.collector,
        },
        open_cpu={},
        memory={"workers": 13.0 * streams, "client": 6.0 * streams},
        descriptors={"workers": streams + 20},
    )


def results() -> ScaleResults:
    growth = [held(streams, 1, 1) for streams in (1, 10, 100, 1000, 5000)]
    growth += [held(2000, clients, 1) for clients in (1, 10, 200)]
    growth += [held(1000, 10, workers, 0.1) for workers in (1, 2, 4)] + [held(100, 1, 4, 0.1)]
    storm = ClientStorm(
        clients=200,
        storm_seconds=2.5,
        storm_cpu={"broker": 0.1},
        storm_memory={"broker": 800.0},
        streams=held(2000, 200, 1),
        runs_gone=0.1,
        connections_gone=0.2,
        peers_gone=0.3,
        slowest_call=0.02,
    )
    cpu = {"workers": 150e-6, "client": 160e-6, "broker": 25e-6, "collector": 40e-6}
    return ScaleResults(
        streams=[held(5000, 1, 1)],
        full=[FullEngine(open_files=1024, asked=1000, held=320, waited=680, complete=1000, faults={})],
        storms=[storm],
        growth=growth,
        calls=[CallCosts(workers=1, calls=1000, seconds=0.5, cpu=cpu)],
        broker=[BrokerCost(workers=workers, seconds=10e-6 + workers * 1e-7) for workers in (1, 100, 1000)],
    )


def test_the_model_finds_the_costs_and_the_measurements_with_more_workers() -> None:
    made = results()
    costs = engine_costs(made)

    assert costs.worker.wake_up == pytest.approx(COSTS.worker.wake_up, rel=0.01)
    assert costs.client.chunk == pytest.approx(COSTS.client.chunk, rel=0.01)
    assert costs.broker_run_per_worker == pytest.approx(1e-7, rel=0.01)
    assert [error.total for error in errors(costs, made.growth)] == [pytest.approx(0.0, abs=0.05)] * len(made.growth)


def test_each_table_has_what_was_measured() -> None:
    text = report(results())

    for words in ("5,000 of 5,000", "| 1,024 | 1,000 | 320 | 680 | 1,000 |", "0.10 s, 0.20 s, 0.30 s", "slow streams"):
        assert words in text


def test_a_page_gets_its_tables_between_its_comments_and_nothing_else_changes() -> None:
    page = "before\n<!-- bench.scale: full -->\nold\n<!-- bench.scale: end -->\nafter\n"

    new = filled(page, results())

    assert new.startswith("before\n<!-- bench.scale: full -->\n|")
    assert "old" not in new
    assert new.endswith("|\n<!-- bench.scale: end -->\nafter\n")
    assert filled(new, results()) == new
    with pytest.raises(ValueError, match="no table is named 'speed'"):
        filled("<!-- bench.scale: speed -->\n<!-- bench.scale: end -->", results())


def test_what_was_not_measured_is_called_so() -> None:
    for name in TABLES:
        assert "Not measured." in filled(
            f"<!-- bench.scale: {name} -->\n<!-- bench.scale: end -->\n", ScaleResults()
        ), name
    assert scale_plots(ScaleResults()) == {}


def test_there_is_a_plot_by_streams_by_clients_and_by_workers() -> None:
    made = scale_plots(results())

    assert list(made) == ["scale-streams.svg", "scale-clients.svg", "scale-workers.svg"]
    assert all(image.startswith("<svg") and "collector" in image and "p99" in image for image in made.values())
