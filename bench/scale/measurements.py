"""Measures one case of scale: streams that are held, client processes that come and die at once, calls, and a full engine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from bench.measure import TreeFigures, used
from bench.scale.client_group import ClientFigures, ClientGroup
from bench.scale.figures import BrokerCost, CallCosts, ClientStorm, FullEngine, HeldStreams
from bench.scale.measured_engine import Clients, LoadProvider, MeasuredEngine, clients, engine, merged
from headrace.wire.messages import Acquire, Release
from headrace_engine.broker.admission import Admission

_IDLE = 2.0
"""Seconds for which clients without work are measured."""
_CLEAN = 60.0
"""Seconds after which an engine that is not clean counts as never clean."""


def held_streams(
    source: LoadProvider,
    *,
    streams: int,
    processes: int,
    workers: int,
    pace: float,
    seconds: float,
    to_the_end: bool = False,
) -> HeldStreams:
    """Open streams on a new engine, and hold them for ``seconds``. ``to_the_end``: then read them to their ends."""
    group = _group(streams, processes, pace, seconds)
    with engine(source, workers) as served, clients(served.joined(group)) as under_way:
        under_way.ask("connect")
        return _held(served, under_way, group, workers, seconds, to_the_end=to_the_end)


def _group(streams: int, processes: int, pace: float, seconds: float) -> ClientGroup:
    """Return clients whose streams last for ``seconds``, and as long as opening them may take on a busy machine."""
    chunks = int((seconds + 10.0 + streams / 100) / pace)
    return ClientGroup(address="", processes=processes, streams=streams // processes, chunks=chunks, pace=pace)


def _held(
    served: MeasuredEngine,
    under_way: Clients,
    group: ClientGroup,
    workers: int,
    seconds: float,
    *,
    to_the_end: bool,
) -> HeldStreams:
    streams = group.streams * group.processes
    before, began = _both(served, under_way), time.monotonic()
    time.sleep(min(_IDLE, seconds))
    idle, now = _both(served, under_way), time.monotonic()
    idle_shares = _shares(before, idle, now - began)
    opened = under_way.ask("open")
    at_open = _both(served, under_way)
    under_way.ask("mark")
    start, started = _both(served, under_way), time.monotonic()
    time.sleep(seconds)
    end, ended = _both(served, under_way), time.monotonic()
    during = under_way.ask("mark")
    descriptors = served.descriptors()
    last = under_way.ask("end") if to_the_end else during
    latencies = sorted(value for one in during for value in one.latencies)
    return HeldStreams(
        streams=streams,
        clients=group.processes,
        workers=workers,
        pace=group.pace,
        open_seconds=max(one.seconds for one in opened),
        first_p99=_quantile(sorted(value for one in opened for value in one.firsts), 0.99),
        held=sum(one.open for one in during),
        complete=sum(one.complete for one in last),
        faults=_faults(last),
        seconds=ended - started,
        chunks=sum(one.chunks for one in during),
        deltas=sum(one.deltas for one in during),
        latency_p50=_quantile(latencies, 0.5),
        latency_p99=_quantile(latencies, 0.99),
        latency_max=latencies[-1] if latencies else 0.0,
        idle=idle_shares,
        cpu=_shares(start, end, ended - started),
        open_cpu=used(idle.cpu, at_open.cpu),
        memory=used(idle.memory, at_open.memory),
        descriptors=descriptors,
    )


def client_storm(source: LoadProvider, *, processes: int, streams: int, seconds: float) -> ClientStorm:
    """Have client processes begin at once on a new engine, hold streams, and be killed at once."""
    group = _group(streams, processes, 1.0, seconds)
    witness = ClientGroup(address="", processes=1, streams=0, chunks=1, pace=1.0)
    with engine(source, 1) as served, clients(served.joined(witness)) as other:
        other.ask("connect")
        with clients(served.joined(group)) as under_way:
            before = _both(served, under_way)
            descriptors = served.descriptors()
            connected = under_way.ask("connect")
            after = _both(served, under_way)
            held = _held(served, under_way, group, 1, seconds, to_the_end=False)
            killed_at = time.monotonic()
            under_way.ask("kill")
        gone, slowest = _until_clean(source, served, other, descriptors, killed_at)
    return ClientStorm(
        clients=processes,
        storm_seconds=max(one.seconds for one in connected),
        storm_cpu=used(before.cpu, after.cpu),
        storm_memory=used(before.memory, after.memory),
        streams=held,
        runs_gone=gone["runs"],
        connections_gone=gone["connections"],
        peers_gone=gone["peers"],
        slowest_call=slowest,
    )


def _until_clean(
    source: LoadProvider, served: MeasuredEngine, other: Clients, before: dict[str, int], killed_at: float
) -> tuple[dict[str, float], float]:
    """Return the seconds until nothing is left of the killed clients, by what is looked at, and those of the slowest call meanwhile."""
    slowest = 0.0
    gone = dict.fromkeys(("runs", "connections", "peers"), _CLEAN)
    while time.monotonic() - killed_at < _CLEAN and _CLEAN in gone.values():
        slowest = max(slowest, other.ask("calls 1 1")[0].seconds)
        now = served.descriptors()
        clean = {
            "runs": sum(served.running_and_waiting()) == 0,
            "connections": source.connections() <= 2,  # of the other client's calls
            "peers": all(now[role] <= before[role] + 4 for role in ("broker", "workers")),
        }
        for what, is_clean in clean.items():
            if is_clean and gone[what] == _CLEAN:
                gone[what] = time.monotonic() - killed_at
    return gone, slowest


def full_engine(source: LoadProvider, *, streams: int, open_files: int, seconds: float) -> FullEngine:
    """Ask one worker with few descriptors for more streams than it can hold."""
    group = ClientGroup(address="", processes=1, streams=streams, chunks=max(1, int(seconds)), pace=1.0)
    most = waited = 0
    with engine(source, 1, open_files=open_files) as served, clients(served.joined(group)) as under_way:
        under_way.ask("connect")
        answers: list[list[ClientFigures]] = []
        asking = threading.Thread(target=lambda: answers.extend((under_way.ask("open"), under_way.ask("end"))))
        asking.start()
        while asking.is_alive():
            running, waiting = served.running_and_waiting()
            most, waited = max(most, running), max(waited, waiting)
            asking.join(0.1)
    last = answers[-1]
    return FullEngine(
        open_files=open_files,
        asked=streams,
        held=most,
        waited=waited,
        complete=sum(one.complete for one in last),
        faults=_faults(last),
    )


def call_costs(source: LoadProvider, *, workers: int, calls: int) -> CallCosts:
    """Make calls without a stream on a new engine, 64 at once."""
    group = ClientGroup(address="", processes=1, streams=0, chunks=1, pace=1.0)
    with engine(source, workers) as served, clients(served.joined(group)) as under_way:
        under_way.ask("connect")
        under_way.ask("calls 200 64")
        before = _both(served, under_way)
        made = under_way.ask(f"calls {calls} 64")
        after = _both(served, under_way)
    if faults := _faults(made):
        raise RuntimeError(f"calls failed: {faults}")
    cpu = {role: spent / calls for role, spent in used(before.cpu, after.cpu).items()}
    return CallCosts(workers=workers, calls=calls, seconds=made[0].seconds, cpu=cpu)


def broker_cost(workers: int) -> BrokerCost:
    """Measure what the decision about one run takes with so many workers: the lease given, and given back."""
    rounds = 500
    best = []
    for _ in range(5):
        admission = Admission(4096, 100_000)
        for number in range(workers):
            admission.worker_joined(f"w{number}", "ipc:///none", number + 1, 4096)
        admission.client_joined(b"client", 1)
        started = time.perf_counter()
        for number in range(rounds):
            admission.acquired(b"client", Acquire(f"run-{number}", 1, "openai", "gpt-4o"), 0.0)
        for number in range(rounds):
            admission.released(b"client", Release(f"run-{number}", 1), 0.0)
        best.append((time.perf_counter() - started) / rounds)
    return BrokerCost(workers=workers, seconds=min(best))


def _both(served: MeasuredEngine, under_way: Clients) -> TreeFigures:
    return merged([served.figures(), under_way.figures()])


def _shares(before: TreeFigures, after: TreeFigures, seconds: float) -> dict[str, float]:
    return {role: spent / seconds for role, spent in used(before.cpu, after.cpu).items()}


def _faults(answers: Iterable[ClientFigures]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in answers:
        found.update(one.faults)
    return dict(found)


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0.0
