"""For tests of sinks: configurations, runs, and what one sink has been asked."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.settings.settings import SinkConfig
from headrace.spans.span import Span
from headrace.wire.engine_status import SinkStatus
from headrace_engine.spans.sinks.runner import Sinks
from tests.e2e.fake_sinks import FakeSink, Say
from tests.engine.spans.span_examples import span

Start = Callable[..., Sinks]
BUSY = Say(503)


def to_otlp(fake: FakeSink, **options: object) -> SinkConfig:
    return msgspec.convert({"type": "otlp", "url": fake.url, "timeout": 5.0, **options}, SinkConfig)


def to_http(fake: FakeSink, **options: object) -> SinkConfig:
    return msgspec.convert({"type": "http", "url": fake.url, "timeout": 5.0, **options}, SinkConfig)


def runs(count: int, first: int = 1) -> list[Span]:
    return [span(number) for number in range(first, first + count)]


def ids(spans: list[Span]) -> list[str]:
    return [one.span_id for one in spans]


def only(sinks: Sinks) -> SinkStatus:
    (status,) = sinks.statuses()
    return status
