"""The provider in virtual time: its answers are drawn before the start.

Records what each call was sent, and when it was closed.

It stands in place of the worker's HTTP client too. Nothing of it fails but by its script.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from headrace_workers.http.http_client import Receiver
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.runs.live_run import ClientRun
from tests.simulation.loops import new_descriptor
from tests.simulation.simulated_sockets import descriptors_of
from tests.simulation.world import World

AnswerKind = Literal[
    "whole", "refused", "error", "busy", "cut", "eof", "stall", "silent", "garbage", "error_event", "crash"
]
"""``busy`` is an error after which the run may be tried again. ``silent`` says nothing at all, ``stall`` falls silent in the middle, ``crash`` is a prompt that kills its worker."""

_SSE = {"content-type": "text/event-stream"}
_JSON = {"content-type": "application/json"}
_LIMITS = {
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "90",
    "x-ratelimit-reset-requests": "6s",
}
_SPLIT_CHANCE = 0.2
_SYLLABLES = ("a", "the ", "é", "\u2028", "\\n", "😀", '\\"q\\"', "lorem ipsum ")


class Step(msgspec.Struct):
    """One thing that the provider does, so many seconds after the one before. ``text`` is what it says by it."""

    delay: float
    do: Literal["head", "data", "complete", "fail"]
    data: bytes = b""
    text: str = ""
    status: int = 200
    headers: dict[str, str] = {}


class ScriptedAnswer(msgspec.Struct):
    """How one call is answered."""

    kind: AnswerKind
    connect: float
    steps: list[Step]
    text: str = ""


class Call:
    """One call, as the provider's log has it."""

    __slots__ = (
        "answer",
        "attempt",
        "closed_at",
        "held_until",
        "host",
        "is_hedge",
        "last_sent",
        "sent_length",
        "span_id",
        "started_at",
    )

    def __init__(self, span_id: str, attempt: int, answer: ScriptedAnswer, host: str, now: float) -> None:
        self.span_id = span_id
        self.attempt = attempt
        self.answer = answer
        self.host = host
        self.started_at = now
        self.sent_length = 0
        self.last_sent: float | None = None
        """When the provider last sent something, which starts the run's idle clock."""
        self.held_until: float | None = None
        """Until when the run did not read, for want of credit; infinity while it does not."""
        self.closed_at: float | None = None
        self.is_hedge = False
        """It began beside another call of its run."""


class ScriptedProvider:
    """All calls of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: dict[tuple[str, int], Call] = {}
        self.says_limits = False
        """Whether each response tells the limits of the key."""
        self.answer: Callable[[str, int], ScriptedAnswer]
        """Takes the number of a run's call; returns the answer to it."""
        self.on_call: Callable[[Call], None]
        self.on_close: Callable[[Call], None]

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls.values() if call.closed_at is None]

    def begin(self, span_id: str, attempt: int) -> Call:
        span_id, _, hedge = span_id.partition(":")  # a hedge is a call of its run
        number = sum(known == span_id for known, _ in self.calls)
        call = Call(span_id, attempt, self.answer(span_id, number), self.world.current.name, self.world.now)
        call.is_hedge = bool(hedge)
        self.on_call(call)
        self.calls[span_id, attempt] = call
        return call

    def close(self, call: Call) -> None:
        if call.closed_at is None:
            call.closed_at = self.world.now
            self.on_close(call)


