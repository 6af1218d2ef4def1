"""Reads the log probabilities of an answer's tokens: streamed or whole, of all wire formats. Pure.

Only a run that asked for log probabilities has a reader. All other runs do not decode them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed
from headrace.types import TokenLogprob, TopLogprob
from headrace_workers.providers.shared.answer_limits import (
    LIGHT,
    MAX_LOGPROB_ENTRIES,
    MAX_LOGPROBS,
    MIB,
    too_large,
    weigh_numbers,
)
from headrace_workers.providers.shared.lenient_json import UNREADABLE, json_text, loads, loads_with_halves
from headrace_workers.providers.shared.probabilities import Probable, ProbableAnswer, ProbableItem
from headrace_workers.providers.shared.provider_errors import protocol_failure
from headrace_workers.providers.shared.unread_content import elements_of, is_other, object_in, text_in

_KEY = b"ogprobs"
_DELTA = "response.output_text.delta"
_ITEM_DONE = "response.output_item.done"
_NONE = (b"", b"null", b"[]", b"{}")
_MAX_BYTE = 255


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    """A token in Google's form. Its JSON leaves out fields with their default value."""

    token: str = ""
    log_probability: float = 0.0


class _Candidates(msgspec.Struct, gc=False):
    candidates: list[_Candidate] = []


class _Said(msgspec.Struct, gc=False):
    """The log probabilities of a choice of Chat Completions, or of a candidate of Google.

    ``tokens`` and the two fields after it are the form of the API before Chat Completions, which some servers send.
    """

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    chosen_candidates: list[_Candidate] | None = msgspec.field(default=None, name="chosenCandidates")
    top_candidates: list[_Candidates] | None = msgspec.field(default=None, name="topCandidates")


_decode_answer = msgspec.json.Decoder(ProbableAnswer).decode
_decode_answers = msgspec.json.Decoder(list[ProbableAnswer]).decode
_decode_said = msgspec.json.Decoder(_Said).decode
_decode_list = msgspec.json.Decoder(list[TokenLogprob]).decode


class _Size(msgspec.Struct, frozen=True):
    """The size of log probabilities: bytes of their JSON, and tokens with their alternatives."""

    bytes: int = 0
    entries: int = 0

    def plus(self, more: _Size) -> _Size:
        return _Size(self.bytes + more.bytes, self.entries + more.entries)

    def check(self) -> None:
        """Raise LimitError if it is too much."""
        advice = "ask for a shorter answer, or for fewer top_logprobs"
        if self.bytes > MAX_LOGPROBS:
            raise too_large(f"{MAX_LOGPROBS // MIB} MiB of log probabilities", advice)
        if self.entries > MAX_LOGPROB_ENTRIES:
            raise too_large(f"{MAX_LOGPROB_ENTRIES} log probabilities", advice)


class LogprobReader:
    """Collects the log probabilities of one answer, event by event, or from a whole body.

    The Responses API sends them in deltas, and again in each whole item and in the whole response: what comes later
    replaces what came before.
    """

    __slots__ = ("_arriving", "_arriving_size", "_done", "_done_size")

    def __init__(self) -> None:
        self._done: list[TokenLogprob] = []  # of whole items
        self._done_size = _Size()
        self._arriving: list[TokenLogprob] = []  # of pieces since then
        self._arriving_size = _Size()

    def take(self, name: str, data: bytes) -> None:
        """Take an event, or a whole body. ``name`` is the event's name, or empty.

        Raises LimitError if there is too much of it, ProviderFailedError if the log probabilities cannot be read.
        """
        if _KEY not in data:
            return
        for answer in _answers_in(data):
            self._take(answer, answer.kind if isinstance(answer.kind, str) and answer.kind else name)

    def result(self) -> list[TokenLogprob] | None:
        """Return the log probabilities of all tokens, in their order; None if the provider sent none."""
        return [*self._done, *self._arriving] or None

    def _take(self, answer: ProbableAnswer, kind: str) -> None:
        self._add(_of_first(answer.choices), "logprobs")
        self._add(_of_first(answer.candidates), "logprobs_result")
        if kind == _DELTA:
            self._read(answer.logprobs)
        if kind == _ITEM_DONE and answer.item is not None:
            self._end_item(answer.item)
        output = answer.output or (answer.response.output if answer.response is not None else None)
        if output and any(_is_given(part.logprobs) for item in output for part in item.content or ()):
            self._done, self._done_size = [], _Size()
            self._start_anew()
            for item in output:
                self._add(item.content or (), "logprobs")

    def _end_item(self, item: ProbableItem) -> None:
        """Take a whole item in the place of its deltas, unless it has no log probabilities."""
        if any(_is_given(part.logprobs) for part in item.content or ()):
            self._start_anew()
            self._add(item.content or (), "logprobs")
        self._done += self._arriving
        self._done_size = self._done_size.plus(self._arriving_size)
        self._start_anew()

    def _start_anew(self) -> None:
        self._arriving, self._arriving_size = [], _Size()

    def _add(self, places: Iterable[Probable], field: str) -> None:
        for place in places:
            self._read(getattr(place, field))

    def _read(self, raw: msgspec.Raw) -> None:
        if not _is_given(raw):
            return
        said = bytes(raw)
        self._arriving_size = self._arriving_size.plus(_Size(len(said), said.count(b"{")))
        self._done_size.plus(self._arriving_size).check()
        if len(said) > LIGHT:
            weigh_numbers(said)
        self._arriving += _tokens_in(said)


