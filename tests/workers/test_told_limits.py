"""A worker tells a broker that understands it which keys it has, and which limits its provider's answers name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from headrace.files.engine_directory import broker_endpoint
from headrace.testing import SimulatedProvider
from headrace.transport.router import Router
from headrace.wire.accounts import short_hash
from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.messages import CAPABILITIES, Heartbeat, Hello, KeyReport, LimitReport, Welcome
from tests.waiting import wait_until
from tests.workers.spans.span_worker import SpanWorker, span_worker

KEY = "sk-of-the-worker-0123456789"


class FakeBroker:
    """Welcomes one worker, with the ``capabilities`` of a broker, and keeps what it says."""

    def __init__(self, worker: SpanWorker, *capabilities: str) -> None:
        self._router = Router(broker_endpoint(worker.directory))
        self._capabilities = list(capabilities)
        self.heard: list[object] = []

    def close(self) -> None:
        self._router.close()

    def said(self, kind: type) -> list[object]:
        """Return what the worker has said of one kind, heartbeats first."""
        for identity, frame in self._router.receive():
            for message in to_broker.decode(frame)[1]:
                if isinstance(message, Hello):
                    self._router.send(identity, encode_frame(1, [Welcome(1, os.getpid(), self._capabilities)]))
                self.heard.append(message)
        return [message for message in self.heard if isinstance(message, kind)]


@pytest.fixture
def limited(provider: SimulatedProvider) -> Iterator[SimulatedProvider]:
    provider.limit(requests_per_minute=100, key="sk-of-the-caller")
    yield provider
    provider.recover()


def test_a_worker_tells_its_keys_and_the_limits_of_each_answer(limited: SimulatedProvider) -> None:
    with span_worker(limited, OPENAI_API_KEY=KEY, GROQ_API_KEY="") as worker:
        with closing(FakeBroker(worker, *CAPABILITIES)) as broker:
            wait_until(lambda: broker.said(KeyReport))
            (told,) = broker.said(KeyReport)
            assert isinstance(told, KeyReport)
            assert (told.keys["openai"], "groq" in told.keys) == ([short_hash(KEY)], False)
            assert KEY not in repr(broker.heard)

            span_id = worker.run()
            worker.terminal(span_id)
            wait_until(lambda: broker.said(LimitReport))
            (report,) = broker.said(LimitReport)
            assert isinstance(report, LimitReport)
            (response,) = report.responses
            assert (response.span_id, response.attempt, response.status) == (span_id, 1, 200)
            (limit,) = response.limits
            assert (limit.kind, limit.limit, limit.remaining) == ("requests", 100, 99)

        with closing(FakeBroker(worker, *CAPABILITIES)) as successor:
            wait_until(lambda: successor.said(KeyReport), what="the keys, told to the next broker")


def test_an_older_broker_is_told_nothing_new(limited: SimulatedProvider) -> None:
    with (
        span_worker(limited, OPENAI_API_KEY=KEY) as worker,
        closing(FakeBroker(worker, *(set(CAPABILITIES) - {"limits"}))) as broker,
    ):
        wait_until(lambda: broker.said(Hello))
        worker.terminal(worker.run())
        wait_until(lambda: len(broker.said(Heartbeat)) > 1, what="a second heartbeat")
        assert broker.said(KeyReport) == broker.said(LimitReport) == []
