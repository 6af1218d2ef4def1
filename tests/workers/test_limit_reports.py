"""Limits in response headers are told to the broker: within 20 ms, the newest of each pool, and nothing without limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.types import Message
from headrace.wire.messages import LimitReport, ResponseReport, Run, SaidLimit
from headrace.wire.run_request import RunRequest
from headrace_workers.limit_reports import MAX_LIMITS, REPORT_DELAY, LimitReports


def read(headers: Mapping[str, str]) -> list[SaidLimit]:
    return [SaidLimit("requests", 100, int(left)) for left in headers.get("left", "").split()]


class Reports:
    """Reports, with the timers that they set, and what was sent."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.sent: list[LimitReport] = []
        self.reports = LimitReports(lambda *timer: self.timers.append(timer), self.sent.append, read)

    def respond(
        self, number: int, left: str = "", *, model: str = "gpt-4o", provider: str = "openai", status: int = 200,
        **fields: object,
    ) -> None:  # fmt: skip
        run = Run(f"sp_{number}", 1, 7, b"", 64, 65536, **fields)  # type: ignore[arg-type]
        request = RunRequest(provider=provider, model=model, messages=[Message("user", "hi")], stream=True)
        self.reports.responded(run, request, status, {"left": left} if left else {})

    def fire(self) -> None:
        """Let the delay pass."""
        timers, self.timers = self.timers, []
        for _, callback in timers:
            callback()

    def told(self) -> list[tuple[str, int, list[int | None]]]:
        return [
            (one.span_id, one.status, [limit.remaining for limit in one.limits])
            for report in self.sent
            for one in report.responses
        ]


def test_a_response_without_limits_is_not_told_and_sets_no_timer() -> None:
    reports = Reports()
    reports.respond(1)
    assert not reports.timers

    reports.respond(2, status=503)
    assert not reports.timers


def test_responses_are_told_together_after_one_delay() -> None:
    reports = Reports()
    reports.respond(1, "9")
    reports.respond(2, "5", provider="groq")
    assert [delay for delay, _ in reports.timers] == [REPORT_DELAY]
    assert not reports.sent

    reports.fire()
    assert len(reports.sent) == 1
    assert reports.told() == [("sp_1", 200, [9]), ("sp_2", 200, [5])]
    assert not reports.timers, "nothing waits"

    reports.respond(3, "8", status=429)
    reports.fire()
    assert reports.sent[1].responses == [ResponseReport("sp_3", 1, 429, [SaidLimit("requests", 100, 8)])]


def test_only_the_newest_response_of_a_pool_is_told() -> None:
    reports = Reports()
    reports.respond(1, "9")
    reports.respond(2, "8", model="gpt-4o-2024-08-06")
    reports.respond(3, "7", key="00ff")
    reports.respond(4, "6", api_key="sk-1")
    reports.respond(5, "5", api_key="sk-2")
    reports.respond(6, "4", api_key="sk-2")
    reports.respond(7, "3", model="gpt-4o-mini")
    reports.fire()

    assert sorted(reports.told()) == [
        ("sp_2", 200, [8]),
        ("sp_3", 200, [7]),
        ("sp_4", 200, [6]),
        ("sp_6", 200, [4]),
        ("sp_7", 200, [3]),
    ]


def test_a_response_that_the_broker_waits_for_is_told_without_limits_and_replaced_by_no_other() -> None:
    reports = Reports()
    reports.respond(1, reports=True, status=500)
    reports.respond(2, "9")
    reports.respond(3, "8")
    reports.fire()

    assert reports.told() == [("sp_1", 500, []), ("sp_3", 200, [8])]


def test_very_many_limits_of_one_response_are_cut() -> None:
    reports = Reports()
    reports.respond(1, "1 " * 100)
    reports.fire()

    assert len(reports.sent[0].responses[0].limits) == MAX_LIMITS
