"""Drives a run as its shell does, and checks what must always hold. Also builds what providers send."""

from __future__ import annotations

import json
import math
from typing import Any

from headrace.text.secret_mask import SecretMask
from headrace.types import Message, RunEvent
from headrace.wire.flow import characters
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Aborted,
    AbortMode,
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
from headrace_workers.runs.run_commands import SEND, Command, Commands
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from headrace_workers.runs.transcript import Transcript

SPAN = "sp_0123456789abcdef"
SSE = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_7"}
JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
FINISH_ONE = (Command.RELEASE, Command.SEND)
CLOSE_ONE = (Command.CLOSE, Command.SEND)


def sse(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return sse(model="m-1", choices=[{"index": 0, "delta": fields}])


def text(content: str) -> bytes:
    return delta(content=content)


def stop(reason: str = "stop") -> bytes:
    return sse(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(tokens: int) -> bytes:
    return sse(choices=[], usage={"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens})


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def received_by(core: ProviderRun, data: bytes, now: float) -> Commands:
    """Give a core the bytes of a read, as its shell does: as one HTTP chunk if the core can take it as such."""
    if core.outgoing.deltas.take_chunk(http_chunk(data), core.outgoing.pending):
        return SEND
    return core.received(data, now)


def messages_of_core(core: ProviderRun, now: float) -> tuple[list[Chunk | Terminal], Commands]:
    """Take the messages of a core, as its shell does."""
    chunk = core.outgoing.text_chunk()
    if chunk is None:
        return core.take(now)
    core.clocks.last_life = now
    return [chunk], ()


class Driven:
    """A run and its shell: carries out commands, records what is sent, and checks what must always hold."""

    def __init__(
        self,
        *,
        stream: bool = True,
        api: str = "openai-chat",
        sequence_limit: int = WINDOW_EVENTS,
        character_limit: int = WINDOW_CHARACTERS,
        api_key: str | None = None,
        transcript: Transcript | None = None,
        **limits: float,
    ) -> None:
        self.now = 0.0
        self.sequence_limit, self.character_limit = sequence_limit, character_limit
        request = RunRequest(provider="openai", model="m", messages=[Message("user", "x" * 40)], stream=stream)
        allowed = {"connect": math.inf, "first_chunk": math.inf, "idle": math.inf, "total": math.inf} | limits
        clocks = Clocks(ClockLimits(**allowed), 0.0)
        run = Run(SPAN, 1, 7, b"", sequence_limit, character_limit, api_key)
        self.core = ProviderRun(run, request, WIRE_FORMATS[api].api, clocks, SecretMask([api_key or ""]), transcript)
        self.sent: list[RunEvent] = []
        self._characters_sent = 0
        self.terminal: Terminal | None = None
        self.is_paused = False
        self.is_closed = False

    def carry_out(self, commands: Commands) -> Commands:
        """Do what the shell does, and return the commands."""
        for command in commands:
            match command:
                case Command.SEND:
                    self.take()
                case Command.PAUSE:
                    self.is_paused = True
                case Command.RESUME:
                    self.is_paused = False
                case Command.CLOSE | Command.RELEASE:
                    self.is_closed = True
        return commands

    def take(self) -> None:
        messages, commands = messages_of_core(self.core, self.now)
        for message in messages:
            assert self.terminal is None, "something after the terminal message"
            assert (message.span_id, message.attempt) == (SPAN, 1)
            assert message.sequence == len(self.sent)
            if isinstance(message, Chunk):
                assert message.events
                self.sent += message.events
                self._characters_sent += characters(message.events)
            else:
                self.terminal = message
        assert len(self.sent) <= self.sequence_limit
        assert self._characters_sent <= self.character_limit
        self.carry_out(commands)

    def respond(self, status: int = 200, headers: dict[str, str] | None = None) -> Driven:
        self.core.clocks.connected()
        self.carry_out(self.core.responded(status, SSE if headers is None else headers, self.now))
        return self

    def receive(self, *data: bytes) -> Commands:
        return self.carry_out(received_by(self.core, b"".join(data), self.now))

    def complete(self) -> Commands:
        return self.carry_out(self.core.completed(self.now))

    def fail(self, stage: str, reason: str = "reset") -> Commands:
        return self.carry_out(self.core.failed(stage, reason, self.now))

    def abort(self, mode: AbortMode = "close") -> Commands:
        return self.carry_out(self.core.aborted(mode, self.now))

    def credit(self, events: int, letters: int) -> Commands:
        self.sequence_limit += events
        self.character_limit += letters
        return self.carry_out(self.core.allow_more(Credit(SPAN, 1, self.sequence_limit, self.character_limit)))

    def due(self, now: float) -> Commands:
        self.now = now
        return self.carry_out(self.core.due(now))

    def sent_request(self) -> HttpRequest:
        return HttpRequest("http://x/y", (), b'{"contents": []}')

    @property
    def text(self) -> str:
        return "".join(event for event in self.sent if isinstance(event, str))

    @property
    def finished(self) -> Finished:
        assert isinstance(self.terminal, Finished), self.terminal
        return self.terminal

    @property
    def failure(self) -> Failed:
        assert isinstance(self.terminal, Failed), self.terminal
        return self.terminal

    @property
    def aborted(self) -> Aborted:
        assert isinstance(self.terminal, Aborted), self.terminal
        return self.terminal
