"""Promises of reading rate limits: each vendor's headers give its limits, a limit per day is never one per minute, and no
header can do harm.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.messages import LimitReport, ResponseReport, SaidLimit
from headrace_workers.providers.shared.limit_headers import _NAMES, read_limits
from tests.workers import corpus

DATE = "Tue, 07 Oct 2025 13:56:17 GMT"
OTHERS = {f"x-header-{place}": "some value" for place in range(20)} | {
    "date": DATE,
    "content-type": "text/event-stream",
}


def openai(what: str, limit: object, remaining: object, reset: str | None = None) -> dict[str, str]:
    headers = {f"x-ratelimit-limit-{what}": str(limit), f"x-ratelimit-remaining-{what}": str(remaining)}
    return headers if reset is None else headers | {f"x-ratelimit-reset-{what}": reset}


def anthropic(what: str, limit: object, remaining: object, reset: str) -> dict[str, str]:
    prefix = f"anthropic-ratelimit-{what}"
    return {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining), f"{prefix}-reset": reset}


def mistral(limit: str, remaining: str, reset: str) -> dict[str, str]:
    names = ("limit", "remaining", "reset", "query-cost")
    return dict(zip([f"ratelimitbysize-{name}" for name in names], [limit, remaining, reset, "32018"], strict=True))


def openrouter(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}


def only(headers: dict[str, str]) -> SaidLimit:
    (limit,) = read_limits(OTHERS | headers)
    return limit


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (
            openai("requests", 10000, 9999, "6ms") | openai("tokens", 30000000, 29997985, "4ms"),
            [SaidLimit("requests", 10000, 9999, 0.006), SaidLimit("tokens", 30000000, 29997985, 0.004)],
        ),
        (
            anthropic("requests", 4000, 3999, "2025-10-07T13:56:30Z")
            | anthropic("tokens", 480000, 478000, "2025-10-07T13:56:17Z")
            | anthropic("input-tokens", 400000, 399000, "2025-10-07T13:56:12Z")
            | anthropic("output-tokens", 80000, 79000, "2025-10-07T15:56:18+02:00"),
            [
                SaidLimit("requests", 4000, 3999, 13.0),
                SaidLimit("tokens", 480000, 478000, 0.0),
                SaidLimit("input_tokens", 400000, 399000, 0.0),
                SaidLimit("output_tokens", 80000, 79000, 1.0),
            ],
        ),
        (  # Azure
            openai("requests", 2500, 2499, "0") | openai("tokens", -1, -1, "0"),
            [SaidLimit("requests", 2500, 2499, 0.0)],
        ),
        (  # Groq
            openai("requests", 1000, 981, "27m21.174999999s") | openai("tokens", 6000, 4089, "19.11s"),
            [SaidLimit("tokens", 6000, 4089, 19.11)],
        ),
        (  # Cerebras
            openai("requests-day", 1440000, 1439993, "3563.8418328762054")
            | openai("tokens-minute", 1000000, 999858, "23.841832876205444"),
            [SaidLimit("tokens", 1000000, 999858, 23.841832876205444)],
        ),
        (
            mistral("500000", "401381", "33")
            | {"x-ratelimitbysize-limit-minute": "500000", "x-ratelimitbysize-limit-month": "1000000000"},
            [SaidLimit("tokens", 500000, 401381, 33.0)],
        ),
        (openrouter("16", "0", "1759845420000"), [SaidLimit("requests", 16, 0, 43.0)]),
        (  # xAI
            openai("requests", 480, 480) | openai("tokens", 4000000, 4000000),
            [SaidLimit("requests", 480, 480), SaidLimit("tokens", 4000000, 4000000)],
        ),
        ({"retry-after": "31", "x-should-retry": "false"}, []),
        ({}, []),
    ],
)
def test_the_headers_of_each_vendor_give_its_limits(headers: dict[str, str], limits: list[SaidLimit]) -> None:
    assert read_limits(OTHERS | headers) == limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("59.369s", 59.369),
        ("0s", 0.0),
        ("6m0s", 360.0),
        ("1h2m", 3720.0),
        ("1h", 3600.0),
        ("1m1s500ms", 61.5),
        ("850µs", 0.0),
        ("850Âµs", 0.0),
        ("7", 7.0),
        ("7.25", 7.25),
    ],
)
def test_a_reset_is_read_in_each_form_of_a_duration(text: str, seconds: float) -> None:
    limit = only(openai("tokens", 10, 0, text))
    # Of a limit that may be per day, the reset says when the next request may pass.
    assert limit.reset == pytest.approx(seconds if limit.limit else seconds / 10)


LIES: list[tuple[object, object, str]] = [
    (-1, 5, "1s"),
    (0, 0, "1s"),
    (10, -1, "1s"),
    (10**13, 5, "1s"),
    (10, "1e3", "1s"),
    ("ten", 5, "1s"),
    ("", 5, "1s"),
    ("10.5", 5, "1s"),
    ("10, 10", 5, "1s"),
    ("9" * 5000, 5, "1s"),
    (10, 5, "-1s"),
    (10, 5, "-3"),
    (10, 5, "soon"),
    (10, 5, ""),
    (10, 5, "nan"),
    (10, 5, "inf"),
    (10, 5, "1e300"),
    (10, 0, "30h"),
    (10, 0, "9" * 39),
    (10, 0, "2025-10-09T13:56:17Z"),
    (10, 0, "2025-10-07T12:56:17Z"),
    (10, 0, "2025-10-07T13:56:17"),
    (10, 0, "2025-13-07T13:56:17Z"),
    (10, 0, "T"),
    (10, 0, "1659845420000"),
    (10, 0, "1659845420"),
]


@pytest.mark.parametrize(("limit", "remaining", "reset"), LIES)
def test_a_limit_with_an_impossible_value_is_left_out_and_the_others_stay(
    limit: object, remaining: object, reset: str
) -> None:
    good = openai("tokens", 100, 50, "1s")
    for lie in (openai("requests", limit, remaining, reset), anthropic("input-tokens", limit, remaining, reset)):
        assert read_limits(OTHERS | lie | good) == [SaidLimit("tokens", 100, 50, 1.0)]


def test_more_remaining_than_the_limit_is_the_limit() -> None:
    assert only(openai("requests", 10, 15, "1s")) == SaidLimit("requests", 10, 10, 1.0)


def test_half_of_the_headers_are_enough() -> None:
    assert only({"x-ratelimit-remaining-requests": "118"}) == SaidLimit("requests", None, 118, None)
    assert only({"x-ratelimit-limit-tokens": "5000"}) == SaidLimit("tokens", 5000, None, None)


@pytest.mark.parametrize(
    "headers",
    [
        openai("requests-day", 1000, 500, "20"),
        openai("requests", 1000, 989, "15m50.4s"),
        openai("requests", 14400, 14399, "6s"),  # 6 s are the time of one request of 14,400 in a day
        openai("requests", 14400, 14000, "3s") | {"x-groq-region": "msp"},
        anthropic("requests", 1000, 999, "2025-10-07T16:00:00Z"),
        openrouter("1000", "900", "1759870800000"),
        openrouter("10", "9", "1"),  # Together: in a second
        openrouter("10", "9", "1759845420000") | {"date": "yesterday"},
        {"x-ratelimitbysize-limit-month": "1000", "x-ratelimitbysize-remaining-month": "0"},
    ],
)
def test_a_limit_that_is_not_per_minute_is_not_told_while_some_of_it_is_left(headers: dict[str, str]) -> None:
    assert read_limits(OTHERS | headers) == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (openai("requests-day", 1440, 0, "3563.5"), 3563.5),
        (openai("requests", 1000, 0, "24h"), 86.4),
        (openai("requests", 14400, 0, "6s") | {"x-groq-region": "msp"}, 6 / 14400),
        (openrouter("50", "0", "1759852577000"), 7200.0),
        (openrouter("10", "0", "1"), 1.0),
    ],
)
def test_a_limit_per_day_that_is_used_up_tells_only_when_the_next_request_may_pass(
    headers: dict[str, str], wait: float
) -> None:
    limit = only(headers)
    assert (limit.kind, limit.limit, limit.remaining) == ("requests", None, 0)
    assert limit.reset == pytest.approx(wait)


def test_of_two_limits_of_one_kind_the_lower_counts() -> None:
    headers = openai("tokens", 800, 700, "1s") | openai("project-tokens", 500, 450, "3s")
    assert only(headers) == SaidLimit("tokens", 500, 450, 3.0)
    headers = openai("tokens", 800, 10, "50s") | openai("tokens-usage-based", 500, 450, "3s")
    assert only(headers) == SaidLimit("tokens", 500, 10, 50.0)
    headers = openai("requests-day", 800, 0, "500") | openai("requests-minute", 50, 45, "3")
    assert only(headers) == SaidLimit("requests", 50, 0, 500.0)
    headers = openai("requests-day", 800, 7, "500") | openai("requests-minute", 50, 45, "3")
    assert only(headers) == SaidLimit("requests", 50, 45, 3.0)


def test_a_reset_of_azure_that_is_longer_than_its_period_is_not_in_seconds() -> None:
    headers = openai("requests", 120, 119, "500") | {"x-ratelimit-renewalperiod-requests": "60"}
    assert only(headers) == SaidLimit("requests", 120, 119, None)


def test_a_date_is_not_compared_with_any_clock_but_that_of_the_response() -> None:
    headers = anthropic("requests", 10, 5, "2031-01-01T00:00:30Z")
    assert read_limits(headers | {"date": "Wed, 01 Jan 2031 00:00:00 GMT"}) == [SaidLimit("requests", 10, 5, 30.0)]
    assert read_limits(headers) == [SaidLimit("requests", 10, 5, None)]
    assert read_limits(headers | {"date": "Wed, 99 Foo 2031 00:00:00 GMT"}) == [SaidLimit("requests", 10, 5, None)]


values = (
    st.text(max_size=45)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    | st.sampled_from(["0", "-1", "6m0s", "59.369s", "1759845420000", "1e999", "٣", "²", DATE, "60", "10000"])
)


@given(st.dictionaries(st.sampled_from([*_NAMES, "date", "x-groq-region", "x-ratelimit-reset-requests"]), values))
def test_whatever_headers_say_the_limits_fit_into_a_report_and_are_possible(headers: dict[str, str]) -> None:
    limits = read_limits(headers)
    report = LimitReport([ResponseReport("sp_1", 1, 200, limits)])

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=LimitReport) == report
    assert len({said.kind for said in limits}) == len(limits)
    for said in limits:
        assert said.limit is None or 0 < said.limit <= 10**12
        assert said.remaining is None or 0 <= said.remaining <= 10**12
        assert said.reset is None or 0 <= said.reset < 90_000
        assert said.reset is None or math.isfinite(said.reset)
        assert said.reset is None or said.reset <= 90 or (said.remaining, said.limit or 0) <= (0, 10**12)


def recorded_headers() -> list[Any]:
    wires = ("openai.chat", "openai.responses", "anthropic.messages", "google.generate")
    return [name for wire in wires for name in corpus.case_names(wire)]


@corpus.needs_recordings
def test_the_limits_of_all_recordings_are_read() -> None:
    told: dict[str, set[str]] = {}
    for name in recorded_headers():
        headers = corpus.load(name).headers
        limits = read_limits(headers)
        vendor = name.split("--")[1]
        if any(header in _NAMES for header in headers) and headers.get("x-ratelimit-limit-tokens") != "-1":
            assert limits, name
        for said in limits:
            told.setdefault(vendor, set()).add(said.kind)
            assert said.limit is not None or "x-ratelimit-limit-requests" not in headers, name
            assert said.remaining is not None, name
            assert said.reset is None or said.reset <= 60, name
    assert told["groq"] == told["cerebras"] == told["mistral"] == {"tokens"}
    assert told["openrouter"] == {"requests"}
    assert told["openai"] == told["xai"] == told["azure"] == {"requests", "tokens"}
    assert told["anthropic"] == {"requests", "tokens", "input_tokens", "output_tokens"}
    assert "google" not in told
