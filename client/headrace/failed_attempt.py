"""FailedAttempt: what one failed attempt of a run met. Errors have the list: see ``HeadraceError.attempts``."""

from __future__ import annotations

from headrace.dict_form import DictForm


class FailedAttempt(DictForm, frozen=True, kw_only=True):
    """One attempt of a run that failed: a retry, a fallback, or the first attempt."""

    number: int
    """Which attempt of the run it was, from 1."""
    provider: str
    """The provider that was asked."""
    model: str
    """The model that was asked."""
    error: str
    """The name of the attempt's error class, such as ``RateLimitError``."""
    reason: str
    """What happened."""
    status_code: int | None = None
    """The provider's HTTP status; ``None`` if there was none."""
    request_id: str | None = None
    """The provider's id of the request; ``None`` if it gave none."""
    retry_after: float | None = None
    """The seconds that the provider, or the engine, asked to wait; ``None`` if it did not say."""
    seconds: float = 0.0
    """How long the attempt took, in seconds: since the run was given to a worker, or since it began to wait for one."""


def attempts_text(attempts: tuple[FailedAttempt, ...]) -> str:
    """Return what the attempts met, such as ``3 attempts: 503, 503, 429``; with the models where there were several."""
    groups: list[tuple[str, list[str]]] = []
    for attempt in attempts:
        name = f"{attempt.provider}/{attempt.model}"
        outcome = attempt.error if attempt.status_code is None else str(attempt.status_code)
        if groups and groups[-1][0] == name:
            groups[-1][1].append(outcome)
        else:
            groups.append((name, [outcome]))
    by_model = [(name, ", ".join(met)) for name, met in groups]
    met = by_model[0][1] if len(by_model) == 1 else "; ".join(f"{name} {met}" for name, met in by_model)
    return f"{len(attempts)} attempts: {met}"
