"""HTTP replies of the simulated provider: turns the pieces of an answer into bytes, and adds the faults of the script.

Pure. A *frame* is ``(data, text, chunks)``: body bytes to write at once, the answer's text in them, and the number of
chunks that they complete. It is a plain tuple, because one is made for every chunk of every stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import msgspec

from headrace.testing.shared.request_log import Outcome
from headrace.testing.shared.script import Script

Frame = tuple[bytes, str, int]
Usage = Callable[[], dict[str, Any]]
"""Counts the tokens of an answer, with the names of its API. Only a provider with limits asks."""


class StreamParts(msgspec.Struct, frozen=True):
    """A streamed answer in its wire format: frames before, of and after its chunks, and the bytes of possible faults."""

    opening: list[Frame]
    chunks: Iterator[Frame]
    closing: list[Frame]
    error: bytes
    garbage: bytes = b"data: {not json\n\n"
    comment: bytes = b": keep-alive\n\n"
    usage: Usage | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP response to send. ``pace`` and ``first_token_delay`` are seconds.

    ``ending``: ``open`` means that it never ends, ``cut`` that the connection is closed in the body. Without
    ``content_length`` the transfer is chunked, one HTTP chunk for each frame. With ``is_silent`` not even a status is
    sent; with ``is_reset`` as well, the connection is reset.
    """

    frames: Iterator[Frame]
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    content_length: int | None = None
    ending: Outcome = "complete"
    pace: float = 0.0
    first_token_delay: float = 0.0
    one_write: bool = False
    one_frame_per_turn: bool = False
    close_after: bool = False
    is_silent: bool = False
    is_reset: bool = False
    usage: Usage | None = None


def json_reply(
    body: object, status: int = 200, headers: dict[str, str] | None = None, *, close_after: bool = False
) -> Reply:
    """Return a reply with a JSON body, which is sent at once."""
    data = msgspec.json.encode(body)
    return Reply(
        frames=iter([(data, "", 0)]),
        status=status,
        headers=headers or {},
        content_length=len(data),
        close_after=close_after,
    )


def silence() -> Reply:
    """Return a reply that is never sent."""
    return Reply(frames=iter(()), ending="open", is_silent=True)


def reset() -> Reply:
    """Return a reply that resets the connection."""
    return Reply(frames=iter(()), ending="cut", is_silent=True, is_reset=True)


def web_page(script: Script) -> Reply:
    """Return a web page, such as the login page of a proxy."""
    data = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
    return Reply(
        frames=iter([(data, "", 0)]),
        content_type="text/html; charset=utf-8",
        headers=script.headers,
        content_length=len(data),
        close_after=script.close_after_response,
    )


def reply_without_answer(script: Script, error: dict[str, Any]) -> Reply | None:
    """Return the reply of a script without an answer: silence, a reset, ``error`` or a web page; None if it has an answer."""
    if script.silent:
        return silence()
    if script.reset:
        return reset()
    if script.status != 200:  # noqa: PLR2004
        return json_reply(error, script.status, script.headers, close_after=script.close_after_response)
    return web_page(script) if script.html else None


def streamed(script: Script, parts: StreamParts) -> Reply:
    """Return the streamed answer, with the delays and faults of the script."""
    count, ending = _stop(script)
    return Reply(
        frames=_travelling(script, _misbehaving(script, parts, count, ending)),
        content_type="text/event-stream; charset=utf-8",
        headers=script.headers,
        ending=ending,
        pace=script.pace,
        first_token_delay=script.first_token_delay,
        one_write=script.one_write,
        one_frame_per_turn=script.split_bytes is not None,
        close_after=script.close_after_response,
        usage=parts.usage,
    )


def whole(script: Script, body: object, text: str, chunks: int, usage: Usage | None = None) -> Reply:
    """Return the answer in one piece, after the time that a stream would have taken."""
    data = msgspec.json.encode(body)
    count, ending = _stop(script)
    sent = data if count is None else data[: len(data) // 2]
    return Reply(
        frames=iter([(sent, text if count is None else "", chunks if count is None else 0)]),
        headers=script.headers,
        content_length=len(data),
        ending="cut" if ending in {"ended_early", "failed"} else ending,
        first_token_delay=script.first_token_delay + script.pace * max(chunks - 1, 0),
        close_after=script.close_after_response,
        usage=usage,
    )


def _stop(script: Script) -> tuple[int | None, Outcome]:
    stops: list[tuple[int | None, Outcome]] = [
        (script.stall_after, "open"),
        (script.cut_after, "cut"),
        (script.end_after, "ended_early"),
        (script.error_after, "failed"),
    ]
    return min(
        ((count, ending) for count, ending in stops if count is not None),
        key=lambda stop: stop[0],
        default=(None, "complete"),
    )


def _misbehaving(script: Script, parts: StreamParts, count: int | None, ending: Outcome) -> Iterator[Frame]:
    # Only itertools: a frame of a stream without faults takes no step of Python here.
    chunks = parts.chunks if count is None else islice(parts.chunks, count)
    if script.comments:
        chunks = ((parts.comment + data, text, number) for data, text, number in chunks)
    if script.garbage_after is not None:
        chunks = chain(islice(chunks, script.garbage_after), [(parts.garbage, "", 0)], chunks)
    closing = {"complete": parts.closing, "failed": [(parts.error, "", 0)]}.get(ending, [])
    return chain(parts.opening, chunks, closing)


def _travelling(script: Script, frames: Iterator[Frame]) -> Iterator[Frame]:
    if script.no_final_newline:
        frames = _without_final_newline(frames)
    if script.split_bytes is not None:
        return _split(frames, script.split_bytes)
    if script.one_write:
        return _joined(frames)
    return frames


def _without_final_newline(frames: Iterator[Frame]) -> Iterator[Frame]:
    held = next(frames, None)
    if held is None:
        return
    for frame in frames:
        yield held
        held = frame
    data, text, chunks = held
    yield data.rstrip(b"\r\n"), text, chunks


def _joined(frames: Iterable[Frame]) -> Iterator[Frame]:
    all_data, all_text, all_chunks = [], [], 0
    for data, text, chunks in frames:
        all_data.append(data)
        all_text.append(text)
        all_chunks += chunks
    yield b"".join(all_data), "".join(all_text), all_chunks


def _split(frames: Iterable[Frame], size: int) -> Iterator[Frame]:
    """Cut the stream into pieces of ``size`` bytes.

    A frame's text counts as sent with the piece that has its last byte.
    """
    held = b""
    text, chunks = "", 0  # text and chunks of the frames whose last byte is in ``held``
    for data, frame_text, frame_chunks in frames:
        held += data
        if len(held) < size:
            text, chunks = text + frame_text, chunks + frame_chunks
            continue
        pieces = [held[start : start + size] for start in range(0, len(held), size)]
        held = pieces.pop() if len(held) % size else b""
        for piece in pieces[:-1]:
            yield piece, text, chunks
            text, chunks = "", 0
        if held:
            yield pieces[-1], text, chunks
            text, chunks = frame_text, frame_chunks
        else:
            yield pieces[-1], text + frame_text, chunks + frame_chunks
            text, chunks = "", 0
    if held:
        yield held, text, chunks
