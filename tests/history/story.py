"""The histories of one good run, for tests of the checker that change one entry."""

from __future__ import annotations

from typing import Any

from headrace.process.history import HistoryEvent
from tests.history.checker import check
from tests.history.facts import Limits
from tests.history.model import ProcessHistory, ProviderCall

SPAN = "sp_0123456789abcdef"
CLIENT, WORKER, OTHER_WORKER, BROKER = 11, 21, 22, 31
EPOCH, OTHER_EPOCH = 7, 8


class Story:
    """One run of two chunks."""

    def __init__(self) -> None:
        self.client = [
            note(1.0, "submit"),
            note(1.1, "sent acquire", attempt=1),
            note(1.3, "received grant", attempt=1, epoch=EPOCH),
            note(1.4, "sent run", attempt=1, epoch=EPOCH),
            chunk(2.1, "received chunk", 0, 2, "a b "),
            chunk(2.3, "received chunk", 2, 1, "c "),
            note(2.5, "received finished", attempt=1, epoch=EPOCH, sequence=3),
            note(2.6, "end", attempt=1, kind="Finished", text="a b c "),
            note(2.7, "sent release", attempt=1),
        ]
        self.worker = [
            note(1.5, "received run", attempt=1, sequence_limit=64, character_limit=1000),
            note(1.6, "start", attempt=1),
            chunk(2.0, "sent chunk", 0, 2, "a b "),
            chunk(2.2, "sent chunk", 2, 1, "c "),
            note(2.4, "let go", attempt=1),
            note(2.4, "sent finished", attempt=1, sequence=3),
        ]
        self.broker = [
            note(1.2, "received acquire", attempt=1, peer="c"),
            note(1.2, "sent grant", attempt=1, epoch=EPOCH, peer="c"),
            note(2.8, "received release", attempt=1, peer="c"),
        ]
        self.caller = [
            note(1.0, "begin"),
            note(2.1, "first"),
            note(2.7, "read", text="a b c "),
            note(2.7, "saw", kind="done", text="a b c "),
        ]
        self.supervisor: list[HistoryEvent] = []
        self.faults: list[HistoryEvent] = []
        self.others: list[ProcessHistory] = []
        self.calls = [call()]

    def violations(self, **limits: Any) -> list[str]:
        histories = [
            ProcessHistory("client", CLIENT, 1, self.client),
            ProcessHistory("worker", WORKER, EPOCH, self.worker),
            ProcessHistory("broker", BROKER, 3, self.broker),
            ProcessHistory("caller", CLIENT, 0, self.caller),
            ProcessHistory("supervisor", 41, 0, self.supervisor),
            ProcessHistory("harness", 51, 0, self.faults),
            *self.others,
        ]
        return sorted({violation.name for violation in check(histories, self.calls, Limits(**limits))})


def note(at: float, event: str, span_id: str = SPAN, **facts: Any) -> HistoryEvent:
    return HistoryEvent(at=at, event=event, span_id=span_id, **facts)


def chunk(
    at: float, event: str, sequence: int, count: int, text: str, attempt: int = 1, epoch: int = EPOCH
) -> HistoryEvent:
    return note(
        at, event, attempt=attempt, epoch=epoch, sequence=sequence, count=count, characters=len(text), text=text
    )


def call(**facts: Any) -> ProviderCall:
    whole: dict[str, Any] = {
        "span_id": SPAN,
        "arrived_at": 1.7,
        "ended_at": 2.4,
        "is_complete": True,
        "sent_text": "a b c ",
    }
    return ProviderCall(**(whole | facts))


def cut(at: float) -> HistoryEvent:
    return HistoryEvent(at=at, event="fault", kind="cut")


def kill(pid: int, at: float, kind: str = "SIGKILL") -> HistoryEvent:
    return HistoryEvent(at=at, event="fault", kind=kind, pid=pid)