class SimHttp:
    """In place of ``HttpClient``."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider

    def send(self, request: HttpRequest, receiver: Receiver, on_whole: object = None) -> SimExchange:  # noqa: ARG002 - scripts say what comes
        run: ClientRun = receiver  # type: ignore[assignment] # a worker's only receivers
        return SimExchange(self._provider, self._provider.begin(run.span_id, run.attempt), receiver)

    def close(self) -> None:
        """Nothing is held open between exchanges."""


class SimExchange:
    """In place of an ``Exchange``: what the kernel and the HTTP client hold of one response."""

    def __init__(self, provider: ScriptedProvider, call: Call, receiver: Receiver) -> None:
        world = provider.world
        self.is_connected = False
        self.is_read = False  # the end is told in a turn of its own
        self._world = world
        self._provider = provider
        self._call = call
        self._host = world.current
        self._receiver: Receiver | None = receiver
        self._steps = deque(call.answer.steps)
        self._inbox: list[Step] = []
        self._is_paused = False
        self._descriptors = descriptors_of(self._host)
        self._fd = new_descriptor(world)
        self._descriptors.add_reader(self._fd, self._read)
        self._host.at_end.append(self._died)
        world.at(world.now + call.answer.connect, self._connected)

    # What the run asks.

    def pause(self) -> None:
        self._is_paused = True
        self._call.held_until = float("inf")

    def resume(self) -> None:
        self._is_paused = False
        self._call.held_until = self._world.now
        if self._inbox:
            self._descriptors.signal(self._fd)

    def close(self) -> None:
        self._receiver = None
        self._inbox.clear()
        self._descriptors.remove_reader(self._fd)
        self._provider.close(self._call)

    release = close

    # What the provider does.

    def _connected(self, _: None) -> None:
        if self._receiver is None or not self._host.is_alive:
            return
        self.is_connected = True
        if self._call.answer.kind == "crash":
            self._host.kill("signal 11")
            return
        self._schedule()

    def _schedule(self) -> None:
        if self._steps:
            self._world.at(self._world.now + self._steps[0].delay, self._step)

    def _step(self, _: None) -> None:
        if self._receiver is None or not self._host.is_alive:
            return
        step = self._steps.popleft()
        call = self._call
        call.last_sent = self._world.now
        call.sent_length += len(step.text)
        self._inbox.append(step)
        if not self._is_paused:
            self._descriptors.signal(self._fd)
        self._schedule()

    def _read(self) -> None:
        """Hand over what has come: everything that lies in the kernel at once."""
        if self._is_paused:
            return
        inbox, self._inbox = self._inbox, []
        data: list[bytes] = []
        for step in inbox:
            if step.do == "data":
                data.append(step.data)
                continue
            self._deliver(data)
            if self._receiver is None:
                return
            match step.do:
                case "head":
                    limits = _LIMITS if self._provider.says_limits else {}
                    headers = {**(_SSE if step.data else _JSON), **limits, **step.headers}
                    self._receiver.on_response(step.status, headers)
                case "complete":
                    self._receiver.on_complete()
                case "fail":
                    self._receiver.on_failure("read", "the connection was reset")
        self._deliver(data)

    def _deliver(self, data: list[bytes]) -> None:
        if data and self._receiver is not None:
            body = b"".join(data)
            data.clear()
            if not self._receiver.on_chunk(b"%x\r\n%b\r\n" % (len(body), body)):
                self._receiver.on_bytes(body)

    def _died(self) -> None:
        self._provider.close(self._call)


# Answers.


def draw_answer(rng: random.Random, kind: AnswerKind, tag: str, *, streams: bool, is_large: bool) -> ScriptedAnswer:
    """Return an answer of a kind. ``tag`` makes its text another than that of any other answer."""
    answer = ScriptedAnswer(kind, rng.choice((0.001, 0.02, 0.2)) * rng.random(), [])
    head = rng.choice((0.01, 0.1, 1.0)) * rng.random()
    if kind in {"error", "busy"}:
        of_kind = (
            (408, 409, 429, 500, 502, 503, 504, 529)
            if kind == "busy"
            else (400, 401, 403, 404, 413, 429, 500, 503, 529)
        )
        status = rng.choice(of_kind)
        headers = {"retry-after-ms": str(rng.choice((1, 100, 2000)))} if kind == "busy" and rng.random() < 0.5 else {}
        body = json.dumps({"error": {"message": "no", "code": str(status)}}).encode()
        first = Step(head, "head", status=status, headers=headers)
        answer.steps = [first, Step(0.0, "data", body), Step(0.0, "complete")]
    elif kind == "refused":
        answer.steps = [Step(head, "fail")]
    elif kind not in {"silent", "crash"}:
        answer.steps = [Step(head, "head", b"sse" if streams else b"")]
        body_steps = _stream(rng, kind, tag, is_large=is_large) if streams else _whole(rng, kind, tag)
        answer.steps += body_steps
        answer.text = "".join(step.text for step in answer.steps)
    return answer


def _stream(rng: random.Random, kind: AnswerKind, tag: str, *, is_large: bool) -> list[Step]:
    pace = rng.choice((0.0005, 0.005, 0.05, 0.4))
    steps: list[Step] = []
    count = rng.randint(4, 12) if is_large else rng.randint(0 if kind == "stall" else 1, 8)
    for number in range(count):
        data, text = _events(rng, f"{tag}{number}", is_large=is_large)
        steps += _split(rng, Step(pace * rng.random() * 2, "data", data, text))
    return [*steps, *_ending(rng, kind, pace)]


def _events(rng: random.Random, tag: str, *, is_large: bool) -> tuple[bytes, str]:
    """Return some server-sent events, and the text in them."""
    count = rng.randint(1, 4)
    padding = ""
    if is_large:
        # Enough of either to use up a window: of events, or of characters.
        count, padding = (rng.randint(20, 60), "") if rng.random() < 0.5 else (2, "x" * rng.randint(8_000, 24_000))
    lines: list[str] = []
    texts: list[str] = []
    for place in range(count):
        syllable = _SYLLABLES[int(rng.random() * len(_SYLLABLES))]
        escaped = f"{tag}.{place}{syllable}{padding}"
        lines.append(f'data: {{"choices":[{{"index":0,"delta":{{"content":"{escaped}"}}}}]}}\n\n')
        texts.append(escaped.replace("\\n", "\n").replace('\\"', '"'))
    return "".join(lines).encode(), "".join(texts)


def _ending(rng: random.Random, kind: AnswerKind, pace: float) -> list[Step]:
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}\n\n'
    match kind:
        case "whole":
            data = (
                finish + (usage if rng.random() < 0.8 else b"") + (b"data: [DONE]\n\n" if rng.random() < 0.9 else b"")
            )
            return [Step(pace, "data", data), Step(0.0, "complete")]
        case "cut":
            return [Step(pace, "fail")]
        case "eof":
            return [Step(pace, "complete")]
        case "garbage":
            return [Step(pace, "data", b"data: {no json\n\ndata: \xff\xfe\n\n"), Step(0.0, "complete")]
        case "error_event":
            return [Step(pace, "data", b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n')]
        case _:
            return []


def _whole(rng: random.Random, kind: AnswerKind, tag: str) -> list[Step]:
    """Return a body for a run that does not stream."""
    choice = {"index": 0, "message": {"role": "assistant", "content": tag}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    pace = rng.choice((0.01, 0.5)) * rng.random()
    match kind:
        case "whole":
            return [Step(pace, "data", body, tag), Step(0.0, "complete")]
        case "cut":
            return [Step(pace, "data", body[:20], tag), Step(0.0, "fail")]
        case "stall":
            return []
        case _:
            return [Step(pace, "data", b"{no json", tag), Step(0.0, "complete")]


def _split(rng: random.Random, step: Step) -> list[Step]:
    """Return a step in one piece or two, split anywhere: within a character too."""
    if rng.random() > _SPLIT_CHANCE:
        return [step]
    place = rng.randint(1, len(step.data) - 1)
    return [Step(step.delay, "data", step.data[:place], step.text), Step(0.0005, "data", step.data[place:])]
