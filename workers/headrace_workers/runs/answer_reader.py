"""Reads a provider's answer, streamed or whole: turns the bytes of its body into events and a completion. Pure.

The run decides when reading stops and which events are sent. This module knows no clock and no credit.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import RunEvent
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.arriving_vectors import ArrivingVectors
from headrace_workers.providers.shared.answer_limits import (
    LIGHT,
    MAX_CONTINUATIONS,
    MAX_TOKEN,
    LimitError,
    too_large,
    weigh,
)
from headrace_workers.providers.shared.probabilities import weighed
from headrace_workers.providers.shared.request_parts import wants_logprobs, wants_several
from headrace_workers.providers.shared.sse import EventTooLargeError, SSEParser
from headrace_workers.providers.shared.text_span import TextSpan
from headrace_workers.providers.shared.token_logprobs import LogprobReader
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ContinuingApi,
    ProviderApi,
    ProviderFailedError,
    ProviderFailure,
    SteppedApi,
    StreamMapper,
)
from headrace_workers.runs.body_kind import BodyKind
from headrace_workers.runs.completeness import missing_content
from headrace_workers.runs.repeated_deltas import BLANK, RepeatedDeltas, learned
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.split_characters import SplitCharacters
from headrace_workers.runs.terminal_message import cut_short, unreadable
from headrace_workers.runs.whole_answer import check_length, events_of, is_content, is_cut_json, is_json, is_whole

UNREADABLE = (ProviderFailedError, EventTooLargeError, LimitError, RecursionError)
"""The exceptions for a response that cannot be read. RecursionError: a value is nested too deeply."""

_EVENTS_AT_ONCE = 8
"""Events that are mapped before the first question whether the turn may continue."""
_MOST_AT_ONCE = 32
"""Events between two later questions, at most."""
_SLICE = 256 * 1024
"""Bytes of a body that are parsed at once."""

_LEARNINGS = 4
"""How often the repeated bytes of a stream are learned before they are of use, at most."""
_READ_SINGLY = 3
"""Events of one read that are read one by one, to learn from them."""

_LINE_END = re.compile(rb"[\r\n]")

_LARGE = 1024 * 1024
"""Bytes of a whole answer. A larger one is read over several turns of the loop."""

_BLANKS = 1024
"""Bytes of blank lines that a long body may end with."""

WholeSteps = Generator[None, None, tuple[Completion, str | None]]
"""Reads a whole answer step by step. Returns it, and what is missing in it or None."""

Entries = list[tuple[str, bytes]]
"""Server-sent events: (name, data)."""


class AnswerReader:
    """Reads one answer. It may come in several responses, if the provider must be asked to continue it.

    Methods append what they read to their argument ``events``. ``mapper`` is None until a stream is opened.
    ``may_continue`` says whether the turn of the loop may go on; None: always. ``waiting`` are server-sent events that
    the turn had no time for. ``repeated`` reads the next piece instead of :meth:`read` if it has only text deltas; None
    where it cannot.
    """

    __slots__ = (
        "_api",
        "_arriving",
        "_continuations",
        "_continued_with",
        "_kept_before",
        "_learnings",
        "_logprobs",
        "_parser",
        "_repeated",
        "_request",
        "_response",
        "_split_characters",
        "_tail",
        "_text_span",
        "_unread",
        "mapper",
        "may_continue",
        "repeated",
        "waiting",
    )

    def __init__(self, api: ProviderApi, request: RunRequest, response: Response) -> None:
        self._api = api
        self._request = request
        self._response = response
        self._split_characters: SplitCharacters | None = None
        # The token of the last continuation. A response that repeats it would be continued for ever.
        self._continued_with: str | None = None
        self._continuations = 0
        self.mapper: StreamMapper | None = None
        self.may_continue: Callable[[], bool] | None = None
        self.waiting: Entries = []
        self._arriving = ArrivingVectors(len(request.inputs)) if request.inputs else None
        self._logprobs = LogprobReader() if wants_logprobs(request) else None
        self._unread: tuple[bytes, WholeSteps] | None = None  # a whole body, and the steps left to read it
        self._text_span: Callable[[str, bytes], TextSpan | None] | None = None  # of the mapper; None: learn no more
        self._repeated: RepeatedDeltas | None = None  # what was learned from the last event that the mapper was fed
        self.repeated: RepeatedDeltas | None = None
        self._learnings = _LEARNINGS
        self._kept_before = 0  # texts that the mapper had when it was learned
        self._tail = b""  # the beginning of the line that begins the next event

    @property
    def is_reading_whole(self) -> bool:
        """Whether a whole answer is being read over several turns."""
        return self._unread is not None

    @property
    def is_behind(self) -> bool:
        """Whether input waits for the next turn."""
        return bool(self.waiting) or self._unread is not None

    @property
    def is_continuation(self) -> bool:
        """Whether the current response continues an earlier one."""
        return self._continued_with is not None

    @property
    def wants_continuation(self) -> bool:
        """Whether the provider stopped at a limit of its own, and must be asked to continue."""
        return self.mapper is not None and self.mapper.continuation not in (None, self._continued_with)

    def check_continuation(self) -> None:
        """Raise LimitError if the answer was continued too often, or if the token for it is too long."""
        token = self.mapper.continuation if self.mapper is not None else None
        if self._continuations >= MAX_CONTINUATIONS:
            raise too_large(f"{MAX_CONTINUATIONS} continuations")
        if token is not None and len(token) > MAX_TOKEN:
            raise too_large(f"{MAX_TOKEN} characters in the token of a continuation")

    @property
    def has_end_of_former(self) -> bool:
        """Whether the end that the mapper knows is that of the earlier response, not of the current one."""
        return self.mapper is not None and self._continued_with == self.mapper.continuation is not None

    def open_stream(self) -> StreamMapper:
        """Open the stream if it is not open. Return its mapper."""
        if self.mapper is None:
            self.mapper = self._api.open_stream(self._request)
            self._parser = SSEParser()
            if self._logprobs is None:
                self._text_span = getattr(self.mapper, "text_span", None)
        return self.mapper

    def read(self, data: bytes, events: list[RunEvent]) -> None:
        """Read one piece of a stream. Raises one of UNREADABLE."""
        if self._text_span is None:
            self._read_any(data, events)
            return
        if self._tail:
            data, self._tail = self._tail + data, b""
            self.repeated = self._repeated
        if self.repeated is not None and (texts := self.repeated.take(data)) is not None:
            events += texts
        else:
            self._read_mixed(data, events)

    def _read_mixed(self, data: bytes, events: list[RunEvent]) -> None:
        """Read one piece of a stream. Learn from one of its first events which bytes are repeated."""
        if self._repeated is None and not self._learnings:
            self._text_span = None  # this stream repeats too little
        if not self._parser.is_between_events:
            head, blank, data = data.partition(BLANK)
            self._read_any(head + blank, events)
        count = 0
        while count < _READ_SINGLY and self._may_learn and self._repeated is None and BLANK in data:
            block, _, data = data.partition(BLANK)
            self._read_and_learn(block, events)
            count += 1
        if self._repeated is not None and BLANK in data:
            texts, data = self._repeated.take_first(data)
            if texts:
                events += texts
            else:
                self._forget()
        if self._repeated is not None and not _LINE_END.search(data) and len(data) < LIGHT:
            self._tail = data
            if data:
                self.repeated = None
        elif data:
            self._read_any(data, events)

    @property
    def _may_learn(self) -> bool:
        mapper = self.mapper
        if mapper is None or mapper.is_complete or mapper.has_end or self._text_span is None:
            return False
        return self._parser.is_between_events and not self.waiting and self._learnings > 0

    def _read_and_learn(self, block: bytes, events: list[RunEvent]) -> None:
        """Read one event, without its blank line. If it is a text delta, learn its other bytes."""
        before = len(events)
        self._read_any(block + BLANK, events)
        text_span = self._text_span
        if text_span is not None and len(events) == before + 1 and type(events[-1]) is str and self._may_learn:
            self.repeated = self._repeated = learned(block, text_span)
            self._learnings -= 1
            self._kept_before = 0 if self._repeated is None else len(self._repeated.kept)

    def _forget(self) -> None:
        """Something is read that may change the meaning of a delta: forget which bytes are repeated."""
        if self._repeated is not None:
            if len(self._repeated.kept) > self._kept_before:
                self._learnings = _LEARNINGS  # it was of use
            self.repeated = self._repeated = None

    def _read_any(self, data: bytes, events: list[RunEvent]) -> None:
        """Read one piece of a stream in the general way, with parser and mapper."""
        self._forget()
        if self.waiting:
            self.waiting += self._parser.feed(data)
        else:
            self._map(self._parser.feed(data), events)

    def _map(self, server_events: Entries, events: list[RunEvent]) -> None:
        mapper = self.mapper
        assert mapper is not None  # noqa: S101 - set when the response's head came
        before = len(events)
        try:
            if len(server_events) > _EVENTS_AT_ONCE or self._parser.has_large:
                self._map_many(mapper, server_events, events)
                return
            for name, data in server_events:
                mapper.feed(name, data, events)
                if mapper.is_complete:
                    return
        finally:
            if mapper.has_split_characters:
                self._join_split_characters(events, before)
            if self._logprobs is not None:
                self._take_logprobs(server_events[: len(server_events) - len(self.waiting)])

    def _take_logprobs(self, server_events: Entries) -> None:
        """Take the log probabilities out of events that were mapped. The mapper had large events without them."""
        if self._logprobs is not None:
            for name, data in server_events:
                self._logprobs.take(name, data)

    def _map_many(self, mapper: StreamMapper, server_events: Entries, events: list[RunEvent]) -> None:
        """Map many or large events. Events that this turn has no time for wait for the next."""
        # A large piece may hold only small events. Only large events are weighed one by one.
        is_each_weighed = self._parser.has_large and any(len(data) > LIGHT for _, data in server_events)
        at_once = 1 if is_each_weighed else _EVENTS_AT_ONCE
        feed = mapper.feed
        start, count = 0, len(server_events)
        while start < count:
            some = server_events[start : start + at_once]
            if is_each_weighed:
                some = [(some[0][0], weighed(some[0][1]))]
            for name, data in some:
                feed(name, data, events)
                if mapper.is_complete:
                    return
            start += at_once
            if start < count and self.may_continue is not None and not self.may_continue():
                self.waiting = server_events[start:]
                return
            if not is_each_weighed and at_once < _MOST_AT_ONCE:
                at_once *= 2

    def map_waiting(self, events: list[RunEvent]) -> None:
        """Map the events that waited for this turn. Raises one of UNREADABLE."""
        waiting, self.waiting = self.waiting, []
        self._map(waiting, events)

    def read_last(self, data: bytes, events: list[RunEvent]) -> None:
        """Read the last piece of a stream. Raises one of UNREADABLE.

        All of it is read in one turn of the loop. A long piece must therefore be a single event, which is weighed
        first.
        """
        if len(data) > LIGHT and any(end in data[:-_BLANKS] or end in data.strip() for end in (b"\n", b"\r")):
            raise too_large("one event in a response that does not say where its events end")
        self.may_continue = None  # the end of a body is reported once: read all of it now
        data, self._tail = self._tail + data, b""
        for start in range(0, len(data), _SLICE):
            self._map(self._parser.feed(data[start : start + _SLICE]), events)
        try:
            self._map(self._parser.finish(), events)
        except ProviderFailedError as error:
            error.failure = cut_short(error.failure)  # the last event lacks its end
            raise

    @property
    def has_end(self) -> bool:
        """Whether the stream has said that, or why, its answer ends."""
        return self.mapper is not None and (self.mapper.is_complete or self.mapper.has_end)

    def finish(self, events: list[RunEvent]) -> Completion:
        """Return the completion of a stream.

        Append the events that only its end completes. Raises one of UNREADABLE.
        """
        mapper = self.mapper
        assert mapper is not None  # noqa: S101 - only a stream is finished here
        before = len(events)
        try:
            return self._with_logprobs(mapper.finish(events))
        finally:
            if mapper.has_split_characters:
                self._join_split_characters(events, before)

    def _with_logprobs(self, completion: Completion) -> Completion:
        if self._logprobs is None:
            return completion
        return msgspec.structs.replace(completion, logprobs=self._logprobs.result())

    def end(self, events: list[RunEvent]) -> None:
        """Read nothing more. Append the halves of characters that still wait."""
        self._unread = None
        if self._split_characters is not None:
            self._split_characters.end(events)

    def take_vectors(self) -> None:
        """Take the complete vectors out of a body that is still coming. Raises one of UNREADABLE."""
        if self._arriving is not None:
            self._arriving.take(self._response.body)

    def read_whole(self, events: list[RunEvent]) -> Completion | ProviderFailure | None:
        """Read a body as one whole answer. Return how it ended.

        Return None if this turn has no time for all of it: then call :meth:`read_on` in the next turn.
        """
        body = self._response.take_body()
        if body.lstrip().startswith(b"<"):
            reason = (
                "the server answered with an HTML page instead of the API's answer; check the base URL, and any proxy"
            )
            return self._response.failure("provider_protocol", reason)
        self._unread = body, self._steps(body)
        return self.read_on(events)

    def _steps(self, body: bytes) -> WholeSteps:
        """Read a whole answer step by step. The loop may take another turn after each step; only large answers need it.

        Return the completion, and what is missing in it or None. Raises one of UNREADABLE.
        """
        is_large = len(body) > _LARGE
        unweighed = body
        if self._request.inputs and isinstance(self._api, SteppedApi):
            arrived = self._arriving.vectors if self._arriving is not None else ()
            completion = yield from self._api.read_steps(self._request, body, arrived)
        else:
            body = self._weighed(body)
            if is_large:
                yield
            try:
                completion = self._api.read_body(self._request, body)
            except UNREADABLE:
                if is_large:
                    yield  # next, it is read as a stream of one event
                raise
        check_length(completion)
        if is_large:
            yield
        if self._logprobs is not None:
            self._logprobs.take("", unweighed)
            completion = self._with_logprobs(completion)
            if is_large:
                yield
        missing = missing_content(body, completion, of_first=wants_several(self._request))
        if is_large:
            yield
        return completion, missing

    def read_on(self, events: list[RunEvent]) -> Completion | ProviderFailure | None:
        """Read more of a whole answer, as long as the turn may continue.

        Return how it ended, or None if it is not read yet.
        """
        assert self._unread is not None  # noqa: S101 - the run calls this only while a whole answer is being read
        body, steps = self._unread
        ended: Completion | ProviderFailure | None = None
        try:
            next(steps)
            while self.may_continue is None or self.may_continue():
                next(steps)
        except StopIteration as end:
            completion, missing = end.value
            if self._request.stream or missing is not None:
                events += events_of(completion)
            ended = completion if missing is None else self._response.failure("provider_protocol", missing)
        except LimitError as error:
            ended = unreadable(error, self._response.status)
        except UNREADABLE as error:
            ended = self._read_lone_event(body, error, events)
        if ended is not None:
            self._unread = None
            if isinstance(ended, ProviderFailure) and ended.kind == "provider_protocol" and is_cut_json(body):
                ended = cut_short(ended)
        return ended

    def holds_whole(self) -> bool:
        """Return whether the bytes of the body so far are a whole answer, or a whole error."""
        body = bytes(self._response.body)
        if self._arriving is not None and self._arriving.vectors:
            return is_json(body)  # do not read large vectors twice
        try:
            return is_whole(self._api, self._request, self._weighed(body))
        except LimitError:
            return True  # it is too large already: read no more of it

    def _weighed(self, body: bytes) -> bytes:
        """Return the body to read, after a check of its weight. Bodies of vectors are checked by their own reader."""
        return body if self._request.inputs else weighed(body)

    def read_error(self) -> ProviderFailure:
        """Return the failure that an error response describes."""
        response = self._response
        body = response.take_body()
        try:
            weigh(body)
        except LimitError:
            body = b""  # the status is enough
        return self._api.read_error(response.status, response.headers, body)

    @property
    def can_continue(self) -> bool:
        """Whether the wire format may ask the provider to continue an answer."""
        return hasattr(self._api, "continue_request")

    def continue_request(self, sent: HttpRequest) -> HttpRequest:
        """Return the request that continues the answer. Its response is read as part of the same answer."""
        assert self.mapper is not None  # noqa: S101 - the mapper asked for the continuation
        assert isinstance(self._api, ContinuingApi)  # noqa: S101 - its mapper has a continuation
        self._continuations += 1
        token = self._continued_with = self.mapper.continuation or ""
        self._forget()
        self._parser, self._tail = SSEParser(), b""
        self._response.kind = BodyKind.NONE
        return self._api.continue_request(sent, token)

    def _read_lone_event(self, body: bytes, error: Exception, events: list[RunEvent]) -> Completion | ProviderFailure:
        """Read JSON that is not a whole answer as a stream of one event. Some servers send short streams like this."""
        failure = unreadable(error, self._response.status)
        if failure.kind != "provider_protocol":
            return failure
        self.open_stream()
        ended: Completion | ProviderFailure = failure
        with contextlib.suppress(*UNREADABLE):
            self.read_last(body, events)
            ended = self.finish(events)
        if not any(map(is_content, events)):
            ended = failure
        partial_text = error.partial_text if isinstance(error, ProviderFailedError) else ""
        if ended is failure and partial_text:
            events[:] = [well_formed_text(partial_text)]
        return ended

    def _join_split_characters(self, events: list[RunEvent], start: int) -> None:
        if self._split_characters is None:
            self._split_characters = SplitCharacters()
        self._split_characters.join(events, start)
