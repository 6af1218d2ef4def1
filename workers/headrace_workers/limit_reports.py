"""Tells the broker which limits the providers' responses name, at most every 20 ms. Pure.

Of the responses that come within that time, only the newest one of each pool is told: of each provider, model family and
key. A response without limits in its headers is not told, and costs no more than the search for them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from headrace.wire.accounts import account_of, model_family
from headrace.wire.messages import LimitReport, ResponseReport, Run, SaidLimit
from headrace.wire.run_request import RunRequest

REPORT_DELAY = 0.02
"""Seconds that a response may wait for others, to be told in one message."""
MAX_LIMITS = 16
"""Limits of one response that are told."""


class LimitReports:
    """The responses that wait to be told. ``call_later`` is the loop's; times are in seconds.

    ``send`` sends a report to the broker, if it takes reports. ``read_limits`` finds the limits in the headers of a response.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        send: Callable[[LimitReport], None],
        read_limits: Callable[[Mapping[str, str]], Sequence[SaidLimit]],
    ) -> None:
        self._call_later = call_later
        self._send = send
        self._read_limits = read_limits
        self._waiting: dict[Hashable, ResponseReport] = {}

    def responded(self, run: Run, request: RunRequest, status: int, headers: Mapping[str, str]) -> None:
        """The head of a response has come. ``headers`` has lower-case names."""
        limits = self._read_limits(headers)
        if not limits and not run.reports:
            return
        if not self._waiting:
            self._call_later(REPORT_DELAY, self._tell)
        self._waiting[_place_of(run, request)] = ResponseReport(
            run.span_id, run.attempt, status, list(limits[:MAX_LIMITS])
        )

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._send(LimitReport(list(waiting.values())))


def _place_of(run: Run, request: RunRequest) -> Hashable:
    """Return what the newer response of the same pool replaces. A response that the broker waits for is never replaced."""
    if run.reports:
        return run.span_id, run.attempt
    return request.provider, model_family(request.model), run.key, account_of(run.api_key, run.base_url)