def _answers_in(data: bytes) -> list[ProbableAnswer]:
    """Return the answers in an event or a body; none if it is no JSON: the mapper deals with that."""
    is_list = data.lstrip()[:1] == b"["
    try:
        return _decode_answers(data) if is_list else [_decode_answer(data)]
    except UNREADABLE:
        pass
    try:
        mended = json_text(well_formed(loads_with_halves(data, keeps_infinity=True))).encode()
        return _decode_answers(mended) if is_list else [_decode_answer(mended)]
    except (ValueError, *UNREADABLE):
        return []


def _of_first(choices: Sequence[Probable] | None) -> Sequence[Probable]:
    """Return the choices that belong to the first answer."""
    return [choice for choice in choices or () if not is_other(choice.index)]


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in _NONE


def _tokens_in(said: bytes) -> list[TokenLogprob]:
    try:
        if said.startswith(b"["):
            return _decode_list(said)
        chosen = _decode_said(said)
    except UNREADABLE:
        return _tokens_of(_loaded(said))
    tokens = [*(chosen.content or ()), *(chosen.refusal or ())]
    if chosen.tokens:
        tokens += _of_columns(chosen.tokens, chosen.token_logprobs or [], chosen.top_logprobs or [])
    return tokens + _of_google(chosen.chosen_candidates or [], chosen.top_candidates or [])


def _of_columns(tokens: list[str], logprobs: list[float], top: Sequence[dict[str, float] | None]) -> list[TokenLogprob]:
    if len(tokens) != len(logprobs):
        raise protocol_failure(f"there are {len(tokens)} tokens with {len(logprobs)} log probabilities")
    found: list[TokenLogprob] = []
    for place, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
        others = (top[place] if place < len(top) else None) or {}
        alternatives = [TopLogprob(other, figure) for other, figure in others.items()]
        found.append(TokenLogprob(token, logprob, None, alternatives))
    return found


def _of_google(chosen: list[_Candidate], top: list[_Candidates]) -> list[TokenLogprob]:
    tokens: list[TokenLogprob] = []
    for place, candidate in enumerate(chosen):
        others = top[place].candidates if place < len(top) else []
        alternatives = [TopLogprob(other.token, other.log_probability) for other in others]
        tokens.append(TokenLogprob(candidate.token, candidate.log_probability, None, alternatives))
    return tokens


# The slow way, for log probabilities in JSON with mistakes: infinite numbers, halves of characters, null for a list.


def _loaded(said: bytes) -> Any:
    try:
        return loads(said)
    except ValueError:
        raise protocol_failure("the log probabilities are not JSON") from None


def _tokens_of(value: Any) -> list[TokenLogprob]:
    if isinstance(value, list):
        return [_token_of(entry) for entry in value]
    said = object_in(value, "logprobs")
    entries = [*elements_of(said.get("content"), "logprobs"), *elements_of(said.get("refusal"), "logprobs")]
    entries += _columns_of(said)
    tops = list(elements_of(said.get("topCandidates"), "topCandidates"))
    for place, entry in enumerate(elements_of(said.get("chosenCandidates"), "chosenCandidates")):
        others = object_in(tops[place], "topCandidates") if place < len(tops) else {}
        entries.append(object_in(entry, "a candidate") | {"top_logprobs": others.get("candidates")})
    return [_token_of(entry) for entry in entries]


def _columns_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    tokens = list(elements_of(said.get("tokens"), "tokens"))
    logprobs = list(elements_of(said.get("token_logprobs"), "token_logprobs"))
    tops = list(elements_of(said.get("top_logprobs"), "top_logprobs"))
    entries: list[dict[str, Any]] = []
    for place, token in enumerate(tokens):
        others = object_in(tops[place], "top_logprobs") if place < len(tops) else {}
        entries.append(
            {
                "token": token,
                "logprob": logprobs[place] if place < len(logprobs) else None,
                "top_logprobs": [{"token": other, "logprob": figure} for other, figure in others.items()],
            }
        )
    return entries


def _token_of(value: Any) -> TokenLogprob:
    entry = object_in(value, "the log probability of a token")
    others = [_top_of(other) for other in elements_of(entry.get("top_logprobs"), "top_logprobs")]
    own = _top_of(entry)
    return TokenLogprob(own.token, own.logprob, own.bytes, others)


def _top_of(value: Any) -> TopLogprob:
    entry = object_in(value, "the log probability of a token")
    said = entry.get("logprob", entry.get("logProbability"))
    if said is None and "logprob" not in entry:
        said = 0.0  # Google leaves out a zero
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise protocol_failure(f"the log probability of a token is {str(said)[:100]}, but must be a number")
    encoded = entry.get("bytes")
    is_bytes = isinstance(encoded, list) and all(type(one) is int and 0 <= one <= _MAX_BYTE for one in encoded)
    return TopLogprob(text_in(entry.get("token"), "a token"), float(said), encoded if is_bytes else None)
