"""Checks the promises on the histories of all processes and the log of the provider.

Pure: takes histories, returns violations.

Clients' promises are in ``runs``, the engine's in ``engine``; this file puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.history.engine import broker_violations, overlap_violations, worker_violations
from tests.history.facts import Facts, Limits
from tests.history.model import ProcessHistory, ProviderCall, Violation
from tests.history.run_promises import call_violations, caller_violations, client_violations


def check(
    histories: Sequence[ProcessHistory], calls: Iterable[ProviderCall], limits: Limits | None = None
) -> list[Violation]:
    """Return every promise that was broken, each with its run."""
    facts = Facts(histories, calls, limits or Limits())
    violations: list[Violation] = []
    for history in histories:
        match history.role:
            case "client":
                violations += client_violations(history, facts)
            case "caller":
                violations += caller_violations(history, facts)
            case "worker":
                violations += worker_violations(history, facts)
            case "broker":
                violations += broker_violations(history, facts)
    return [*violations, *call_violations(facts), *overlap_violations(facts)]
