"""Gives one spoiled response to the pure core of a run, as a worker does, and checks everything that must always hold."""

from __future__ import annotations

import math
import random

import msgspec

from headrace.types import Message, RunEvent
from headrace.wire.codec import encode_frame, from_worker
from headrace.wire.flow import characters
from headrace.wire.messages import (
    MAX_FRAME_BYTES,
    Chunk,
    Credit,
    Failed,
    Finished,
    Run,
    Terminal,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.run_commands import Command, Commands
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from tests.fuzz.mutation import split
from tests.workers.runs.driven import messages_of_core, received_by

_SPAN = "sp_0123456789abcdef"
_SENT = HttpRequest("http://x/y", (), b'{"contents": []}')
_IDLE = 60.0
_MAX_CONTINUATIONS = 3


class FuzzedExchange(msgspec.Struct, frozen=True):
    """A response and how it arrives: ``choices`` seeds everything that is random about that."""

    api: str
    status: int
    headers: dict[str, str]
    body: bytes
    stream: bool
    choices: int


def carry_out(exchange: FuzzedExchange) -> str:
    """Put a response through, and return in a word how its run ended; AssertionError where a promise is broken."""
    return _Shell(exchange).run()


class _Shell:
    """Carries commands out, keeps what is sent, and behaves as badly as shells, clients and clocks may."""

    def __init__(self, exchange: FuzzedExchange) -> None:
        self._exchange = exchange
        self._rng = random.Random(exchange.choices)
        self._now = 0.0
        self._restlessness = self._rng.choice((0.0, 0.02, 0.3))
        self._may_end_it = self._rng.random() < 0.2
        self._sequence_limit = self._rng.choice((0, 1, 5, 64, 10_000))
        self._character_limit = self._rng.choice((0, 1, 7, 500, 65_536, 10**9))
        run = Run(_SPAN, 1, 7, b"", self._sequence_limit, self._character_limit)
        request = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=exchange.stream)
        clocks = Clocks(ClockLimits(connect=math.inf, first_chunk=math.inf, idle=_IDLE, total=math.inf), 0.0)
        self._core = ProviderRun(run, request, WIRE_FORMATS[exchange.api].api, clocks)
        self._events = 0
        self._characters = 0
        self._text_length = 0
        self._terminal: Terminal | None = None
        self._is_paused = False
        self._is_closed = False
        self._wants_more = False

    def run(self) -> str:
        self._core.clocks.connected()
        for _ in range(_MAX_CONTINUATIONS):
            self._wants_more = False
            self._respond()
            if not self._wants_more:
                break
            sent = self._core.continue_request(_SENT)
            assert isinstance(msgspec.json.decode(sent.body), dict)
        if self._wants_more:
            self._do(self._core.failed("connect", "no more", self._now))
        self._drain()
        return self._verdict()

    def _respond(self) -> None:
        exchange = self._exchange
        self._do(self._core.responded(exchange.status, exchange.headers, self._now))
        for piece in split(self._rng, exchange.body):
            if self._is_paused:
                self._catch_up()
            self._now += 0.001
            self._do(received_by(self._core, piece, self._now))
            if self._is_closed:
                return
            if self._rng.random() < self._restlessness:
                self._interfere()
        self._do(
            self._core.failed("read", "cut", self._now)
            if self._rng.random() < 0.05
            else self._core.completed(self._now)
        )

    def _interfere(self) -> None:
        match self._rng.randrange(12) if self._may_end_it else -1:
            case 0:
                self._do(self._core.aborted("close", self._now))
            case 1:
                self._do(self._core.aborted("drain", self._now))
            case 2:
                self._now += 2 * _IDLE
                self._do(self._core.due(self._now))
            case _:
                self._credit(self._rng.choice((0, 1, 64)), self._rng.choice((0, 1, 300, 65_536)))

    def _catch_up(self) -> None:
        """A run that stopped reading reads on once its reader has taken everything."""
        for _ in range(100_000):
            if not self._is_paused or self._core.has_ended:
                return
            self._credit(64, 65_536)
        raise AssertionError("a run with credit does not read on")

    def _drain(self) -> None:
        """Give credit until the terminal message has come, and look that nothing follows it."""
        for _ in range(100_000):
            if self._core.is_over:
                break
            self._credit(64, 65_536)
        else:
            raise AssertionError("no terminal message")
        for commands in (
            self._core.received(b"data: {}\n\n", self._now),
            self._core.completed(self._now),
            self._core.failed("read", "late", self._now),
            self._core.due(self._now + 1e9),
        ):
            assert commands == ()
        self._core.aborted("close", self._now)
        self._credit(1, 1)

    def _credit(self, events: int, letters: int) -> None:
        self._sequence_limit += events
        self._character_limit += letters
        self._do(self._core.allow_more(Credit(_SPAN, 1, self._sequence_limit, self._character_limit)))

    def _do(self, commands: Commands) -> None:
        for command in commands:
            match command:
                case Command.SEND:
                    self._take()
                case Command.PAUSE:
                    self._is_paused = True
                case Command.RESUME:
                    self._is_paused = False
                case Command.CLOSE:
                    self._is_closed = True
                case Command.SEND_CONTINUATION:
                    self._wants_more = True

    def _take(self) -> None:
        messages, commands = messages_of_core(self._core, self._now)
        for message in messages:
            assert self._terminal is None, "something after the terminal message"
            frame = encode_frame(1, [message])
            assert len(frame) <= MAX_FRAME_BYTES
            assert from_worker.decode(frame) == (1, [message]), "a message that does not survive its way"
            assert message.sequence == self._events, "a gap in the sequence"
            if isinstance(message, Chunk):
                self._count(message.events)
            else:
                self._terminal = message
        self._do(commands)

    def _count(self, events: list[RunEvent]) -> None:
        assert events
        self._events += len(events)
        self._characters += characters(events)
        self._text_length += sum(len(event) for event in events if isinstance(event, str))
        assert self._events <= self._sequence_limit
        assert self._characters <= self._character_limit

    def _verdict(self) -> str:
        match self._terminal:
            case Finished() as finished:
                assert finished.text_length == self._text_length
                _check_usage(finished.usage)
                return f"finished {finished.finish_reason}"
            case Failed() as failed:
                assert failed.reason
                assert len(failed.reason) < 3_000
                assert failed.retry_after is None or 0 <= failed.retry_after < math.inf
                _check_usage(failed.usage)
                return f"failed {failed.kind}"
            case None:
                raise AssertionError("no terminal message")
            case aborted:
                _check_usage(aborted.usage)
                return "aborted"


def _check_usage(usage: msgspec.Struct) -> None:
    *told, requests = msgspec.structs.astuple(usage)
    figures = [figure for figure in (*told, *requests.values()) if not isinstance(figure, str)]
    assert all(isinstance(figure, int) and figure >= 0 for figure in figures)
