"""Removes log probabilities (``logprobs``, ``top_logprobs``) from the JSON of a large answer.

No mapper reads them: ``token_logprobs.py`` does, if the run asked for them. Pure. With 20 alternatives, each token has 1,000 bytes and 250 values of log probabilities: too
many to decode in one turn of the loop. To skip them takes 3 ms for one MiB at most.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_workers.providers.shared.answer_limits import LimitError, weigh
from headrace_workers.providers.shared.lenient_json import UNREADABLE

_KEY = b"ogprobs"
_SHORT = 1024
_MOST_OBJECTS = 1_500_000
"""JSON with more objects than this is not searched for log probabilities."""


class Probable(msgspec.Struct, gc=False):
    """A choice of Chat Completions, a candidate of Google, or a part of an item of Responses."""

    index: Any = 0
    logprobs: msgspec.Raw = msgspec.Raw()
    logprobs_result: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="logprobsResult")


class ProbableItem(msgspec.Struct, gc=False):
    """An item of Responses."""

    content: list[Probable] | None = None


class _Response(msgspec.Struct, gc=False):
    output: list[ProbableItem] | None = None


class ProbableAnswer(msgspec.Struct, gc=False):
    """An event or a whole answer, with the places where the APIs have log probabilities."""

    kind: Any = msgspec.field(default="", name="type")
    choices: list[Probable] | None = None
    candidates: list[Probable] | None = None
    output: list[ProbableItem] | None = None
    response: _Response | None = None
    item: ProbableItem | None = None
    part: Probable | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(ProbableAnswer).decode


def weighed(data: bytes) -> bytes:
    """Return JSON that is small enough to decode: unchanged, or without its log probabilities. Raises LimitError."""
    try:
        weigh(data)
    except LimitError:
        lighter = _without(data)
        if lighter is None:
            raise
        weigh(lighter)
        return lighter
    return data


def _without(data: bytes) -> bytes | None:
    """Return JSON without its long log probabilities; None if it has none at the places that the APIs use."""
    if _KEY not in data or data.count(b"{") > _MOST_OBJECTS:
        return None
    try:
        whole = _decode(data)
    except UNREADABLE:
        return None
    pieces: list[bytes] = []
    end = 0
    for raw in _raw_in(whole):
        value = bytes(raw)
        if len(value) <= _SHORT:
            continue
        start = data.find(value, end)
        if start < 0:
            return None  # they stand at two kinds of places, which no API does
        pieces += [data[end:start], b"[]" if value.startswith(b"[") else b"null"]
        end = start + len(value)
    return b"".join([*pieces, data[end:]]) if pieces else None


def _raw_in(whole: ProbableAnswer) -> list[msgspec.Raw]:
    """Return the log probabilities. Those at one kind of place are in the order of the JSON."""
    items = [*(whole.output or ()), *((whole.response.output or ()) if whole.response else ())]
    items += [whole.item] if whole.item else []
    probable = [*(whole.choices or ()), *(whole.candidates or ()), *([whole.part] if whole.part else [])]
    for item in items:
        probable += item.content or ()
    return [raw for one in probable for raw in (one.logprobs, one.logprobs_result)] + [whole.logprobs]
