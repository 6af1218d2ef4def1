"""Text that goes from a read to a chunk in few steps: credit, limits, clocks and the span hold as in the general way."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.types import ReasoningDelta, RunEvent
from headrace.wire.messages import Chunk, Credit, Terminal
from headrace_workers.http.direct_exchange import DirectExchange
from headrace_workers.http.http1_connection import Http1Connection
from headrace_workers.providers.shared.answer_limits import MAX_WIDE_TEXT
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.repeated_deltas import NO_DELTAS
from headrace_workers.runs.run_commands import SEND, Command, Commands
from headrace_workers.runs.transcript import Transcript
from tests.workers import corpus
from tests.workers.http.test_lone_chunks import HEAD, Quiet
from tests.workers.runs.driven import SPAN, Driven, delta, http_chunk, received_by, text
from tests.workers.runs.test_repeated_deltas import CHAT_ENDS, ENVELOPES, ODD_CONTENT, STREAMS, bodies, format_of

PLENTY = 1 << 40


def flowing(**settings: Any) -> Driven:
    """A run whose next text may go the short way."""
    run = Driven(**settings).respond()
    run.receive(text("a"))
    run.receive(text("b"))
    assert run.core.outgoing.deltas is not NO_DELTAS
    return run


def goes_short(run: Driven, data: bytes) -> bool:
    """Give a read to a run. Return whether it went the short way: then nothing has left so far."""
    before = len(run.core.outgoing.pending)
    commands = received_by(run.core, data, run.now)
    is_short = commands is SEND and len(run.core.outgoing.pending) > before
    run.carry_out(tuple(command for command in commands if command is not Command.SEND))
    return is_short


class WireRun:
    """A run behind a real HTTP connection. With ``short`` False, each read is parsed and no text flows."""

    def __init__(self, *, short: bool, events: int, letters: int, api: str = "openai-chat") -> None:
        quiet: Any = Quiet()
        self.run = Driven(api=api, sequence_limit=events, character_limit=letters, transcript=Transcript())
        self.taken = 0  # chunks that went around the parser
        self.transcript = self.run.core._ending.transcript
        self.lengths: list[int] = []
        self._short = short
        self._ready = False
        self._connection = Http1Connection(quiet, quiet, 1.0)
        self._connection.connection_made(quiet)
        receiver: Any = self
        self.exchange = DirectExchange(receiver, b"")
        self._connection.start(self.exchange, is_reused=False)
        self.run.core.clocks.connected()

    def feed(self, data: bytes) -> None:
        """Read, and end the turn."""
        self.run.now += 0.001
        if self._connection.exchange is not None:
            self._connection.data_received(data)
        self.end_turn()

    def end_turn(self) -> None:
        if self._ready:
            self._ready = False
            if not self._short:
                self.run.core.outgoing.stop()
            self.run.take()
        self.lengths.append(len("".join(event for event in self.run.sent if isinstance(event, str))))

    def credit(self, events: int, letters: int) -> None:
        run = self.run
        run.sequence_limit += events
        run.character_limit += letters
        self._do(run.core.allow_more(Credit(SPAN, 1, run.sequence_limit, run.character_limit)))
        self.end_turn()

    def _do(self, commands: Commands) -> None:
        for command in commands:
            match command:
                case Command.SEND:
                    self._ready = True
                case Command.CLOSE:
                    self.exchange.close()
                case Command.RELEASE:
                    self.exchange.release()
                case _:
                    pass
        if not self._short:
            self.run.core.outgoing.deltas = NO_DELTAS

    # As the receiver.

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        self._do(self.run.core.responded(status, headers, self.run.now))

    def on_chunk(self, data: bytes) -> bool:
        outgoing = self.run.core.outgoing
        if outgoing.deltas.take_chunk(data, outgoing.pending):
            self._ready = True
            self.taken += 1
            return True
        return False

    def on_bytes(self, data: bytes) -> None:
        self._do(self.run.core.received(data, self.run.now))

    def on_complete(self) -> None:
        self._do(self.run.core.completed(self.run.now))

    def on_failure(self, stage: str, reason: str) -> None:
        self._do(self.run.core.failed(stage, reason, self.run.now))


Outcome = tuple[list[int], str, list[RunEvent], Terminal | None, str, float | None]


def outcome(wire: WireRun) -> Outcome:
    run = wire.run
    assert wire.transcript is not None
    others: list[RunEvent] = [event for event in run.sent if not isinstance(event, str)]
    return wire.lengths, run.text, others, run.terminal, wire.transcript.assembled().text, run.core.clocks.last_life


WORDS = st.one_of(*[st.sampled_from([b'"a"', b'"tok "', b'"\xc3\xa9\\n"', b'"longer text"'])] * 9, ODD_CONTENT)
PLAIN_BODIES = st.tuples(st.lists(WORDS, min_size=5, max_size=30), st.sampled_from(CHAT_ENDS)).map(
    lambda parts: b"".join(ENVELOPES[0][0] + word + ENVELOPES[0][1] for word in parts[0]) + parts[1]
)
STEPS = st.lists(st.one_of(st.just(None), st.tuples(st.integers(0, 9), st.integers(0, 40))), max_size=30)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(PLAIN_BODIES, PLAIN_BODIES, bodies(ENVELOPES, CHAT_ENDS)),
    st.lists(st.integers(0, 1 << 20), max_size=6),
    STEPS,
    st.sampled_from([(64, 65536), (3, 20), (0, 0)]),
)
def test_any_stream_has_the_same_text_at_the_same_time_and_the_same_end(
    body: bytes, cuts: list[int], steps: list[tuple[int, int] | None], credit: tuple[int, int]
) -> None:
    """Each event comes as one HTTP chunk, in a read of its own, where no cut is. Credit comes between the reads."""
    stream = b"".join(http_chunk(event + b"\n\n") for event in body.split(b"\n\n") if event) + b"0\r\n\r\n"
    edges = sorted({0, len(stream), *_chunk_ends(stream, body), *(cut % (len(stream) + 1) for cut in cuts)})
    reads = [HEAD, *(stream[start:end] for start, end in itertools.pairwise(edges))]
    outcomes = []
    for short in (True, False):
        wire = WireRun(short=short, events=credit[0], letters=credit[1])
        for data, step in itertools.zip_longest(reads, steps):
            if data is not None:
                wire.feed(data)
            if step is not None:
                wire.credit(*step)
        for _ in range(3):
            wire.credit(PLENTY, PLENTY)
        outcomes.append(outcome(wire))
    assert outcomes[0] == outcomes[1]


@corpus.needs_recordings
def test_a_recorded_stream_has_the_same_text_and_the_same_end() -> None:
    """Each event comes as one HTTP chunk in a read of its own. Most streams go the short way in part."""
    short_streams = streams = 0
    for name in STREAMS:
        case = corpus.load(name)
        if case.status != 200 or case.body.count(b"data:") < 20:
            continue
        reads = [http_chunk(event + b"\n\n") for event in case.body.split(b"\n\n") if event]
        outcomes = []
        for short in (True, False):
            wire = WireRun(short=short, events=PLENTY, letters=PLENTY, api=format_of(name))
            for data in [HEAD, *reads, b"0\r\n\r\n"]:
                wire.feed(data)
            outcomes.append(outcome(wire))
            short_streams += wire.taken > 0
        assert outcomes[0] == outcomes[1], name
        streams += 1
    assert short_streams > streams / 3


def _chunk_ends(stream: bytes, body: bytes) -> list[int]:
    sizes = [len(http_chunk(event + b"\n\n")) for event in body.split(b"\n\n") if event]
    return [*itertools.accumulate(sizes), len(stream)]


def test_text_flows_from_the_third_delta_on() -> None:
    run = flowing()
    assert goes_short(run, text("c"))
    run.take()
    assert run.text == "abc"


def test_text_flows_only_while_credit_is_left_after_it() -> None:
    run = flowing(sequence_limit=4)
    assert goes_short(run, text("c"))
    run.take()
    assert goes_short(run, text("d"))
    run.take()
    assert (run.text, run.core.outgoing.flows_until) == ("abcd", 0)
    run.receive(text("e"))
    assert run.text == "abcd"
    run.credit(5, 0)
    assert run.text == "abcde"
    run.receive(text("f"))
    assert goes_short(run, text("g"))


def test_a_long_text_that_flows_is_cut_at_the_credit() -> None:
    run = flowing(character_limit=5)
    assert goes_short(run, text("cdefgh"))
    run.take()
    assert run.text == "abcde"
    run.credit(0, 100)
    assert run.text == "abcdefgh"


def test_another_event_ends_the_short_way_until_the_next_delta_is_learned() -> None:
    run = flowing()
    run.receive(delta(reasoning="hm"))
    assert run.sent[-1] == ReasoningDelta("hm")
    assert run.core.outgoing.deltas is NO_DELTAS
    run.receive(text("c"))
    assert goes_short(run, text("d"))


def test_nothing_flows_after_the_run_was_aborted_or_stopped_or_has_failed() -> None:
    run = flowing()
    run.abort()
    assert not goes_short(run, text("c"))
    run = flowing()
    run.abort("drain")
    assert not goes_short(run, text("c"))
    run = flowing()
    run.carry_out(run.core.stopped("it stops", run.now))
    assert not goes_short(run, text("c"))
    run = flowing()
    run.fail("read")
    assert not goes_short(run, text("c"))
    run = flowing()
    run.core.broke("odd")
    assert not goes_short(run, text("c"))
    assert run.core.outgoing.text_chunk() is None


def test_text_that_flowed_before_an_abort_is_not_sent_and_stays_in_the_transcript() -> None:
    transcript = Transcript()
    run = flowing(transcript=transcript)
    assert goes_short(run, text("c"))
    run.abort()
    assert (run.text, transcript.assembled().text) == ("ab", "abc")


def test_a_run_stops_reading_when_its_client_gives_no_credit() -> None:
    run = flowing(sequence_limit=3)
    for _ in range(400):
        run.receive(text("x" * 400))
        if run.is_paused:
            break
    assert run.is_paused
    assert not goes_short(run, text("c"))


def test_the_idle_clock_starts_at_the_last_text_that_flowed() -> None:
    run = flowing(idle=10.0)
    for now in (8.0, 16.0, 24.0):
        run.now = now
        assert goes_short(run, text("c"))
        run.take()
    assert run.due(33.9) == ()
    run.due(34.0)
    assert run.failure.clock == "idle"


def test_a_clock_that_is_looked_at_before_the_turn_ends_knows_of_the_text_that_has_come() -> None:
    run = flowing(idle=10.0)
    run.now = 10.0
    assert goes_short(run, text("c"))
    assert run.due(10.0) == ()
    run.take()
    assert run.due(19.9) == ()
    assert run.text == "abc"


def test_the_readers_clock_starts_at_the_last_text_that_flowed() -> None:
    run = flowing(sequence_limit=3, reader=5.0)
    run.now = 100.0
    assert goes_short(run, text("c"))
    run.fail("read")
    run.take()
    assert run.failure.sequence == 3
    run = flowing(sequence_limit=3, reader=5.0)
    run.now = 100.0
    assert goes_short(run, text("c"))
    assert goes_short(run, text("d"))
    run.core.failed("read", "reset", run.now)
    run.take()
    assert run.due(104.9) == ()
    assert run.terminal is None


def test_a_stream_flows_no_more_near_the_limits_of_an_answer() -> None:
    outgoing = OutgoingEvents(PLENTY, PLENTY)
    outgoing.flow()
    outgoing.pending.append("a")
    chunk = outgoing.text_chunk()
    assert isinstance(chunk, Chunk)
    assert chunk.events == ["a"]
    outgoing.pending.append("b" * MAX_WIDE_TEXT)
    assert outgoing.text_chunk() is None
    assert outgoing.take()[0] == 1
    assert outgoing.flows_until == 0
    outgoing.flow()
    assert outgoing.flows_until == 0
    outgoing = OutgoingEvents(PLENTY, PLENTY)
    outgoing.sequence = 500_000
    outgoing.flow()
    assert outgoing.flows_until == 0


def test_events_that_were_merged_dropped_or_left_all_count() -> None:
    outgoing = OutgoingEvents(2, 2)
    outgoing.pending += ["a", "b", "c"]
    outgoing.take()
    assert outgoing.came == 3
    outgoing.pending += ["d", "e"]
    outgoing.waiting_is_full()
    assert (outgoing.pending, outgoing.came) == (["cde"], 5)
    outgoing.drop()
    outgoing.pending += ["f", "g"]
    outgoing.drop_all_but_last()
    assert (outgoing.pending, outgoing.came) == (["g"], 7)
